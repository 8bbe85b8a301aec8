"""Checkpoints at a URI: a trial goes on where its own folder is not, and storage that fails for a while."""

import pytest
from object_store import MOTO
from quickstarts import study

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.storage import TRIES, Storage
from coatnet_search.search.evaluate import Evaluator
from coatnet_search.search.task import Task


def _task(asked):
    import numpy as np

    arch = asked.space.decode(asked.space.sample(np.random.default_rng(0)))
    return Task(number=0, key=asked.key(arch), arch=arch, budget=asked.budget)


def _losses(reports):
    return [(row.metrics["epoch"], row.metrics["val_loss"]) for row in reports if row.state is None]


def _goes_on_elsewhere(tmp_path, uri):
    asked = study(1, None, "recipe.epochs=4", f"storage={uri}").with_data()
    task = _task(asked)
    first = Evaluator(asked, tmp_path / "one", "cpu").run(task)
    begun = [next(first), next(first)]
    first.close()  # the node is gone, and its folder with it

    reports = list(Evaluator(asked, tmp_path / "two", "cpu").run(task))

    whole = list(Evaluator(study(1, None, "recipe.epochs=4").with_data(), tmp_path / "whole", "cpu").run(task))
    assert _losses(reports)[:2] == _losses(begun) and reports[-1].state == "done"
    assert _losses(reports) == _losses(whole)
    return asked, task


def test_a_training_goes_on_elsewhere_from_what_a_folder_holds(tmp_path):
    asked, task = _goes_on_elsewhere(tmp_path, (tmp_path / "shared").as_uri())

    place = tmp_path / "shared" / asked.name / task.key
    assert sorted(path.name for path in place.iterdir()) == [
        "epoch-000003.json", "epoch-000003.safetensors", "epoch-000004.json", "epoch-000004.safetensors"]  # fmt: skip
    asked.checkpoint_storage().forget(task.key)
    assert not place.exists()


@pytest.mark.skipif(MOTO is None, reason="needs moto_server: pip install 'moto[server]' in an environment of its own")
def test_a_training_goes_on_elsewhere_from_what_an_s3_server_holds(tmp_path, s3):
    asked, task = _goes_on_elsewhere(tmp_path, s3)

    asked.checkpoint_storage().check()
    asked.checkpoint_storage().forget(task.key)


def test_storage_that_fails_for_a_while_is_asked_again_and_then_given_up(tmp_path):
    pauses: list[float] = []
    place = Storage((tmp_path / "there").as_uri(), sleep=pauses.append)
    failures = [OSError("connection reset")] * (TRIES - 1)

    def flaky():
        if failures:
            raise failures.pop()
        return "well"

    def dead():
        raise OSError("no route to host")

    answer = place._again(flaky)
    first = list(pauses)
    with pytest.raises(SetupError, match=rf"no route to host \({TRIES} tries\)"):
        place._again(dead)

    assert answer == "well" and len(first) == TRIES - 1 and len(pauses) == 2 * (TRIES - 1)
    assert first[0] <= 1.5 and 2.0 <= first[2] <= 6.0


def test_storage_that_cannot_be_written_is_told_before_any_trial(tmp_path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(SetupError, match="storage: "):
        Storage((tmp_path / "file" / "inner").as_uri(), sleep=lambda _seconds: None).check()


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "folder/of/mine", "ftp://host/x"])
def test_a_uri_that_is_none_or_holds_keys_is_refused_and_keys_are_not_repeated(uri):
    with pytest.raises(InputError) as caught:
        study(1, "good", f"storage={uri}").checkpoint_storage()

    assert "secret" not in str(caught.value) and "storage" in str(caught.value)
