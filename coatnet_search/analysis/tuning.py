"""What a scaling study's networks are trained with, tuned per layout and regime by a small sweep that is part of it.

The sweep is a star: one training with the study's recipe, and one for each other value of each key alone, on the first
network of the layout and with a seed that no other run has. The values with the least validation error, key by key, go
into all runs of that layout and regime. They follow from the record, so that a resumed study finds the same ones.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coatnet_search.analysis.tune_spec import TuneSpec
from coatnet_search.record.trial import TERMINAL, TUNE, Trial

TUNED = "tuned"  # attribute of a run that the sweep was for: the values that it was given
SWEEP_COLUMNS = ("arm", "num_images", "key", "value", "error", "own", "own_error", "tried", "on_edge")
Values = Mapping[str, float]


def sweep(spec: TuneSpec, recipe: Values) -> list[dict[str, float]]:
    """What the trials of a sweep replace in the recipe: nothing, then one value of one key each."""
    return [{}, *({key: value} for key, values in spec.values().items() for value in values if value != recipe[key])]


def best_values(trials: Iterable[Trial], layout: str, num_images: int | None, spec: TuneSpec,
                recipe: Values) -> dict[str, float] | None:  # fmt: skip
    """The value of each swept key for a layout and regime; None until its trials have ended. One that failed counts
    for nothing, and the recipe's own value stays where no other has a smaller error."""
    mine = [trial for trial in trials if TUNE in trial.attributes and trial.attributes.get("layout") == layout
            and trial.budget is not None and trial.budget.num_images == num_images]  # fmt: skip
    if len(mine) < len(sweep(spec, recipe)) or any(trial.state not in TERMINAL for trial in mine):
        return None
    tried = [(trial.attributes[TUNE], trial.metrics.get("error")) for trial in mine if trial.state == "done"]
    errors = [(values, error) for values, error in tried if error is not None]
    return {key: _least(errors, key, recipe[key]) for key in spec.values()}


def _least(tried: Sequence[tuple[Values, float]], key: str, own: float) -> float:
    errors = {own: math.inf}  # the first of equal errors is taken: the recipe's own
    errors.update((values.get(key, own), error) for values, error in tried if set(values) <= {key})
    return min(errors, key=errors.__getitem__)


def sweeps(rows: Iterable[Mapping[str, Any]], spec: Mapping[str, Any], recipe: Values) -> Iterator[dict[str, Any]]:
    """What the sweeps of a record found, a row a layout, regime and key: ``arm``, ``num_images``, ``key``, ``value``,
    ``error`` with it, ``own`` (the recipe's value), ``own_error``, ``tried`` (ascending), and ``on_edge``: the best
    value is an end of the range, so that a better one may lie beyond it (0 has nothing beyond).

    ``rows`` are the done trials of the sweeps, with arm, num_images, error and tune (what was replaced)."""
    cells: dict[tuple[str, int], list[tuple[Values, float]]] = {}
    for row in rows:
        cells.setdefault((str(row["arm"]), int(row["num_images"])), []).append((row[TUNE], float(row["error"])))
    keys = [key for key, values in spec.items() if values]
    for (arm, num_images), tried in cells.items():
        for key in keys:
            own = recipe[key]
            errors = {values.get(key, own): error for values, error in tried if set(values) <= {key}}
            best = _least(tried, key, own)
            ends = (min(errors, default=own), max(errors, default=own))
            yield {"arm": arm, "num_images": num_images, "key": key, "value": best, "error": errors.get(best, math.nan),
                   "own": own, "own_error": errors.get(own, math.nan), "tried": sorted(errors),
                   "on_edge": best in ends and best != 0 and ends[0] < ends[1]}  # fmt: skip
