"""What a scaling study's networks are trained with, tuned per layout and regime by a small sweep that is part of it.

The sweep is a star: one training with the study's recipe, and one for each other value of each key alone, on the first
network of the layout and with a seed that no other run has. The values with the least validation error, key by key, go
into all runs of that layout and regime. A single run is noisy, and the best value changes slowly with the amount of
data, so what a value gains over the recipe's is averaged over a layout's regimes, near ones counting more. Values
follow from the record, so that a resumed study finds the same ones.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coatnet_search.analysis.tune_spec import TuneSpec
from coatnet_search.record.trial import TERMINAL, TUNE, Trial

TUNED = "tuned"  # attribute of a run that the sweep was for: the values that it was given
SWEEP_COLUMNS = ("arm", "num_images", "key", "value", "error", "own", "own_error", "tried", "on_edge")
DOUBLINGS = 2.0  # of the data, over which a value's gain is taken to change little: an assumption, fitted to nothing
TINY = 1e-6  # error, below which logarithms are of nothing
Values = Mapping[str, float]
Cell = Sequence[tuple[Values, float]]  # what was replaced in the recipe, and the error with it


def sweep(spec: TuneSpec, recipe: Values) -> list[dict[str, float]]:
    """What the trials of a sweep replace in the recipe: nothing, then one value of one key each."""
    return [{}, *({key: value} for key, values in spec.values().items() for value in values if value != recipe[key])]


def best_values(trials: Iterable[Trial], layout: str, num_images: int | None, spec: TuneSpec, recipe: Values,
                regimes: Iterable[int | None] = ()) -> dict[str, float] | None:  # fmt: skip
    """The value of each swept key for a layout and regime; None until the trials of all the layout's ``regimes`` have
    ended. One that failed counts for nothing, and the recipe's own value stays where no other has a smaller error."""
    mine: dict[int | None, list[Trial]] = {one: [] for one in (num_images, *regimes)}
    for trial in trials:
        if TUNE in trial.attributes and trial.attributes.get("layout") == layout and trial.budget is not None:
            mine.setdefault(trial.budget.num_images, []).append(trial)
    count = len(sweep(spec, recipe))
    if any(len(own) < count or any(trial.state not in TERMINAL for trial in own) for own in mine.values()):
        return None
    cells = {images: [(trial.attributes[TUNE], error) for trial in own
                      if trial.state == "done" and (error := trial.metrics.get("error")) is not None]
             for images, own in mine.items()}  # fmt: skip
    return {key: _least(cells, num_images, key, recipe[key]) for key in spec.values()}


def _least(cells: Mapping[int | None, Cell], at: int | None, key: str, own: float) -> float:
    """The value with the least error at an amount of data: in logarithms against the recipe's own value, averaged over
    the amounts where both are known. Where the own value is known nowhere, by this amount's errors alone."""
    errors = {images: _errors(tried, key, own) for images, tried in cells.items()}
    tried = {value for found in errors.values() for value in found if value != own}
    gains = {own: 0.0}  # the first of equal ones is taken: the recipe's own
    for value in sorted(tried):
        known = [(_near(images, at), math.log(max(found[value], TINY) / max(found[own], TINY)))
                 for images, found in errors.items() if value in found and own in found]  # fmt: skip
        if known:
            gains[value] = sum(weight * gain for weight, gain in known) / sum(weight for weight, _ in known)
    if len(gains) == 1 and errors[at]:
        return min(errors[at], key=errors[at].__getitem__)
    return min(gains, key=gains.__getitem__)


def _errors(tried: Cell, key: str, own: float) -> dict[float, float]:
    return {values.get(key, own): error for values, error in tried if set(values) <= {key}}


def _near(images: int | None, at: int | None) -> float:
    """How much an amount of data says of another: a normal curve in doublings. None is all of the data, as far as any
    other; both the same is 1."""
    if images == at or not images or not at:
        return 1.0 if images == at else math.exp(-0.5)
    return math.exp(-0.5 * (math.log2(images / at) / DOUBLINGS) ** 2)


def sweeps(rows: Iterable[Mapping[str, Any]], spec: Mapping[str, Any], recipe: Values) -> Iterator[dict[str, Any]]:
    """What the sweeps of a record found, a row a layout, regime and key: ``arm``, ``num_images``, ``key``, ``value``,
    ``error`` with it, ``own`` (the recipe's value), ``own_error``, ``tried`` (ascending), and ``on_edge``: the best
    value is an end of the range, so that a better one may lie beyond it (0 has nothing beyond).

    ``rows`` are the done trials of the sweeps, with arm, num_images, error and tune (what was replaced)."""
    arms: dict[str, dict[int | None, list[tuple[Values, float]]]] = {}
    for row in rows:
        cell = arms.setdefault(str(row["arm"]), {}).setdefault(int(row["num_images"]), [])
        cell.append((row[TUNE], float(row["error"])))
    keys = [key for key, values in spec.items() if values]
    for arm, num_images, key in ((arm, count, key) for arm, cells in arms.items() for count in cells for key in keys):
        own = recipe[key]
        errors = _errors(arms[arm][num_images], key, own)
        best = _least(arms[arm], num_images, key, own)
        ends = (min(errors, default=own), max(errors, default=own))
        yield {"arm": arm, "num_images": num_images, "key": key, "value": best, "error": errors.get(best, math.nan),
               "own": own, "own_error": errors.get(own, math.nan), "tried": sorted(errors),
               "on_edge": best in ends and best != 0 and ends[0] < ends[1]}  # fmt: skip
