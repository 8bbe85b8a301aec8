"""Points that were trained too briefly: told where doubling helps beyond noise, and only then."""

import numpy as np
import pandas as pd
import pytest

from coatnet_search.analysis.too_short import too_short


def told(gain: float, seeds: int = 2, worlds: int = 400, noise: float = 0.01) -> float:
    """The share of worlds with a table in which the single arm is said to be trained too briefly."""
    rng, count = np.random.default_rng(0), 0
    for _ in range(worlds):
        base = pd.DataFrame({"arm": "a", "instance": 1, "num_images": 500, "seed": range(seeds), "draw": 0})
        runs = base.assign(error=0.3 + rng.normal(0, noise, seeds))
        twice = base.assign(error=0.3 - gain + rng.normal(0, noise, seeds))
        floor = pd.DataFrame([{"num_images": 500, "seed_sd": noise, "binomial_sd": 0.005}])
        count += len(too_short(runs, twice, floor))
    return count / worlds


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_without_a_gain_it_is_said_once_in_twenty(seeds: int) -> None:
    assert told(0.0, seeds) < 0.08


def test_a_gain_is_seen_and_a_loss_is_none() -> None:
    assert told(0.04) > 0.9 and told(-0.04) == 0.0


def test_a_single_seed_counts_by_the_images_and_what_is_usual_between_seeds() -> None:
    one = pd.DataFrame([{"arm": "a", "instance": 1, "num_images": 500, "seed": 0, "draw": 0, "error": 0.3}])
    floor = pd.DataFrame([{"num_images": 500, "seed_sd": np.nan, "binomial_sd": 0.01}])

    assert too_short(one, one.assign(error=0.285), floor).empty
    assert too_short(one, one.assign(error=0.25), floor)["standard_error"].item() == pytest.approx(0.0116, abs=3e-4)
