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


def checkpoint(folder, epoch, text=None):
    """The two files of a checkpoint, as far as storage looks at them."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".safetensors", ".json"):
        (folder / f"epoch-{epoch:06d}{ending}").write_text(text or f"{epoch}{ending}")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_pull_that_is_cut_short_at_any_file_is_finished_by_the_next_and_pushes_nothing_away(tmp_path, monkeypatch):
    there, store = tmp_path / "there", Storage((tmp_path / "there").as_uri())
    for epoch in (6, 7):
        checkpoint(there / "trial", epoch)
    whole, copy = names(there / "trial"), Storage._copy

    for copied in range(4):
        here, left = tmp_path / f"node-{copied}", [copied]

        def killed(self, source, target, left=left):
            if not left[0]:
                target.write_text("hal")
                raise KeyboardInterrupt
            left[0] -= 1
            copy(self, source, target)

        monkeypatch.setattr(Storage, "_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            store.pull("trial", here)
        monkeypatch.setattr(Storage, "_copy", copy)
        notes = {path.stem for path in here.glob("epoch-*.json")}
        assert notes <= {path.stem for path in here.glob("epoch-*.safetensors")}

        store.push(here, "trial")
        assert names(there / "trial") == whole
        store.pull("trial", here)

        assert names(here) == whole


def test_a_push_of_a_training_that_began_again_leaves_what_is_newer_and_a_pull_takes_it(tmp_path):
    store, place = Storage((tmp_path / "there").as_uri()), tmp_path / "there" / "trial"
    checkpoint(place, 2)
    checkpoint(place, 7)
    checkpoint(tmp_path / "here", 3)
    checkpoint(tmp_path / "here", 4)

    store.push(tmp_path / "here", "trial")
    store.pull("trial", tmp_path / "here")

    assert {path.stem for path in place.iterdir()} == {f"epoch-00000{epoch}" for epoch in (3, 4, 7)}
    assert {path.stem for path in (tmp_path / "here").iterdir()} == {f"epoch-00000{epoch}" for epoch in (3, 4, 7)}


def test_tensors_of_another_run_that_were_left_there_are_replaced_with_their_note(tmp_path):
    store, place = Storage((tmp_path / "there").as_uri()), tmp_path / "there" / "trial"
    checkpoint(place, 3, "of a push that was killed")
    (place / "epoch-000003.json").unlink()
    checkpoint(tmp_path / "here", 3)

    store.push(tmp_path / "here", "trial")

    assert (place / "epoch-000003.safetensors").read_text() == "3.safetensors"
    assert names(place) == ["epoch-000003.json", "epoch-000003.safetensors"]


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
