"""Data at a URI: the same data as here, fetched once by a machine, and again only what has changed."""

import dataclasses
import urllib.parse
import urllib.request

import numpy as np
import pytest
import torch
from object_store import MOTO
from quickstarts import study
from test_datasets import cache, make_folder, picture, spec_of  # noqa: F401 (fixtures)

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.storage import Storage
from coatnet_search.data import remote
from coatnet_search.data.load import load_data
from coatnet_search.data.remote import _place, local_path
from coatnet_search.data.spec import DataSpec
from coatnet_search.full.plan import data_spec
from coatnet_search.record.fold import read_trials
from coatnet_search.search.run import run
from coatnet_search.study.new import default_name, look_at


@pytest.fixture(autouse=True)
def another_process():
    remote._fetched.cache_clear()


def at_uri(spec):
    return dataclasses.replace(spec, path=f"file://{spec.path}")


@pytest.mark.parametrize("name", ["parquet", "image_folder", "cifar10"])
def test_data_at_a_uri_is_the_same_data(name, spec_of):  # noqa: F811
    spec = spec_of(name)

    here, there = load_data(spec), load_data(at_uri(spec))

    assert there.digest == here.digest
    assert np.array_equal(there.val_numbers, here.val_numbers)
    assert torch.equal(there.images.on(torch.device("cpu")), here.images.on(torch.device("cpu")))


def test_a_machine_fetches_once_and_again_only_what_has_changed(tmp_path, monkeypatch):
    source = make_folder(tmp_path / "images", per_class=3)
    uri, asked, fetch = source.as_uri(), [], Storage.fetch
    monkeypatch.setattr(Storage, "fetch", lambda self, name, *given: (asked.append(name), fetch(self, name, *given)))

    place = local_path(uri)
    local_path(uri)
    local_path(f"{uri}/")
    whole = len(asked)
    remote._fetched.cache_clear()
    local_path(uri)
    unchanged = len(asked) - whole
    (source / "cat" / "0.png").write_bytes(picture(7, (20, 20)))
    (source / "cat" / "1.png").unlink()
    (source / "eel" / "new.png").write_bytes(picture(8))
    remote._fetched.cache_clear()
    local_path(uri)

    assert whole == 9 and unchanged == 0 and sorted(asked[9:]) == ["cat/0.png", "eel/new.png"]
    for folder in (source, place):
        files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
        assert len(files) == 9 and (folder / "cat" / "0.png").read_bytes() == picture(7, (20, 20))


def test_what_cannot_be_fetched_says_so(tmp_path):
    with pytest.raises(SetupError, match=r"^data.path: there is nothing at file:///no/such/data$"):
        local_path("file:///no/such/data")
    with pytest.raises(InputError, match=r"^data.path: ftp://host/x"):
        local_path("ftp://host/x")
    for name in ("../outside", "a/../../outside"):
        with pytest.raises(SetupError, match="leads out of its folder"):
            _place(tmp_path, name)


def test_a_fetch_that_is_cut_off_leaves_no_file_under_its_name(tmp_path, monkeypatch):
    source = make_folder(tmp_path / "images", per_class=2)
    copy = Storage._copy

    def cut(self, name, target):
        copy(self, name, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "_copy", cut)
    with pytest.raises(KeyboardInterrupt):
        local_path(source.as_uri())
    monkeypatch.setattr(Storage, "_copy", copy)
    left = list((tmp_path / "cache" / "data").rglob("*.png"))

    assert not [path for path in left if not path.name.startswith(".")]
    assert len(list(local_path(source.as_uri()).rglob("*.png*"))) == 6


def test_a_uri_with_keys_is_refused_and_they_are_not_repeated():
    with pytest.raises(InputError, match=r"data.path: expected a URI without keys") as caught:
        study(1, "good", "data.path=s3://key:secret@bucket/x")

    assert "secret" not in str(caught.value)


def test_full_training_takes_a_uri_for_its_data():
    spec = data_spec("image_folder:s3://bucket/flowers")

    assert (spec.name, spec.path) == ("image_folder", "s3://bucket/flowers")
    with pytest.raises(InputError, match="image_folder:s3://bucket/flowers or parquet:s3://bucket/flowers"):
        data_spec("s3://bucket/flowers")


def test_a_study_is_made_of_images_at_a_uri(tmp_path):
    uri = make_folder(tmp_path / "flowers" / "train").as_uri()

    look = look_at(uri)

    assert (look.spec.path, look.summary.num_classes, default_name(uri)) == (uri, 3, "flowers")


def test_a_search_trains_on_data_at_a_uri(tmp_path):
    uri = make_folder(tmp_path / "images", per_class=6, classes=tuple("abcdefghij")).as_uri()
    asked = study(2, None, "space=cifar-tiny", "data.name=image_folder", f"data.path={uri}")

    outcome = run(asked, local=True, runs=tmp_path / "runs")

    assert [trial.state for trial in read_trials(outcome.run)] == ["done"] * 2


@pytest.mark.skipif(MOTO is None, reason="needs moto_server: pip install 'moto[server]' in an environment of its own")
def test_images_on_an_s3_server_are_the_same_data(tmp_path, s3):
    folder, address = make_folder(tmp_path / "images"), urllib.parse.urlsplit(s3)
    host = urllib.parse.parse_qs(address.query)["endpoint_override"][0]
    for path in folder.rglob("*.png"):
        name = path.relative_to(folder).as_posix()
        put = urllib.request.Request(f"http://{host}/bucket/folder/{name}", data=path.read_bytes(), method="PUT",
                                     headers={"Content-Type": "image/png"})  # fmt: skip
        urllib.request.urlopen(put, timeout=60).close()

    here, there = (load_data(DataSpec(name="image_folder", path=path)) for path in (str(folder), s3))

    assert there.digest == here.digest and there.num_classes == 3
