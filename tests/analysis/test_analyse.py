import itertools
import math

import numpy as np
import pandas as pd
import pytest
from frames import LAYOUTS, frame_of, search, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from coatnet_search.analysis.front import hypervolume_over_trials, layouts_table, pareto_front, separability
from coatnet_search.analysis.intervals import difference_margin, wilson
from coatnet_search.core.errors import InputError

NAMES = ("val_loss", "macs", "val_top1", "throughput_images_per_s")
value = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), st.floats(-1e6, 1e6))
senses = st.sampled_from(["min", "max"])


@st.composite
def records(draw):
    """A frame of up to 12 done trials, with 1 to 4 objectives, ties, duplicates and NaN among them."""
    names = NAMES[: draw(st.integers(1, 4))]
    objectives = {name: draw(senses) for name in names}
    rows = draw(st.lists(st.tuples(*[value] * len(names)), max_size=12))
    frame = pd.DataFrame(rows, columns=list(names), dtype=float)
    frame["number"], frame["state"], frame["layout"], frame["epochs"] = range(len(rows)), "done", "C-C-T-T", 5
    return frame, objectives


def brute_force_front(frame, objectives):
    """Numbers of the trials on the front by comparing every pair; equal points once."""
    points = {row["number"]: tuple(row[name] * (1 if sense == "min" else -1) for name, sense in objectives.items())
              for _, row in frame.iterrows()}  # fmt: skip
    points = {number: point for number, point in points.items() if not any(math.isnan(part) for part in point)}
    kept = {}
    for number, point in points.items():
        beaten = any(other != point and all(a <= b for a, b in zip(other, point, strict=True))
                     for other in points.values())  # fmt: skip
        if not beaten and point not in kept.values():
            kept[number] = point
    return set(kept)


@settings(max_examples=150, deadline=None)
@given(records())
def test_the_front_is_that_of_comparing_every_pair(record):
    frame, objectives = record

    front = pareto_front(frame, objectives)

    missing = frame[list(objectives)].isna().any(axis=1).sum()
    assert set(front["number"]) == brute_force_front(frame, objectives)
    assert front.attrs["excluded"] == missing


@settings(max_examples=60, deadline=None)
@given(records())
def test_the_front_starts_with_the_best_first_objective(record):
    frame, objectives = record
    name, sense = next(iter(objectives.items()))

    values = pareto_front(frame, objectives)[name].tolist()

    assert values == sorted(values, reverse=sense == "max")


@settings(max_examples=60, deadline=None)
@given(records())
def test_hypervolume_never_shrinks_and_stays_a_share(record):
    frame, objectives = record

    rows = hypervolume_over_trials(frame, objectives)

    volumes = rows["hypervolume"].to_numpy()
    assert (np.diff(volumes) >= -1e-12).all()
    assert ((volumes > 0) & (volumes <= 1 + 1e-9)).all()


def test_one_trial_is_its_own_front():
    frame = frame_of(trial(3))

    front = pareto_front(frame, {"error": "min", "macs": "min"})

    assert front["number"].tolist() == [3]


def test_all_but_one_can_be_dominated():
    frame = frame_of(*(trial(number, val_loss=1.0 + number, macs=1e6 + number) for number in range(6)))

    front = pareto_front(frame, {"val_loss": "min", "macs": "min"})

    assert front["number"].tolist() == [0]


@pytest.mark.parametrize("state", ["pending", "running", "paused", "stopped", "failed", "refused"])
def test_trials_that_are_not_done_stay_out(state):
    frame = frame_of(trial(0), trial(1, state=state, val_loss=0.0, macs=1.0))

    front = pareto_front(frame, {"val_loss": "min", "macs": "min"})

    assert front["number"].tolist() == [0]
    assert front.attrs["not_done"] == 1


def test_budgets_do_not_mix_and_the_fullest_one_counts():
    small, subset = trial(1, epochs=1, val_loss=0.0), trial(2, num_images=100, val_loss=0.0)
    frame = frame_of(trial(0, val_loss=0.5, seed=7), small, subset, trial(3, val_loss=0.4))

    front = pareto_front(frame, {"val_loss": "min"})

    assert front["number"].tolist() == [3]
    assert front.attrs["other_budgets"] == 2
    assert front.attrs["budget"] == {"epochs": 5.0, "num_images": None, "image_size": None}


def test_infinity_and_text_count_as_missing():
    frame = frame_of(trial(0), trial(1, val_loss=-math.inf), trial(2, val_loss="low"))

    front = pareto_front(frame, {"val_loss": "min"})

    assert front["number"].tolist() == [0]
    assert front.attrs["excluded"] == 2


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({}, "at least one"),
        ({"val_los": "min"}, "did you mean 'val_loss'.*Known: .*macs"),
        ({"arch": "min"}, "no objective named 'arch'"),
        ({"macs": "least"}, "expected min or max"),
    ],
)
def test_objectives_that_cannot_be_are_named(objectives, message):
    with pytest.raises(InputError, match=message):
        pareto_front(search(4), objectives)


def test_an_empty_record_has_an_empty_front():
    for frame in (frame_of(), pd.DataFrame()):
        front = pareto_front(frame, {"val_loss": "min", "macs": "min"})

        assert front.empty
        assert hypervolume_over_trials(frame, {"val_loss": "min"}).empty
        assert layouts_table(frame, {"val_loss": "min"}).empty


def test_the_frame_that_came_is_not_changed():
    frame = search(20)
    before = frame.copy(deep=True)

    pareto_front(frame, {"error": "min", "macs": "min"})
    layouts_table(frame, {"error": "min"})

    pd.testing.assert_frame_equal(frame, before)
    assert frame.attrs == {"study": "quickstart"}


def test_hypervolume_of_a_known_front():
    frame = frame_of(trial(0, params=1.0, macs=3.0), trial(1, params=3.0, macs=1.0), trial(2, params=2.0, macs=2.0))

    rows = hypervolume_over_trials(frame, {"params": "min", "macs": "min"}, reference=(4.0, 4.0))

    assert rows["trials"].tolist() == [1, 2, 3]
    assert rows["hypervolume"].tolist() == pytest.approx([3 / 9, 5 / 9, 6 / 9])


def test_hypervolume_does_not_depend_on_units():
    frame = search(40)
    scaled = frame.assign(macs=frame["macs"] * 1e-6)

    first, second = (hypervolume_over_trials(f, {"error": "min", "macs": "min"}) for f in (frame, scaled))

    assert first["hypervolume"].tolist() == pytest.approx(second["hypervolume"].tolist())


def test_trials_on_the_axis_count_those_that_failed():
    frame = frame_of(trial(0), trial(1, state="failed", val_loss=None), trial(2, val_loss=0.1))

    rows = hypervolume_over_trials(frame, {"val_loss": "min"})

    assert rows["trials"].tolist() == [1, 3]


@pytest.mark.parametrize("reference", [(0.25, 1e9), (1.0, 5e5), (math.nan, 1e9), (1.0,)])
def test_a_reference_point_that_the_front_does_not_dominate_is_an_error(reference):
    frame = frame_of(trial(0), trial(1, val_loss=0.2, macs=6e5))

    with pytest.raises(InputError, match="reference point: "):
        hypervolume_over_trials(frame, {"val_loss": "min", "macs": "min"}, reference=reference)


def test_a_reference_point_of_a_maximised_objective_lies_below():
    frame = frame_of(trial(0, val_top1=0.8))

    with pytest.raises(InputError, match=r"val_top1 0\.9 is not worse than trial 0 on the front \(0\.8\).*below 0\.8"):
        hypervolume_over_trials(frame, {"val_top1": "max"}, reference=(0.9,))


def test_layouts_are_counted_with_their_best_and_median():
    frame = frame_of(
        trial(0, "C-C-C-C", val_loss=0.5), trial(1, "C-C-C-C", val_loss=0.3), trial(2, "C-C-C-C", val_loss=0.4),
        trial(3, "C-T-T-T", val_loss=0.1), trial(4, "C-T-T-T", state="failed", val_loss=None),
        trial(5, "C-C-T-T", state="failed", val_loss=None),
    )  # fmt: skip

    table = layouts_table(frame, {"val_loss": "min"}).set_index("layout")

    assert table.index.tolist() == ["C-T-T-T", "C-C-C-C", "C-C-T-T"]
    assert table.loc["C-C-C-C", ["trials", "done", "failed", "on_front"]].tolist() == [3, 3, 0, 0]
    best, median = table.loc["C-C-C-C", ["best_val_loss", "median_val_loss"]]
    assert 0.3 < best < 0.32 and median == pytest.approx(0.4, abs=0.01), "the best of three is a little lucky"
    assert table.loc["C-T-T-T", ["trials", "done", "failed", "on_front"]].tolist() == [2, 1, 1, 1]
    assert math.isnan(table.loc["C-C-T-T", "best_val_loss"])


def test_clearly_different_layouts_need_no_note():
    frame = frame_of(trial(0, "C-C-C-C", val_top1=0.80), trial(1, "C-C-T-T", val_top1=0.90))

    note = separability(frame, {"error": "min"}, 5000)

    assert note is None


def test_a_difference_within_the_noise_of_the_validation_set_is_noted():
    frame = frame_of(trial(0, "C-C-C-C", val_top1=0.88), trial(1, "C-C-T-T", val_top1=0.90))

    note = separability(frame, {"error": "min"}, 180)

    assert note is not None
    assert "cannot separate the layouts" in note
    assert "180 validation images" in note
    assert "C-C-T-T is better than that of C-C-C-C with a probability of 0." in note


def test_only_the_layouts_near_the_best_are_named():
    frame = frame_of(
        trial(0, "C-C-C-C", val_top1=0.5), trial(1, "C-C-T-T", val_top1=0.90), trial(2, "C-T-T-T", val_top1=0.89)
    )

    note = separability(frame, {"error": "min"}, 500)

    assert note is not None
    assert "cannot separate C-C-T-T and C-T-T-T" in note


@pytest.mark.parametrize("num_val", [None, 180])
def test_layouts_that_share_the_top_score_are_noted(num_val):
    frame = frame_of(*(trial(number, layout, val_top1=1.0) for number, layout in enumerate(LAYOUTS)))

    note = separability(frame, {"val_loss": "min"}, num_val)

    assert note is not None
    assert "share the top accuracy of 100.0 %" in note


def test_one_layout_cannot_be_compared():
    note = separability(frame_of(trial(0), trial(1)), {"val_loss": "min"}, 180)

    assert note is not None
    assert note.startswith("Only the layout C-C-T-T")


def test_without_accuracies_there_is_no_note():
    frame = frame_of(trial(0, val_top1=None, error=None), trial(1, "C-C-C-C", val_top1=None, error=None))

    assert separability(frame, {"val_loss": "min"}, 180) is None
    assert separability(frame_of(), {"val_loss": "min"}, 180) is None


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)

    covered = {}
    for truth, num_val in itertools.product((0.5, 0.9, 0.98), (180, 5000)):
        low, high = wilson(rng.binomial(num_val, truth, 4000) / num_val, num_val)
        covered[truth, num_val] = float(((low <= truth) & (truth <= high)).mean())

    assert all(0.92 < share < 0.98 for share in covered.values()), covered


def test_equal_layouts_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    pairs = rng.binomial(180, 0.95, (4000, 2)) / 180

    apart = [abs(a - b) >= difference_margin(a, b, 180) for a, b in pairs]

    assert np.mean(apart) < 0.06
