"""Worlds whose truth is known: what is reported of the best of many networks is not its luck, and intervals cover."""

import numpy as np
import pytest
from frames import frame_of, trial

from coatnet_search.analysis.choose import choose
from coatnet_search.analysis.front import comparable, network_front
from coatnet_search.analysis.networks import networks
from coatnet_search.analysis.posterior import of_anything, of_fractions, posterior

WORLDS = 30
EQUAL = 0.100


def equal_networks(seed, count=20, num_val=450, again=0, seeds=0.010):
    """A record of networks that are equally good. Half of what 450 images do to an error of 10 % is in common, so that
    the other half is a standard deviation of .010 between runs. ``again``: more seeds of the best five."""
    rng = np.random.default_rng(seed)
    rows = [trial(n, ["C-C-C-C", "C-C-T-T"][n % 2], macs=float(10 ** rng.uniform(5, 7)), candidate={},
                  val_top1=1 - EQUAL - rng.normal(0, seeds)) for n in range(count)]  # fmt: skip
    best = sorted(rows, key=lambda row: row["error"])[:5]
    rows += [row | trial_of(row, count + place, seed, rng, seeds) for place, (row, seed) in
             enumerate((row, seed) for seed in range(1, again + 1) for row in best)]  # fmt: skip
    frame = frame_of(*rows)
    frame.attrs["num_val"] = num_val
    return frame


def trial_of(row, number, seed, rng, seeds):
    top1 = 1 - EQUAL - rng.normal(0, seeds)
    return {"number": number, "key": f"again{number}", "seed": seed, "val_top1": top1, "error": 1 - top1}


def chosen_errors(**world):
    """(worlds,) reported of the chosen network, and the best that any run showed."""
    frames = [equal_networks(seed, **world) for seed in range(WORLDS)]
    reported = [choose(frame, {"error": "min"}, {}, 1)[0].metrics["error"] for frame in frames]
    return np.array(reported), np.array([frame["error"].min() for frame in frames])


@pytest.mark.parametrize("again", [0, 2])
def test_what_is_reported_of_the_best_of_equal_networks_is_not_its_luck(again):
    reported, lucky = chosen_errors(again=again)

    assert lucky.mean() < EQUAL - 0.015, "the best run of twenty is nearly two standard deviations lucky"
    assert abs(reported.mean() - EQUAL) < 0.25 * (EQUAL - lucky.mean()), "most of it is taken off"


def test_the_interval_of_the_best_of_24_holds_the_truth():
    inside = []
    for seed in range(WORLDS):
        row = choose(equal_networks(seed, 24), {"error": "min"}, {}, 1)[0].row
        inside.append(row["error_low"] <= EQUAL <= row["error_high"])

    assert np.mean(inside) >= 0.9


def test_what_differs_by_far_more_than_noise_stays_as_it_was_seen():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.5, 30)
    runs = [np.array([value + rng.normal(0, 0.003)]) for value in truth]

    found = posterior(runs, rng.normal(size=30), np.zeros((30, 0)), of_fractions(np.full(30, 0.3), 10_000))

    assert np.abs(found.mean - truth).max() < 0.02
    assert np.mean((found.low <= truth) & (truth <= found.high)) >= 0.9


def test_more_runs_of_a_network_count_for_more():
    rng = np.random.default_rng(1)
    runs = [rng.normal(0.2, 0.01, 1) for _ in range(12)]
    runs[3], runs[4] = np.full(1, 0.15), 0.15 + np.array([-0.01, 0.01, 0.005, -0.005, 0.0])

    found = posterior(runs, np.zeros(12), np.zeros((12, 0)), of_anything(np.full(12, 0.2), 0.01))

    assert found.mean[4] < found.mean[3]
    assert found.high[4] - found.low[4] < found.high[3] - found.low[3]


def test_a_network_is_one_row_with_its_runs_counted():
    frame = equal_networks(0, again=2)

    found = networks(comparable(frame, {"error": "min", "macs": "min"}), {"error": "min", "macs": "min"})

    assert sorted(found.table["runs"]) == [1] * 15 + [3] * 5
    assert (found.table["error_low"] < found.table["error"]).all()
    assert found.table["macs"].isin(frame["macs"]).all(), "what follows from the architecture is not estimated"
    assert len(network_front(frame, {"error": "min"})) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_networks_have_values_too(count):
    frame = frame_of(*(trial(n, val_top1=0.9 - 0.1 * n) for n in range(count)))

    row = choose(frame, {"error": "min"}, {}, 1)[0].row

    assert row["number"] == 0 and 0.08 < row["error"] < 0.16 and row["error_low"] < row["error"] < row["error_high"]
