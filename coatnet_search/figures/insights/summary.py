"""What a search has taught, as plain values: the page and ``report --json`` show these numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.analysis.frame import complete, searched
from coatnet_search.analysis.importance import importance
from coatnet_search.analysis.insights import growth, marginals, noisy_front, rungs_table
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quality, quantity, show, show_difference
from coatnet_search.figures.search.summary import records
from coatnet_search.record.trial import BASELINE
from coatnet_search.strategies.halving import split
from coatnet_search.study.spending import Spent, devices, spending


@dataclass(frozen=True, kw_only=True)
class Insights:
    """``values``, ready for JSON, and the tables that are drawn, each empty where nothing can be said."""

    values: dict[str, Any]
    main: str
    importance: pd.DataFrame = field(repr=False)
    marginals: pd.DataFrame = field(repr=False)
    growth: pd.DataFrame = field(repr=False)
    noise: pd.DataFrame = field(repr=False)


def insights(frame: pd.DataFrame, study: Mapping[str, Any], run: Path | None = None) -> Insights:
    """All that is said of a search besides its front. Keys of ``values``: spending, sentences, importance, marginals,
    growth, noise, rungs. ``run``: the RUN's folder, for its plan and its size on disk."""
    objectives: dict[str, Sense] = dict(study["objectives"])
    frame = searched(complete(frame, objectives))
    main = quality(objectives)
    scaling = bool(study.get("equal_cost"))
    rows = frame.iloc[:0] if scaling else frame  # a scaling study searches nothing: its section says what it found
    tables = {
        "importance": importance(rows, objectives),
        "marginals": marginals(rows, objectives),
        "growth": growth(rows, objectives, devices(study)),
        "noise": noisy_front(rows, objectives),
    }
    rungs = rungs_table(rows, rungs_of(study))
    spent = spending(frame, study, run)
    noise = tables["noise"]
    values = {
        "spending": [dataclasses.asdict(line) | {"shown": shown(line)} for line in spent],
        "sentences": [*_epochs(frame, study, rungs), *_beside_baseline(tables["growth"]), *_noise(noise, objectives)],
        **{name: records(table) for name, table in tables.items()},
        "noise_of_one_training": noise.attrs.get("deviation"), "hypervolume": noise.attrs.get("hypervolume"),
        "rungs": records(rungs),
    }  # fmt: skip
    return Insights(values=values, main=main, **tables)


def rungs_of(study: Mapping[str, Any]) -> Sequence[int]:
    """The rungs of a study's resolved file, ascending; none where nothing is halved."""
    asked = (study.get("search") or {}).get("halving")
    epochs = (study.get("recipe") or {}).get("epochs")
    if not asked or not epochs:
        return ()
    try:
        return split(asked["first"], asked["factor"], epochs)
    except (InputError, KeyError):  # a file that was written by hand
        return ()


def shown(line: Spent) -> tuple[str, str]:
    """Planned and used as a person reads them."""
    form = (lambda value: show("macs", value)) if line.what.startswith("multiply") else _number
    pair = [f"{form(value)} {line.unit}".rstrip() if value is not None else "–" for value in (line.planned, line.used)]
    return pair[0], pair[1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.2g}"


def _epochs(frame: pd.DataFrame, study: Mapping[str, Any], rungs: pd.DataFrame) -> list[str]:
    """Epochs of a halved search beside those of training every candidate in full."""
    if rungs.empty:
        return []
    epochs, reached = rungs["epochs"], rungs["reached"]
    trials = int(reached[epochs == epochs.min()].sum())
    steps = {rung: rung - before for before, rung in zip([0, *sorted(set(epochs))], sorted(set(epochs)), strict=False)}
    spent = int(sum(steps[rung] * count for rung, count in zip(epochs, reached, strict=True)))
    full, ended = trials * int(epochs.max()), int(reached[epochs == epochs.max()].sum())
    kept = int(rungs["by_quota"].sum())
    text = (f"Halving trained {trials} candidates for {spent} epochs; all of them in full would have taken {full}. "
            f"{ended} were trained in full, {int(rungs['stopped'].sum())} were stopped")  # fmt: skip
    return [f"{text}; {kept} went on because a place was kept for their layout."]


def _beside_baseline(table: pd.DataFrame) -> list[str]:
    if not (table["origin"] == BASELINE).any():
        return []
    baseline, search = table[table["origin"] == BASELINE], table[table["origin"] == "search"]
    count = min(len(baseline), len(search))
    if not count:
        return []
    values = [float(part["hypervolume"].iloc[count - 1]) for part in (search, baseline)]
    return [f"After {count:,} trials each, the search's front fills {values[0]:.3f} of the box and the random "
            f"baseline's {values[1]:.3f} (one run of each: without further seeds the difference has no interval)."
            ]  # fmt: skip


def _noise(table: pd.DataFrame, objectives: Mapping[str, Sense]) -> list[str]:
    if table.empty:
        return []
    parts = [f"{show_difference(name, value)} of {quantity(name).title}"
             for name, value in table.attrs["deviation"].items() if value > 0]  # fmt: skip
    volume = table.attrs["hypervolume"]
    unsure = int(((table["p_front"] > 0.05) & (table["p_front"] < 0.95)).sum())
    share = f"{volume['value']:.3f} of the box (90 % interval {volume['low']:.3f} to {volume['high']:.3f})"
    source = (
        "one standard deviation"
        if table.attrs["repeated"]
        else ("one standard deviation, from the images and what is usual between seeds: no network was trained twice")
    )
    return [f"Between seeds one training varies by {' and '.join(parts) or 'nothing'} ({source}). "
            f"{unsure:,} of {len(table):,} networks are neither surely on the front nor surely off it, which fills "
            f"{share}."]  # fmt: skip
