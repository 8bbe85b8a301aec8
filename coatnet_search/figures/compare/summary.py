"""Two studies' fronts beside each other, as plain values: at each cost, whose best network is better, and by how much.

At a cost ``x`` each study has its best comparable network that costs at most ``x``. The difference of the two has the
95 % interval that follows from the number of validation images alone (independent binomials, ``difference_margin``),
where accuracies are known; the noise between seeds, and that each is the best of many, come on top.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import accuracies, numbers
from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.intervals import difference_margin
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quantity, sense_of

COLUMNS = ("x", "first", "first_trial", "second", "second_trial", "difference", "low", "high")


def front_difference(
    first: pd.DataFrame, second: pd.DataFrame, objectives: Mapping[str, Sense], x: str, y: str, num_val: int | None
) -> pd.DataFrame:
    """A row a step of either front, in order of ``x``: what the best network of each study at that cost has of ``y``,
    their trials, ``difference`` (second minus first) with ``low`` and ``high`` (NaN where no interval is known).

    Raises InputError where a study has no comparable trial with both, or no cost is kept by networks of both.
    """
    if sense_of(x, objectives) == "max":
        raise InputError(f"{quantity(x).title} is no cost: fronts are compared at equal cost")
    sense = sense_of(y, objectives)
    curves = [_best_so_far(frame, x, y, sense) for frame in (first, second)]
    for name, curve in zip(("first", "second"), curves, strict=True):
        if curve.empty:
            raise InputError(f"the {name} study has no finished trial with {quantity(y).title} and {quantity(x).title}")
    start = max(float(curve["x"].iloc[0]) for curve in curves)
    steps = np.unique(np.concatenate([[start], *(curve["x"].to_numpy() for curve in curves)]))
    rows = [_row(_at(curves[0], at), _at(curves[1], at), at, y, num_val) for at in steps if at >= start]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _best_so_far(frame: pd.DataFrame, x: str, y: str, sense: Sense) -> pd.DataFrame:
    """The steps of a front: x, y, accuracy, number of each network that is better than all that cost less."""
    rows = comparable(frame, {y: sense, x: "min"})
    table = pd.DataFrame({"x": numbers(rows, x), "y": numbers(rows, y), "accuracy": accuracies(rows),
                          "number": rows["number"].to_numpy()})  # fmt: skip
    table = table.sort_values(["x", "y"], ascending=[True, sense == "min"], kind="stable")
    best = table["y"].cummin() if sense == "min" else table["y"].cummax()
    return table[(best != best.shift()).to_numpy()].reset_index(drop=True)


def _at(curve: pd.DataFrame, x: float) -> Any:
    return curve.iloc[int(np.searchsorted(curve["x"].to_numpy(), x, side="right")) - 1]


def _row(first: Any, second: Any, x: float, y: str, num_val: int | None) -> tuple[Any, ...]:
    difference = float(second["y"] - first["y"])
    known = y in ("error", "val_top1") and num_val
    margin = difference_margin(first["accuracy"], second["accuracy"], int(num_val)) if known and num_val else np.nan
    return (x, float(first["y"]), int(first["number"]), float(second["y"]), int(second["number"]), difference,
            difference - margin, difference + margin)  # fmt: skip


def conclusion(table: pd.DataFrame, names: tuple[str, str], x: str, y: str, sense: Sense) -> str:
    """The comparison in a sentence: from which costs on which study is better beyond the interval, if from any."""
    better = table["high"] < 0 if sense == "min" else table["low"] > 0
    worse = table["low"] > 0 if sense == "min" else table["high"] < 0
    title = f"{quantity(y).title} at equal {quantity(x).title}"
    if table["low"].isna().all():
        return f"No interval is known for {title}, so how much of the difference is noise cannot be told."
    if not better.any() and not worse.any():
        return f"{title}: nowhere do {names[0]} and {names[1]} differ by more than the validation images can show."
    parts = [f"{name} is better at {int(where.sum())} of {len(where)} steps" for name, where in
             ((names[1], better), (names[0], worse)) if where.any()]  # fmt: skip
    return f"{title}: {' and '.join(parts)}, by more than the validation images leave to chance."
