"""What a search has taught, as plain values: the page and ``report --json`` show these numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.analysis.frame import complete, searched
from coatnet_search.analysis.importance import importance
from coatnet_search.analysis.insights import growth, marginals, noisy_front, rungs_table
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quality, quantity, show, show_difference
from coatnet_search.figures.search.summary import records
from coatnet_search.figures.sections import Sections
from coatnet_search.record.trial import BASELINE
from coatnet_search.strategies.halving import split
from coatnet_search.study.spending import Spent, devices, spending

_COLUMNS = {
    "importance": ("dimension", "importance", "for_the_front"),
    "marginals": ("dimension", "value", "trials", "effect", "low", "high"),
    "growth": ("origin", "trials", "device_hours", "hypervolume"),
}


def empty(name: str, _reason: str = "") -> pd.DataFrame:
    """A table of ``insights`` in which nothing is said."""
    return pd.DataFrame(columns=_COLUMNS.get(name, ()))


@dataclass(frozen=True, kw_only=True)
class Insights:
    """``values``, ready for JSON, and the tables that are drawn, each empty where nothing can be said."""

    values: dict[str, Any]
    main: str
    importance: pd.DataFrame = field(repr=False)
    marginals: pd.DataFrame = field(repr=False)
    growth: pd.DataFrame = field(repr=False)
    noise: pd.DataFrame = field(repr=False)


def insights(
    frame: pd.DataFrame, study: Mapping[str, Any], run: Path | None = None, sections: Sections | None = None
) -> Insights:
    """All that is said of a search besides its front. Keys of ``values``: spending, sentences, importance, marginals,
    growth, noise, rungs. ``run``: the RUN's folder, for its plan and its size on disk."""
    objectives: dict[str, Sense] = dict(study["objectives"])
    frame = searched(complete(frame, objectives))
    main = quality(objectives)
    scaling = bool(study.get("equal_cost"))
    rows = frame.iloc[:0] if scaling else frame  # a scaling study searches nothing: its section says what it found
    parts = sections or Sections()
    asked: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
        "importance": ("which dimensions matter", lambda rows: importance(rows, objectives)),
        "marginals": ("what each choice does at equal cost", lambda rows: marginals(rows, objectives)),
        "growth": ("growth of the front", lambda rows: growth(rows, objectives, devices(study))),
        "noise": ("the front with its noise", lambda rows: noisy_front(rows, objectives)),
        "rungs": ("halving", lambda rows: rungs_table(rows, rungs_of(study))),
    }
    tables = {name: parts.make(title, partial(make, rows), partial(empty, name))
              for name, (title, make) in asked.items()}  # fmt: skip
    rungs, noise = tables.pop("rungs"), tables["noise"]
    spent = parts.make("what was planned and used", lambda: spending(frame, study, run), lambda _: [])
    values = {
        "spending": [dataclasses.asdict(line) | {"shown": shown(line)} for line in spent],
        "sentences": [*_epochs(frame, study, rungs), *_beside_baseline(tables["growth"]), *_noise(noise, objectives),
                      *not_ranked(tables["importance"])],
        **{name: records(table) for name, table in tables.items()},
        "noise_of_one_training": noise.attrs.get("deviation"), "hypervolume": noise.attrs.get("hypervolume"),
        "rungs": records(rungs),
    }  # fmt: skip
    return Insights(values=values, main=main, **tables)


def not_ranked(table: pd.DataFrame) -> list[str]:
    """A sentence for the dimensions that ``importance`` says nothing of."""
    reasons = [f"{name} ({reason})" for name, reason in table.attrs.get("left_out", {}).items()]
    return [f"Not ranked among the dimensions: {'; '.join(reasons)}."] if reasons else []


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
