"""Finds, among runs with a usual and a doubled schedule, the points that were trained too briefly.

One-sided: only a doubled schedule that is better says so. A point counts where the mean gain over its seeds exceeds
what noise alone exceeds once in twenty, given the standard error of that mean of differences.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.posterior import SEEDS, SHARED

COLUMNS = ["arm", "num_images", "error", "doubled_error", "standard_error"]
ONE_SIDED = 1.645  # standard errors of a normal distribution that 5 % of draws exceed


def too_short(runs: pd.DataFrame, doubled: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """``arm``, ``num_images``, ``error``, ``doubled_error`` (means over seeds), ``standard_error`` of their difference.
    ``runs`` and ``doubled``: arm, instance, num_images, seed, draw, error; ``noise``: num_images, seed_sd, binomial_sd.
    """
    at = {int(row["num_images"]): row for row in noise.to_dict("records")}
    pairs = doubled.merge(runs, on=["arm", "instance", "num_images", "seed", "draw"], suffixes=("_doubled", ""))
    rows = []
    for _, own in pairs.groupby(["arm", "num_images"], sort=False):
        arm, num_images = own["arm"].iloc[0], int(own["num_images"].iloc[0])
        error, after = float(own["error"].mean()), float(own["error_doubled"].mean())
        standard = math.sqrt(2 / len(own)) * _run_sd(at[num_images], error)
        if error - after > ONE_SIDED * standard > 0:
            rows.append({"arm": arm, "num_images": num_images, "error": error, "doubled_error": after,
                         "standard_error": standard})  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _run_sd(noise: Mapping[Any, Any], error: float) -> float:
    """Of one run: between seeds where several are known, else what is usual between seeds with the part of the images'
    noise that two runs do not have in common."""
    if math.isfinite(noise["seed_sd"]):
        return float(noise["seed_sd"])
    images = float(np.nan_to_num(noise["binomial_sd"]))
    return math.hypot(math.sqrt(1 - SHARED) * images, SEEDS * error * (1 - error))
