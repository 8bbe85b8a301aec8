"""What a budget of training compute buys in a scaling study: which arm, on how many images.

Training an arm costs 3 x multiply-adds x images x epochs (forward once, backward twice), with the epochs of the largest
regime. A budget therefore gives each arm its own number of images, at most those that there are.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import TRAINING
from coatnet_search.curves import compare


def best_for_compute(scaling: Scaling, compute: float, *, most_images: float | None = None, level: float = 0.9,
                     beyond: bool = False) -> pd.DataFrame:  # fmt: skip
    """A row an arm, best first, for a budget of multiply-adds of training: ``arm``, ``num_images`` it trains on,
    ``error`` (median) with ``low`` and ``high``, ``p_best``, ``expected_regret``, ``macs``. ``most_images``: the data
    that there is (None: as many as are wanted, up to the calibrated distance).

    Arms that could not train on as many images as the smallest regime has are left out. Raises InputError where none is
    left (the cheapest is named), and beyond the calibrated distance.
    """
    images = _images(scaling, compute, most_images or scaling.reach)
    least = scaling.num_images[0]
    names = [arm for arm in scaling.arms if images[arm] >= least]
    if not names:
        nearest = max(scaling.arms, key=images.__getitem__)
        raise InputError(f"{compute:.3g} multiply-adds train no arm on {least:,} images, the smallest regime; the "
                         f"nearest is {nearest} on {images[nearest]:,.0f}")  # fmt: skip
    drawn = scaling.samples([images[arm] for arm in names], beyond=beyond)  # (draws, arms, a size for each of names)
    own = [drawn[:, scaling.arms.index(arm), place] for place, arm in enumerate(names)]
    samples = np.stack(own, axis=1)[:, :, None]
    low, middle, high = np.quantile(samples[:, :, 0], [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    macs = scaling.runs.groupby("arm")["macs"].mean()
    table = pd.DataFrame({
        "arm": names, "num_images": [images[arm] for arm in names], "error": middle, "low": low, "high": high,
        "p_best": compare.probability_best(samples)[:, 0], "expected_regret": compare.expected_regret(samples)[:, 0],
        "macs": macs.loc[names].to_numpy(),
    })  # fmt: skip
    return table.sort_values("expected_regret", kind="stable", ignore_index=True)


def compute_frontier(scaling: Scaling, budgets: Sequence[float], *, most_images: float | None = None) -> pd.DataFrame:
    """The compute-optimal frontier: for each budget (multiply-adds of training) the best arm's row of
    ``best_for_compute`` with ``compute`` in front. Budgets that train no arm on the smallest regime are left out."""
    rows = []
    for budget in budgets:
        try:
            best = best_for_compute(scaling, budget, most_images=most_images).iloc[0]
        except InputError:
            continue
        rows.append({"compute": budget, **best.to_dict()})
    return pd.DataFrame(rows)


def budgets(scaling: Scaling, count: int = 9) -> list[float]:
    """Budgets from what trains the cheapest arm on the smallest regime to what trains the dearest on the largest."""
    epochs, macs = _epochs(scaling), scaling.runs.groupby("arm")["macs"].mean()
    costs = [TRAINING * float(macs[arm]) * epochs[arm] for arm in scaling.arms]
    ends = min(costs) * scaling.num_images[0], max(costs) * scaling.num_images[-1]
    return [float(one) for one in np.geomspace(*ends, count)]


def _epochs(scaling: Scaling) -> dict[str, float]:
    """Epochs on the largest regime that an arm was trained on."""
    ordered = scaling.runs.sort_values("num_images")
    return {str(arm): float(group["epochs"].iloc[-1]) for arm, group in ordered.groupby("arm")}


def _images(scaling: Scaling, compute: float, most: float) -> dict[str, float]:
    """How many images each arm is trained on within the budget."""
    if not (math.isfinite(compute) and compute > 0):
        raise InputError(f"compute: expected multiply-adds, a number above 0, got {compute!r}")
    epochs, macs = _epochs(scaling), scaling.runs.groupby("arm")["macs"].mean()
    return {arm: min(most, compute / (TRAINING * float(macs[arm]) * epochs[arm])) for arm in scaling.arms}
