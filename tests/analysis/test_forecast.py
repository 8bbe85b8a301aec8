"""Forecasts that are registered before their runs exist, and what predictions of held-out runs were worth."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coatnet_search.analysis.decisions import decision_figures, pair_table, seeds_apart
from coatnet_search.analysis.forecast import forecast, read_forecast, score, write_forecast
from coatnet_search.analysis.scaling import Scaling, fit_scaling
from coatnet_search.analysis.scaling_runs import scaling_runs
from coatnet_search.core.errors import InputError
from coatnet_search.curves.next_run import Run, settled
from tests.analysis.test_scaling import CROSSING, SIZES, world

THREE = {**CROSSING, "C-C-T-T": lambda n: 0.2 + 3 * n**-0.4}


@pytest.fixture(scope="module")
def scaling() -> Scaling:
    return fit_scaling(world(THREE), num_val=5000)


@pytest.fixture(scope="module")
def held_out() -> Scaling:
    return fit_scaling(world(THREE), up_to=2000, num_val=5000)


def later(sizes: list[int]) -> pd.DataFrame:
    """The same study with runs on larger amounts too."""
    return world(THREE, sizes=sizes, seeds=2)


def test_a_forecast_is_scored_by_the_runs_that_came_after_it(scaling: Scaling, tmp_path: Path) -> None:
    path = tmp_path / "forecast.json"
    write_forecast(path, forecast(scaling, [16_000.0, 32_000.0], {"name": "made up"}))

    table = score(read_forecast(path), scaling_runs(later([*SIZES[1:], 16_000])))

    assert table["num_images"].tolist() == [16_000] and table["arms"].tolist() == [3] and table["pairs"].tolist() == [3]
    assert table["inside"][0] >= 2 / 3 and table["rmse_log"][0] < 0.1 and table["decision_accuracy"][0] == 1
    assert bool(table["best_right"][0]) and table["p_of_best"][0] > 0.5 and table["brier"][0] < 0.25


def test_a_forecast_that_was_wrong_scores_badly(scaling: Scaling) -> None:
    made = forecast(scaling, [16_000.0], {})
    runs = scaling_runs(later([*SIZES[1:], 16_000]))
    runs["error"] = np.where(runs["arm"] == "C-C-T-T", 0.01, runs["error"])

    table = score(made, runs)

    assert table["inside"][0] <= 2 / 3 and table["decision_accuracy"][0] < 1 and not table["best_right"][0]


def test_a_forecast_that_was_changed_is_refused_and_none_is_overwritten(scaling: Scaling, tmp_path: Path) -> None:
    path = tmp_path / "forecast.json"
    write_forecast(path, forecast(scaling, [16_000.0], {}))
    with pytest.raises(InputError, match="a forecast is never changed"):
        write_forecast(path, forecast(scaling, [32_000.0], {}))

    path.write_text(path.read_text().replace('"num_val": 5000', '"num_val": 50'))

    with pytest.raises(InputError, match="it was changed after it was registered"):
        read_forecast(path)
    path.write_text(json.dumps({"targets": []}))
    with pytest.raises(InputError, match="expected a forecast"):
        read_forecast(path)


def test_only_what_has_no_runs_yet_is_registered_and_scored_when_it_has(scaling: Scaling, held_out: Scaling) -> None:
    for each in (scaling, held_out):
        with pytest.raises(InputError, match="the record has runs on 8,000 images, and 4,000 was asked for"):
            forecast(each, [4000.0], {})

    with pytest.raises(InputError, match="no run of the forecast's arms on 16,000 images is done"):
        score(forecast(scaling, [16_000.0], {}), scaling_runs(world(THREE)))


def test_held_out_regimes_tell_decision_accuracy_share_of_compute_and_seeds(held_out: Scaling) -> None:
    figures, pairs = decision_figures(held_out).set_index("num_images"), pair_table(held_out)

    assert figures["pairs"].tolist() == [3, 3] and len(pairs) == 6
    assert figures.loc[4000, "compute_share"] == pytest.approx((500 + 1000 + 2000) / 4000)
    assert figures.loc[8000, "decision_accuracy"] == pairs[pairs["num_images"] == 8000]["right"].mean()
    assert (pairs["brier"] <= 1).all() and (pairs["seeds"] >= 1).all()


def test_closer_errors_need_more_seeds_and_equal_ones_cannot_be_told_apart(scaling: Scaling) -> None:
    far, near, equal = (seeds_apart(scaling, 0.2, other) for other in (0.1, 0.199, 0.2))

    assert far == 1 and near > 20 and equal == math.inf


def test_scaling_and_settle_say_the_same_of_the_same_runs(scaling: Scaling) -> None:
    rows = scaling.runs.to_dict("records")
    runs = [Run(layout=row["layout"], num_images=int(row["num_images"]), instance=row["instance"],
                seed=int(row["seed"]) * 1000, error=row["error"]) for row in rows]  # fmt: skip

    answer = settled(runs, [], 32_000, images=5000)
    table = scaling.at(32_000).set_index("arm")

    assert {arm: chance for (arm, _), chance in answer.probability_best.items()} == table["p_best"].to_dict()


def test_single_runs_and_errors_of_none_are_told() -> None:
    single, zero = world(CROSSING, seeds=1), world(CROSSING)
    zero.loc[zero["num_images"] == 8000, "error"] = 0.0

    told, left_out, kept = fit_scaling(single), fit_scaling(zero), fit_scaling(zero, num_val=5000)

    assert any("every point is a single run" in text for text in told.warnings)
    assert any("an error of 0 is left out" in text for text in left_out.warnings) and left_out.num_images[-1] == 4000
    assert kept.num_images[-1] == 8000 and not any("left out" in text for text in kept.warnings)
