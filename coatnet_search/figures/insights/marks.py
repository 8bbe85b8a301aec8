"""What the figures of a search show, before any plotting library; the visual language is that of ``marks.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import Floats, numbers
from coatnet_search.analysis.front import as_costs
from coatnet_search.analysis.insights import LAYOUT, candidates
from coatnet_search.core.quantities import Sense, quality, quantity, scale, show
from coatnet_search.figures.search import marks

MOST_DIMENSIONS = 8  # in one figure; the most important are drawn
MOST_LINES = 2000  # of the best trials; more of them are one grey area
PARALLEL = f"Candidates in parallel coordinates (at most {MOST_LINES:,}, the best)"
ORIGINS = {"search": marks.COLOURS[0], "baseline": marks.COLOURS[1]}
NAMES = {"search": "search", "baseline": "random baseline"}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the parallel coordinates: where each trial lies on it, from 0 to 1, and the labels of its places."""

    title: str
    places: Floats
    ticks: Sequence[tuple[float, str]]


def leading(importance: pd.DataFrame) -> list[str]:
    """The dimensions that are drawn, the most important first."""
    return [str(name) for name in importance["dimension"][:MOST_DIMENSIONS]]


def parallel(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], dimensions: Sequence[str]
) -> tuple[list[Axis], pd.DataFrame]:
    """The axes (layout, those of ``dimensions`` that vary, objectives) and the ``best`` trials on them, with their
    ``layout``; none without trials."""
    found = candidates(frame, objectives)
    rows, varied = best(found, objectives), found.attrs["dimensions"]
    names = [name for name in varied if name == LAYOUT] + [name for name in dimensions if name in varied]
    if len(rows) < 2 or not names:
        return [], rows
    return [*(_named(rows, name) for name in names), *(_measured(rows, name) for name in objectives)], rows


def best(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """At most ``MOST_LINES`` rows, those with the best quality, the best first."""
    losses = as_costs(rows, objectives)[:, list(objectives).index(quality(objectives))]
    return rows.iloc[np.argsort(losses, kind="stable")[:MOST_LINES]]


def _named(rows: pd.DataFrame, name: str) -> Axis:
    values = sorted(set(rows[name].tolist()), key=lambda value: (isinstance(value, str), value))
    at = {value: place / max(1, len(values) - 1) for place, value in enumerate(values)}
    places = np.array([at[value] for value in rows[name]])
    return Axis(title=name.replace("_", " "), places=places, ticks=[(place, str(value)) for value, place in at.items()])


def _measured(rows: pd.DataFrame, name: str) -> Axis:
    values = numbers(rows, name)
    at = np.log(values) if marks.logarithmic(rows[name], name) else values
    low, span = float(at.min()), float(np.ptp(at)) or 1.0
    ends = [(0.0, values[at.argmin()]), (1.0, values[at.argmax()])]
    ticks = [(place, show(name, value, unit=False)) for place, value in ends]
    return Axis(title=quantity(name).title, places=(at - low) / span, ticks=ticks)


def effects(marginals: pd.DataFrame, importance: pd.DataFrame, main: str) -> pd.DataFrame:
    """The marginals that are drawn, as drawn (percent, not fractions), each with its ``label``."""
    shown = [LAYOUT, *leading(importance)]
    rows = marginals[marginals["dimension"].isin(shown)].copy()
    order = {name: place for place, name in enumerate(shown)}
    rows = rows.sort_values("dimension", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    rows["label"] = [
        f"{name.replace('_', ' ')} {value}" for name, value in zip(rows["dimension"], rows["value"], strict=True)
    ]
    for name in ("effect", "low", "high"):
        rows[name] = rows[name].astype(float) * scale(main)
    return rows
