"""Two studies' fronts beside each other, as plain values: at each cost, whose best network is better, and by how much.

At a cost ``x`` each study has its best comparable network that costs at most ``x``, by posterior mean: what its runs,
its cost and its choices say of it (``analysis/networks.py``), so that the luck of the best of many is taken off both.
The difference has the 95 % interval of the posteriors' draws, on the same images: seeds and the images' noise that
networks do not share are in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import Floats, numbers
from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.front_noise import noise_is_known
from coatnet_search.analysis.networks import NUM_VAL, networks
from coatnet_search.analysis.posterior import LEVEL
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quantity, sense_of

COLUMNS = ("x", "first", "first_trial", "second", "second_trial", "difference", "low", "high")


@dataclass(frozen=True)
class _Steps:
    """The steps of a front, (k,) each: cost, posterior mean, number of the best trial, and the draws (draws, k) of what
    the network is worth; ``known``: whether anything but a prior says how noisy a run is."""

    x: Floats
    y: Floats
    trial: Floats
    draws: Floats
    known: bool


def front_difference(
    first: pd.DataFrame, second: pd.DataFrame, objectives: Mapping[str, Sense], x: str, y: str, num_val: int | None
) -> pd.DataFrame:
    """A row a step of either front, in order of ``x``: what the best network of each study at that cost has of ``y``,
    the number of its best trial, ``difference`` (second minus first) with ``low`` and ``high`` (NaN where nothing says
    how noisy a run is). ``num_val``: validation images, which both share.

    Raises InputError where a study has no comparable trial with both, or no cost is kept by networks of both.
    """
    if sense_of(x, objectives) == "max":
        raise InputError(f"{quantity(x).title} is no cost: fronts are compared at equal cost")
    sense = sense_of(y, objectives)
    fronts = [_steps(frame, x, y, sense, num_val) for frame in (first, second)]
    for name, front in zip(("first", "second"), fronts, strict=True):
        if not len(front.x):
            raise InputError(f"the {name} study has no finished trial with {quantity(y).title} and {quantity(x).title}")
    start = max(float(front.x[0]) for front in fronts)
    costs = np.unique(np.concatenate([[start], *(front.x for front in fronts)]))
    costs = costs[costs >= start]
    a, b = (np.searchsorted(front.x, costs, side="right") - 1 for front in fronts)
    one, two = fronts
    apart = np.random.default_rng(0).permutation(len(two.draws))  # draws of both come from the same random numbers
    gaps = two.draws[apart][:, b] - one.draws[:, a]
    low, high = np.quantile(gaps, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    unknown = np.nan if not (one.known and two.known) else 0.0
    columns = (costs, one.y[a], one.trial[a], two.y[b], two.trial[b], two.y[b] - one.y[a], low + unknown,
               high + unknown)  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def _steps(frame: pd.DataFrame, x: str, y: str, sense: Sense, num_val: int | None) -> _Steps:
    """Each network that is better than all that cost less."""
    asked: dict[str, Sense] = {y: sense, x: "min"}
    rows = comparable(frame, asked)
    if rows.empty:
        none = np.zeros(0)
        return _Steps(none, none, none, np.zeros((0, 0)), False)
    rows.attrs[NUM_VAL] = num_val
    found = networks(rows, asked)
    sign = 1.0 if sense == "min" else -1.0
    cost, value = numbers(found.table, x), numbers(found.table, y)
    order = np.lexsort((sign * value, cost))
    best = np.minimum.accumulate(sign * value[order])
    steps = order[np.r_[True, best[1:] < best[:-1]]]
    trial = found.table["number"].to_numpy()[steps]
    return _Steps(cost[steps], value[steps], trial, sign * found.draws[y][:, steps], noise_is_known(found, num_val))


def conclusion(table: pd.DataFrame, names: tuple[str, str], x: str, y: str, sense: Sense) -> str:
    """The comparison in a sentence: from which costs on which study is better beyond the interval, if from any."""
    better = table["high"] < 0 if sense == "min" else table["low"] > 0
    worse = table["low"] > 0 if sense == "min" else table["high"] < 0
    title = f"{quantity(y).title} at equal {quantity(x).title}"
    if table["low"].isna().all():
        return f"No interval is known for {title}, so how much of the difference is noise cannot be told."
    if not better.any() and not worse.any():
        return f"{title}: nowhere do {names[0]} and {names[1]} differ by more than chance."
    parts = [f"{name} is better at {int(where.sum())} of {len(where)} steps" for name, where in
             ((names[1], better), (names[0], worse)) if where.any()]  # fmt: skip
    return f"{title}: {' and '.join(parts)}, by more than chance."
