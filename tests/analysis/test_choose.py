import pytest
import yaml
from frames import frame_of, search, trial

from coatnet_search.analysis.choose import choose, write_choices
from coatnet_search.analysis.front import network_front
from coatnet_search.architecture.arch import Arch
from coatnet_search.core.errors import InputError

OBJECTIVES = {"error": "min", "macs": "min"}


def four():
    """Trials 0, 1 and 2 are a front from cheap to good; 3 is behind it."""
    return frame_of(
        trial(0, val_top1=0.80, macs=1e5), trial(1, val_top1=0.85, macs=5e5), trial(2, val_top1=0.90, macs=2e6),
        trial(3, val_top1=0.84, macs=6e5),
    )  # fmt: skip


def test_the_front_is_taken_best_first_objective_first():
    choices = choose(four(), OBJECTIVES, {}, 3)

    assert [choice.row["number"] for choice in choices] == [2, 1, 0]
    assert [choice.rank for choice in choices] == [1, 2, 3]


def test_costs_are_bounded_from_above_and_accuracies_from_below():
    choices = choose(four(), OBJECTIVES, {"macs": 1e6, "val_top1": 0.82}, 3)

    assert [choice.row["number"] for choice in choices] == [1, 3]


def test_a_limit_is_kept_where_it_is_met_exactly():
    choices = choose(four(), OBJECTIVES, {"macs": 5e5}, 1)

    assert [choice.row["number"] for choice in choices] == [1]


def test_trials_behind_the_front_fill_up():
    choices = choose(four(), OBJECTIVES, {}, 9)

    assert [choice.row["number"] for choice in choices] == [2, 1, 0, 3]
    assert [choice.front for choice in choices] == [1, 1, 1, 2]
    assert "Behind the front" in choices[-1].reason


def test_reasons_carry_the_numbers():
    first, second, _ = choose(four(), OBJECTIVES, {"macs": 4e6}, 3)

    assert first.reason.startswith(
        "Best validation error of the 4 comparable networks with macs <= 4 M: validation error 10."
    )
    assert first.reason.endswith("from 1 run and the networks like it; trial 2 itself showed 10.0 %, the best of 4).")
    assert first.metrics["measured_error"] == pytest.approx(0.1) and first.metrics["error"] > 0.1
    assert "against the first choice validation error 4." in second.reason
    assert second.reason.endswith("points higher and multiply-adds 75 % lower.")


def test_every_choice_on_the_front_is_on_the_reported_front():
    frame = search(80)

    choices = choose(frame, OBJECTIVES, {}, 3)

    assert {choice.row["number"] for choice in choices} <= set(network_front(frame, OBJECTIVES)["number"])


def test_an_architecture_with_several_seeds_is_chosen_once():
    again = trial(2, val_top1=0.91) | {"number": 5, "seed": 1}
    frame = frame_of(trial(0, val_top1=0.8), trial(2, val_top1=0.9), again)

    choices = choose(frame, {"error": "min"}, {}, 3)

    assert [choice.row["number"] for choice in choices] == [5, 0]


def test_imported_trials_without_an_architecture_are_told_apart():
    frame = frame_of(trial(0, arch_id=None), trial(1, arch_id=None, val_top1=0.5))

    assert len(choose(frame, {"error": "min"}, {}, 3)) == 2


def test_the_nearest_is_named_where_no_trial_keeps_the_limits():
    with pytest.raises(
        InputError, match=r"no trial keeps macs <= 50 k; the nearest is trial 0 .*macs 100 k.*100\.0 % beyond"
    ):
        choose(four(), OBJECTIVES, {"macs": 5e4}, 3)


def test_a_limit_that_was_never_measured_is_named():
    with pytest.raises(InputError, match=r"no trial has a value for every limit \(latency_ms\)"):
        choose(four(), OBJECTIVES, {"latency_ms": 5}, 3)


@pytest.mark.parametrize(
    "frame", [frame_of(), frame_of(trial(0, state="failed", val_top1=None))], ids=["empty", "failed"]
)
def test_without_finished_trials_there_is_nothing_to_choose(frame):
    with pytest.raises(InputError, match="nothing to choose from"):
        choose(frame, OBJECTIVES, {}, 3)


@pytest.mark.parametrize(
    ("limit", "top", "message"),
    [
        ({"mac": 1e6}, 3, "did you mean 'macs'"),
        ({"macs": float("nan")}, 3, "expected a number"),
        ({}, 0, "at least 1"),
        ({"val_top1": 95}, 3, "expected a fraction, as 0.95 for 95 %"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(limit, top, message):
    with pytest.raises(InputError, match=message):
        choose(four(), OBJECTIVES, limit, top)


def test_files_hold_the_architecture_and_where_it_comes_from(tmp_path):
    choices = choose(four(), OBJECTIVES, {"macs": 1e6}, 2)

    paths = write_choices(choices, tmp_path / "chosen", study="quickstart")

    assert [path.name.rpartition("-")[0] for path in paths] == ["1-C-C-T-T", "2-C-C-T-T"]
    content = yaml.safe_load(paths[0].read_text())
    assert Arch.from_dict(content["arch"]).id == content["arch_id"] == choices[0].row["arch_id"]
    assert paths[0].stem.endswith(content["arch_id"])
    assert (content["study"], content["trial"], content["metrics"]["macs"]) == ("quickstart", 1, 500000)
    assert content["reason"] == choices[0].reason


def test_files_of_an_earlier_choice_go_and_other_files_stay(tmp_path):
    (tmp_path / "mine.yaml").write_text("arch: {}")
    before = write_choices(choose(four(), OBJECTIVES, {}, 3), tmp_path)

    after = write_choices(choose(four(), OBJECTIVES, {"macs": 1e5}, 1), tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([*after, tmp_path / "mine.yaml"])
    assert len(before) == 3


def test_nothing_is_written_where_an_architecture_is_unknown(tmp_path):
    choices = choose(frame_of(trial(0), trial(1, val_top1=0.1, arch=None)), {"error": "min"}, {}, 2)

    with pytest.raises(InputError, match="trial 1 has no architecture"):
        write_choices(choices, tmp_path / "chosen")

    assert not (tmp_path / "chosen").exists()


def test_a_layout_cannot_lead_out_of_the_folder(tmp_path):
    choices = choose(frame_of(trial(0, "C-C-T-T") | {"layout": "../../x<y"}), {"error": "min"}, {}, 1)

    (path,) = write_choices(choices, tmp_path / "chosen")

    assert path.parent == tmp_path / "chosen"
    assert path.name.startswith("1-x-y-")


def test_a_busy_machine_and_a_limit_within_the_spread_are_said():
    busy = trial(0, throughput_images_per_s=1400.0, throughput_images_per_s_spread=790.0, macs=2e6,
                 attributes={"disturbed": ["throughput"]})  # fmt: skip
    frame = frame_of(busy, trial(1, val_top1=0.85, throughput_images_per_s=3000.0))

    first, second = choose(frame, {"error": "min", "throughput_images_per_s": "max"}, {"throughput_images_per_s": 1e3})

    assert "throughput was measured on a busy machine (1,400 images/s with a spread of 790.0" in first.reason
    assert "Whether it keeps throughput_images_per_s >= 1,000 images/s is not sure" in first.reason
    assert "busy" not in second.reason and "not sure" not in second.reason
