"""What a study will cost, told before it runs."""

import math
from pathlib import Path

import pytest
from command_line import call, digit_folder

from coatnet_search.core.errors import InputError
from coatnet_search.study import plan as planning
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import Plan, make_plan

SPEED = 500.0  # images a second, made up


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "SAMPLED", 40)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose speed is known."""
    monkeypatch.setattr(planning, "training_speed", lambda *given: SPEED)


def planned(*sets: str, name: str = "quickstart") -> Plan:
    return make_plan(load_study(name, sets))


@pytest.mark.usefixtures("steady")
def test_a_plan_counts_networks_trials_and_images() -> None:
    plan = planned()

    assert (plan.networks.size, plan.networks.exact) == (98304, True)
    assert sum(plan.networks.layouts.values()) == plan.networks.size
    assert (plan.trials, plan.epochs, plan.num_train, plan.num_val, plan.num_classes) == (24, 6, 1438, 359, 10)
    assert plan.macs.min < plan.macs.median < plan.macs.max
    assert plan.networks.macs[0] <= plan.macs.min <= plan.macs.max <= plan.networks.macs[1]
    assert plan.warnings == ()
    assert "demonstration" in str(plan.data_note)


@pytest.mark.usefixtures("steady")
def test_hours_grow_with_trials_and_epochs() -> None:
    one, trials, epochs = planned(), planned("search.trials=48"), planned("recipe.epochs=12")

    assert one.training is not None
    assert trials.training is not None
    assert epochs.training is not None
    assert trials.training.device_hours == pytest.approx(2 * one.training.device_hours)
    fixed = 24 * planning.START_S / 3600
    assert epochs.training.device_hours - fixed == pytest.approx(2 * (one.training.device_hours - fixed))
    assert one.training.hours == pytest.approx(one.training.device_hours / one.training.at_once)


@pytest.mark.usefixtures("steady")
def test_hours_are_images_at_the_measured_speed_scaled_by_multiply_adds() -> None:
    plan = planned("search.trials=1")

    assert plan.training is not None
    images = 6 * (1438 + (359 + 1438) / 3)
    expected = planning.START_S + images / SPEED
    assert 3600 * plan.training.device_hours == pytest.approx(expected, rel=0.5)  # the mean network is not the median
    assert plan.training.hours_per_million_images == pytest.approx(1e6 / SPEED / 3600, rel=0.5)


def test_the_speed_comes_from_real_training_steps() -> None:
    plan = planned()

    assert plan.training is not None
    assert math.isfinite(plan.training.images_per_s)
    assert plan.training.images_per_s > 0
    assert plan.training.device.startswith("cpu")


@pytest.mark.usefixtures("steady")
def test_a_study_that_trains_nothing_has_no_hours() -> None:
    plan = planned("evaluate=measured", "objectives={throughput_images_per_s: max, macs: min}")

    assert plan.epochs == 0
    assert plan.training is None


@pytest.mark.usefixtures("steady")
def test_a_small_space_has_no_more_trials_than_networks(tmp_path: Path) -> None:
    (tmp_path / "room.yaml").write_text(
        "image_size: 8\nin_channels: 1\nstem: {stride: 1, width: 8}\nhead_size: 8\n"
        "stages: [{block: [C, T], depth: [1, 2], width: 8, stride: 2}]\n"
    )

    plan = planned(f"space={tmp_path / 'room.yaml'}")

    assert plan.networks.size == 4
    assert plan.trials == 4


@pytest.mark.usefixtures("steady")
def test_the_study_s_own_limits_shape_the_sample() -> None:
    free, bound = planned(), planned("limits={macs: 7e5}")

    assert free.within_limits == 1
    assert 0 < bound.within_limits < 1
    assert bound.macs.max <= 7e5 < free.macs.max


def test_limits_that_no_network_keeps_are_an_error_with_the_nearest_cost() -> None:
    with pytest.raises(InputError, match="no network of digits has at most 7 multiply-adds; all have at least"):
        planned("limits={macs: 7}")


@pytest.mark.usefixtures("steady")
def test_what_is_not_here_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    plan = planned(name="imagenet-layouts")

    told = " ".join(plan.warnings)
    assert "--set data.path=..." in told
    assert "resources.gpus is 1 and torch sees 0 GPUs here" in told
    assert plan.num_train is None
    assert plan.training is not None
    assert plan.training.device_hours is None
    assert "in place of the GPU that is not here" in plan.training.device


@pytest.mark.usefixtures("steady")
def test_a_trial_larger_than_the_machine_and_a_full_disk_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "usable_cores", lambda: 2)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 5 << 20})())

    plan = planned("resources.cpus=3")

    told = " ".join(plan.warnings)
    assert "resources.cpus is 3 and this machine has 2 CPUs" in told
    assert "MiB of disk are needed and 5 MiB are free" in told


@pytest.mark.usefixtures("steady")
def test_replicates_are_told_as_what_they_are_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(load_study("quickstart", ["replicates=3"]))

    printed = call(capsys, "plan", "quickstart", "--set", "replicates=3")

    assert (plan.trials, plan.replicates) == (72, 48)
    assert "at most 48 of them train again what is near the front" in printed.err + printed.out


def test_too_little_room_for_the_checkpoints_of_paused_trials_is_a_warning() -> None:
    sets = ["search.halving={first: 1, factor: 3}", "recipe.epochs=9"]

    tight = make_plan(load_study("quickstart", [*sets, "faults.checkpoints_gib=0.0005"]))
    wide = make_plan(load_study("quickstart", [*sets, "faults.checkpoints_gib=1"]))

    assert any("paused trials keep theirs" in text for text in tight.warnings)
    assert not any("checkpoints_gib" in text for text in wide.warnings)


def test_the_command_warns_exits_0_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "plan", "imagenet-layouts")
    told = call(capsys, "plan", "imagenet-layouts", "--json")

    assert [shown.code, told.code] == [0, 0]
    assert "276,543 distinct networks" in shown.out
    assert "device-hours for a million images" in shown.out
    assert "warning: " in shown.err
    assert "next: coatnet-search run imagenet-layouts" in shown.out
    assert told.json["networks"]["size"] == 276543
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("steady")
def test_the_command_takes_the_user_s_own_images(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("images"), 100)

    shown = call(capsys, "plan", "quickstart", "--set", "data.name=image_folder", "data.path=images", "--json")

    assert shown.code == 0
    assert shown.json["num_train"] + shown.json["num_val"] == 100
    assert shown.json["training"]["device_hours"] > 0
