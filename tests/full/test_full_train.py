"""Full training: stages and seeds, resumed to the bit, started from weights, scored on a split that nothing saw."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import call, digit_folder
from processes import kill_a_worker
from safetensors.torch import load_file

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.full import train as full_train
from coatnet_search.full.bundle import read_bundle
from coatnet_search.full.plan import Plan, make_plan
from coatnet_search.full.scores import over_seeds, score
from coatnet_search.full.train import against, assess, prepare_out, slow_loader, stage_folder, train_plan
from coatnet_search.training.recipe import make_recipe
from coatnet_search.training.scoring import Scorer

ARCH = Arch(
    image_size=8, in_channels=1, num_classes=10, stem=Stem(depth=1, width=8, stride=1),
    stages=(Stage(block="C", depth=1, width=8, stride=2), Stage(block="T", depth=1, width=16, head_size=8)),
)  # fmt: skip
CPU = torch.device("cpu")
QUICK = ("batch_size=128", "micro_batch=64", "ema=0.9")


@pytest.fixture
def arch_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(ARCH.to_dict()))
    return str(path)


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured in tests of measurements."""
    monkeypatch.setattr(full_train, "_throughput", lambda *_: {})


def planned(arch: str, *recipes: str, **options: Any) -> Plan:
    values: dict[str, Any] = {"sets": QUICK, "epochs": 2, **options}
    return make_plan(arch, recipes or ("digits",), values.pop("data", "digits"), **values)


def done(plan: Plan, out: Path) -> dict[str, Any]:
    prepare_out(plan, out)
    train_plan(plan, out, CPU)
    return assess(plan, out, CPU)


def weights(out: Path, seed: int = 0, stage: int = 1) -> dict[str, torch.Tensor]:
    return load_file(stage_folder(out, seed, stage) / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_are_trained_scored_and_averaged_with_an_interval(arch_file, tmp_path):
    out = tmp_path / "out"

    result = done(planned(arch_file, seeds=(0, 1)), out)

    assert [row["seed"] for row in result["seeds"]] == [0, 1]
    assert result["num_train"] + result["num_val"] + result["num_test"] == 1797
    for split in ("val", "test", "raw_val", "raw_test"):
        scores = result["seeds"][0][split]
        assert scores["top1_low"] <= scores["top1"] <= scores["top1_high"] <= 1
        assert scores["top1"] <= scores["top5"]
    mean = result["means"]["test_top1"]
    assert mean["mean"] == pytest.approx(np.mean([row["test"]["top1"] for row in result["seeds"]]))
    assert mean["low"] < mean["mean"] < mean["high"]
    assert result == json.loads((out / "result.json").read_text())
    assert len((out / "classes.csv").read_text().splitlines()) == 1 + 2 * 2 * 10
    assert "held out" in result["test_note"]
    assert not same(weights(out, 0), weights(out, 1))


class Killed(Exception):
    pass


@pytest.mark.parametrize("rows", [1, 3])
def test_a_resumed_chain_equals_an_uninterrupted_one_to_the_bit(arch_file, tmp_path, rows):
    plan = planned(arch_file, "digits", "small-images-finetune", sets=(*QUICK, "flip=false"))
    train_plan(plan, tmp_path / "whole", CPU)
    seen: list[Any] = []

    def watch(*row: Any) -> None:
        seen.append(row)
        if len(seen) == rows:
            raise Killed

    with pytest.raises(Killed):
        train_plan(plan, tmp_path / "cut", CPU, watch=watch)
    train_plan(plan, tmp_path / "cut", CPU)

    for stage in (1, 2):
        assert same(weights(tmp_path / "whole", stage=stage), weights(tmp_path / "cut", stage=stage))


def test_a_truncated_checkpoint_is_said_and_the_one_before_is_used(arch_file, tmp_path):
    plan = planned(arch_file)
    train_plan(plan, tmp_path / "whole", CPU)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (stage_folder(tmp_path / "cut", 0, 1) / "model.safetensors").unlink()
    last = stage_folder(tmp_path / "cut", 0, 1) / "checkpoints" / "epoch-000002.safetensors"
    last.write_bytes(last.read_bytes()[:-50])

    with pytest.warns(UserWarning, match="epoch-000002 is damaged and skipped"):
        train_plan(plan, tmp_path / "cut", CPU)

    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_later_stage_at_another_size_has_resized_bias_tables(arch_file, tmp_path):
    plan = planned(arch_file, "digits@8", "small-images-finetune@16", sets=(*QUICK, "flip=false"))

    result = done(plan, tmp_path / "out")

    table = "stages.1.0.relative_bias.table"
    assert weights(tmp_path / "out", stage=1)[table].shape == (2, 7, 7)
    assert weights(tmp_path / "out", stage=2)[table].shape == (2, 15, 15)
    assert [stage["image_size"] for stage in result["stages"]] == [8, 16]
    assert read_bundle(tmp_path / "out").sight.image_size == 16


def test_a_timm_network_trains_by_the_same_recipe_and_is_read_back(tmp_path):
    plan = planned("timm:test_vit", sets=("batch_size=256", "drop_path=0.1"), epochs=1, image_size=32)

    done(plan, tmp_path / "out")
    bundle = read_bundle(tmp_path / "out")

    assert bundle.network.timm == "test_vit"
    assert same(dict(bundle.model.state_dict()), weights(tmp_path / "out"))


def test_a_network_that_a_search_chose_is_held_against_what_the_search_saw(arch_file, tmp_path):
    data = planned(arch_file).load(8)
    num_train = data.num_train
    path = tmp_path / "1-chosen.yaml"
    curve = {"predicted_error": 0.5, "predicted_low": 0.0, "predicted_high": 1.0, "predicted_images": num_train}
    promise = {"study": "s", "trial": 3, "metrics": {"val_top1": 0.2, **curve}, "budget": {"epochs": 6}}
    path.write_text(yaml.safe_dump({"arch": ARCH.to_dict(), **promise}))

    result = done(planned(str(path)), tmp_path / "out")

    found = result["against_prediction"]
    assert (found["search_val_top1"], found["search_budget"]) == (0.2, {"epochs": 6})
    assert found["gain"] == pytest.approx(result["means"]["val_top1"]["mean"] - 0.2)
    assert result["predicted"]["trial"] == 3
    assert (found["predicted_val_top1"], found["inside_prediction"]) == (0.5, True)
    assert "inside_prediction" not in (against(promise, result["means"], _images(data, num_train=5000)) or {})
    assert against({}, result["means"], data) is None


def test_a_training_on_other_images_than_the_search_s_does_not_judge_its_choice(arch_file, tmp_path):
    data, path = planned(arch_file).load(8), tmp_path / "1-chosen.yaml"
    told = {"study": "s", "trial": 3, "metrics": {"val_top1": 0.2}, "budget": {"epochs": 6}}
    path.write_text(yaml.safe_dump({"arch": ARCH.to_dict(), **told}))
    promise, means = planned(str(path)).network.promise, {"val_top1": {"mean": 0.5}}

    assert against(promise, means, data)["gain"] == pytest.approx(0.3)
    assert against(promise, means, _images(data, num_classes=2)) is None
    assert against(promise, means, _images(data, in_channels=3)) is None


def _images(data, **other):
    facts = {name: getattr(data, name) for name in ("num_train", "in_channels", "num_classes")}
    return SimpleNamespace(**{**facts, **other})


def test_a_folder_of_other_training_is_refused_with_the_difference(arch_file, tmp_path):
    prepare_out(planned(arch_file), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")

    with pytest.raises(InputError, match=r"holds other training: stages 1\.recipe\.epochs: 2 -> 3"):
        prepare_out(planned(arch_file, epochs=3), tmp_path / "out")
    with pytest.raises(InputError, match="is not empty and holds no training"):
        prepare_out(planned(arch_file), tmp_path / "full")


def test_a_slow_loader_is_said_with_what_to_do():
    fast = {"train_images_per_s": 100.0, "loader_images_per_s": 900.0}
    slow = {"train_images_per_s": 100.0, "loader_images_per_s": 110.0}

    assert slow_loader({"train_images_per_s": 100.0}, 0) is None
    assert slow_loader(fast, 0) is None
    assert "91 % of training is waiting for images, 110 a second with data.workers=2" in str(slow_loader(slow, 2))


def test_scores_are_those_of_a_network_whose_answers_are_known():
    class Sure(torch.nn.Module):
        """Always says the class that the image's first pixel names, with confidence 0.5."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(x[:, 0, 0, 0].long(), 3) * float(np.log(2))

    images = torch.tensor([0.0, 0.0, 1.0, 2.0]).view(4, 1, 1, 1)

    found = score(Sure(), iter([(images, torch.tensor([0, 0, 1, 1]))]), ("a", "b", "c"))

    assert (found.top1, found.top5, found.num_images) == (0.75, 1.0, 4)
    assert found.calibration_error == pytest.approx(0.25)
    assert [row["most_often_taken_for"] for row in found.classes] == [None, "c", None]
    assert [row["top1"] for row in found.classes] == [1.0, 0.5, None]


def test_the_interval_over_seeds_is_students():
    found = over_seeds([0.9, 0.92, 0.94])

    assert found["mean"] == pytest.approx(0.92)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * 0.02 / np.sqrt(3))
    assert over_seeds([0.9])["low"] is None


def test_two_seeds_on_known_images_give_an_interval_that_says_something():
    low, high = (over_seeds([0.500, 0.570], num_images=359)[end] for end in ("low", "high"))
    many = over_seeds([0.900, 0.901, 0.899, 0.900], num_images=400)

    assert over_seeds([0.500, 0.570])["high"] > 0.97, "Student's t with one degree of freedom says nothing"
    assert 0.38 < low < 0.50 and 0.57 < high < 0.68
    assert many["high"] - many["low"] > 0.03, "equal seeds do not know more of other images than the images show"


def test_the_loss_of_a_sigmoid_recipe_is_its_own():
    logits, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 4
    model = torch.nn.Identity()
    judge = Scorer(make_recipe({"name": "digits", "loss": "sigmoid"}), 4, CPU)

    found = score(model, iter([(logits, labels)]), tuple("abcd"), loss="sigmoid")

    assert found.loss == pytest.approx(judge.scores(model, iter([(logits, labels)]))[0])
    assert score(model, iter([(logits, labels)]), tuple("abcd")).loss != pytest.approx(found.loss)


def test_a_network_of_timm_that_a_search_chose_trains_at_the_size_of_the_data(tmp_path):
    path = tmp_path / "1-timm-test-vit.yaml"
    path.write_text(yaml.safe_dump({"timm": "test_resnet", "trial": 1, "metrics": {"val_top1": 0.2}}))

    plan = planned(str(path), sets=("batch_size=256",))

    assert (plan.network.timm, plan.network.shape.image_size) == ("test_resnet", 8)
    assert plan.network.promise["trial"] == 1


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_trains_scores_predicts_and_says_what_is_next(capsys, arch_file, tmp_path):
    out, images = tmp_path / "out", digit_folder(tmp_path / "images", 12)

    trained = call(capsys, "train", arch_file, "--recipe", "digits", "--data", "digits", "--epochs", 2, "--set",
                   *QUICK, "--out", out, "--json")  # fmt: skip
    (images / "broken.png").write_bytes(b"nothing")
    seen = call(capsys, "predict", out, images, "--top", 3, "--json")

    assert trained.code == 0, trained.err
    assert trained.json["num_test"] == 359
    assert "epoch 2/2: training loss" in trained.err
    assert f"coatnet-search export {out}" in trained.err
    assert seen.code == 0, seen.err
    assert len(seen.json) == 13
    good = [row for row in seen.json if not row["problem"]]
    assert len(good) == 12 and all(len(row["classes"]) == 3 for row in good)
    assert [one["confidence"] for one in good[0]["classes"]] == sorted(
        (one["confidence"] for one in good[0]["classes"]), reverse=True
    )


def test_predict_sees_what_validation_saw(arch_file, tmp_path, capsys):
    root = digit_folder(tmp_path / "images", 200)
    plan = planned(arch_file, data=str(root), sets=("batch_size=32",))
    prepare_out(plan, tmp_path / "out")
    train_plan(plan, tmp_path / "out", CPU)
    assess(plan, tmp_path / "out", CPU)
    data = plan.load(8)
    files = sorted(root.rglob("*.png"))
    bundle = read_bundle(tmp_path / "out")

    images, _ = next(data.plain_batches(torch.arange(200), batch_size=200, device=CPU))
    theirs = bundle.sight.batch(torch.stack([bundle.sight.pixels(file.read_bytes()) for file in files]))

    torch.testing.assert_close(images, theirs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "nowhere", "x.png"), "nowhere/config.json is not there"),
        (("export", "nowhere"), "nowhere/config.json is not there"),
        (("train", "coatnet-0", "--recipe", "digits"), "train needs --data"),
        (("train", "coatnet-9", "--recipe", "digits", "--data", "digits"), "no architecture named"),
        (("train", "coatnet-5", "--recipe", "paper-imagenet", "--print-recipe"), "not for coatnet-5"),
        (("train", "coatnet-0", "--recipe", "digits", "--seeds", "a"), "expected whole numbers with commas"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, words, message):
    assert message in call(capsys, *words).error


def test_print_recipe_shows_the_values_of_the_size(capsys):
    shown = call(capsys, "train", "coatnet-3", "--recipe", "paper-imagenet", "paper-imagenet-finetune@384",
                 "--print-recipe", "--json")  # fmt: skip

    assert [(row["drop_path"], row["randaugment_magnitude"], row["image_size"]) for row in shown.json] == [
        (0.7, 15, 224), (0.7, 20, 384)]  # fmt: skip


# --- kills -----------------------------------------------------------------------------------------------------------


def started(arch_file: str, out: Path, *words: str) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-m", "coatnet_search", "train", arch_file, "--recipe", "digits", "--data", "digits",
            "--epochs", "6", "--set", *QUICK, "--out", str(out), *words]  # fmt: skip
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(epochs: int, process: "subprocess.Popen[bytes]", out: Path) -> None:
    """Until so many epochs are done: what comes then is in the middle of the next one."""
    rows = stage_folder(out, 0, 1) / "train.jsonl"
    until = time.monotonic() + 900
    while not (rows.is_file() and len(rows.read_text().splitlines()) >= epochs):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def killed_after(epochs: int, process: "subprocess.Popen[bytes]", out: Path) -> None:
    """SIGKILL to the whole group, somewhere after so many epochs."""
    wait_for(epochs, process, out)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_killed_process_goes_on_to_the_same_bits(arch_file, tmp_path):
    assert started(arch_file, tmp_path / "whole").wait(900) == 0
    killed_after(2, started(arch_file, tmp_path / "cut"), tmp_path / "cut")

    assert started(arch_file, tmp_path / "cut").wait(900) == 0

    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_two_workers_that_were_killed_in_an_epoch_go_on_to_the_weights_of_an_unbroken_run(arch_file, tmp_path):
    assert started(arch_file, tmp_path / "whole", "--workers", "2").wait(900) == 0
    lost = started(arch_file, tmp_path / "lost", "--workers", "2")
    wait_for(2, lost, tmp_path / "lost")
    kill_a_worker(lost)
    assert lost.wait(900) == 0  # the group starts again from the last epoch by itself
    killed_after(2, started(arch_file, tmp_path / "cut", "--workers", "2"), tmp_path / "cut")

    assert started(arch_file, tmp_path / "cut", "--workers", "2").wait(900) == 0

    assert same(weights(tmp_path / "cut"), weights(tmp_path / "lost"))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, value in one.items():
        torch.testing.assert_close(value.float(), other[name].float(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("device", "gpus", "on_gpus"), [(None, 2, True), (None, 0, False), ("cuda", 0, True),
                                                         ("cpu", 2, False)])  # fmt: skip
def test_a_cluster_decides_the_device_and_not_the_machine_that_starts_it(monkeypatch, device, gpus, on_gpus):
    """``--device cuda`` on a cluster without GPUs is then refused by its room, and never trains on CPUs."""
    from coatnet_search.full import distributed

    monkeypatch.setattr(distributed, "gpus_in_cluster", lambda _address: gpus)

    assert distributed.cluster_has_gpus(device, "10.0.0.1:6379") is on_gpus
    with pytest.raises(InputError, match="--device cuda:1: each worker"):
        distributed.cluster_has_gpus("cuda:1", "10.0.0.1:6379")


@pytest.mark.ray
def test_a_network_that_workers_trained_is_scored_on_a_worker(arch_file, tmp_path, capsys, monkeypatch):
    def here(*_args):
        raise AssertionError("scored by the process that started the training")

    monkeypatch.setattr("coatnet_search.cli.commands.train.assess", here)
    made = call(capsys, "train", arch_file, "--recipe", "digits", "--data", "digits", "--epochs", "1",
                "--workers", "1", "--out", tmp_path / "made", "--set", *QUICK)  # fmt: skip

    assert made.code == 0
    assert (tmp_path / "made" / "result.json").is_file() and (tmp_path / "made" / "model.safetensors").is_file()


def test_more_workers_than_devices_are_refused():
    from coatnet_search.search.ray.train import check_room

    with pytest.raises(SetupError, match="4 workers: each needs a GPU, and there are 1"):
        check_room({"CPU": 16.0, "GPU": 1.0}, 4, gpus=True)
