"""The numbers that the figures of a scaling study show, in percent where they are errors; no plotting library here.

Colour is the layout, a dash its size in the ladder, a star a network of timm; open is a point that was held out of the
fit. All that is predicted comes from the samples of ``Scaling``, so that figures and answers agree.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.curves import compare
from coatnet_search.figures.search import marks

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
LEVEL = 0.9  # of every band and bar of a prediction
MOST_PAIRS = 12  # beyond so many crossovers a figure cannot be read
MOST = 100.0  # percent: no error is larger, whatever a band says
NOT_RUN = "not run"  # the state of a run that the others' plan has and the record has not


@dataclass(frozen=True, kw_only=True)
class ArmLook(marks.Look):
    """How an arm is drawn: its layout's colour and shape, and the dash of its size."""

    dash: str


def looks(scaling: Scaling) -> dict[str, ArmLook]:
    """A look for each arm, those without a finished run too; layouts look as in the study's other figures."""
    known = finished(scaling)[["arm", "layout", "size"]]
    lost = sorted(set(scaling.missing["arm"]) - set(known["arm"]))
    known = pd.concat([known, pd.DataFrame({"arm": lost, "layout": [_layout(arm) for arm in lost], "size": 1.0})])
    known = known.drop_duplicates("arm").reset_index(drop=True)
    of_layout = marks.looks(known.assign(number=range(len(known))))
    rank = known.groupby("layout")["size"].rank(method="first").astype(int) - 1
    out = {}
    for arm, layout, place in zip(known["arm"], known["layout"], rank, strict=True):
        look = of_layout[str(layout)]
        out[str(arm)] = ArmLook(colour=look.colour, shape=look.shape, dash=DASHES[place % len(DASHES)])
    return {arm: out[arm] for arm in [*scaling.arms, *sorted(set(out) - set(scaling.arms))]}


def _layout(arm: str) -> str:
    """The layout in an arm's name, ``C-C-T-T x2``: of an arm without any run nothing else is known."""
    head, _, size = arm.rpartition(" x")
    return head if head and size.replace(".", "", 1).isdigit() else arm


def percent(error: pd.Series, least: float) -> pd.Series:
    """Errors as drawn on a logarithmic axis: percent; no error at all at half of the smallest one that was seen."""
    return 100 * error.where(error > 0, least / 2)


def finished(scaling: Scaling) -> pd.DataFrame:
    """The runs of the fit and those that were ``held_out`` of it, as ``Scaling`` has them."""
    parts = [scaling.runs.assign(held_out=False), scaling.held_out.assign(held_out=True)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def runs(scaling: Scaling) -> pd.DataFrame:
    """As ``finished``, with ``error`` in percent as drawn, and which run it is in ``words``."""
    table = finished(scaling)
    table["words"] = [_which(row) for row in table.to_dict("records")]
    positive = table["error"][table["error"] > 0]
    table["error"] = percent(table["error"], float(positive.min()) if len(positive) else 1e-3)
    return table


def _which(row: Mapping[Any, Any]) -> str:
    """``trial 7, seed 1, draw 0, instance 2``, as far as it is known."""
    parts = {"trial": row["number"], **{name: row[name] for name in ("seed", "draw", "instance")}}
    return ", ".join(f"{name} {value:g}" for name, value in parts.items() if pd.notna(value))


def cells(scaling: Scaling) -> pd.DataFrame:
    """A row an arm and amount of data: ``error`` (percent, mean in the log as in the fit), ``runs``, ``held_out``."""
    table = runs(scaling)
    table["log"] = np.log(table["error"])
    grouped = table.groupby(["arm", "num_images", "held_out"], sort=False)["log"].agg(["mean", "count"]).reset_index()
    grouped["error"] = np.exp(grouped["mean"])
    return grouped.rename(columns={"count": "runs"})[["arm", "num_images", "error", "runs", "held_out"]]


def bands(scaling: Scaling) -> pd.DataFrame:
    """A row an arm and amount of data on the grid: ``low``, ``middle``, ``high`` of the predicted error in percent."""
    sizes = scaling.grid()
    ends = [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]
    low, middle, high = np.minimum(100 * np.quantile(scaling.samples(sizes), ends, axis=0), MOST)
    parts = [pd.DataFrame({"arm": arm, "num_images": sizes, "low": low[place], "middle": middle[place],
                           "high": high[place]}) for place, arm in enumerate(scaling.arms)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def lost(scaling: Scaling) -> pd.DataFrame:
    """What is not in the fit: a row an arm, amount of data and state: ``runs`` (how many), ``place`` (a number from 0
    for each arm, so that marks at one amount stand above each other), and all that in ``words``. Runs that other arms
    have and one lacks, with no trace in the record, are ``not run``."""
    known = scaling.missing.assign(state=scaling.missing["state"].replace("done", "done without a result"))
    known = known.groupby(["arm", "num_images", "state"]).size().rename("runs").reset_index()
    done = finished(scaling)[["arm", "num_images"]]
    have = set(zip(*done.to_numpy(dtype=object).T, strict=True)) | set(
        zip(known["arm"], known["num_images"], strict=True)
    )
    arms, counts = list(looks(scaling)), sorted({*done["num_images"], *known["num_images"]})
    holes = [(arm, count) for arm, count in itertools.product(arms, counts) if (arm, count) not in have]
    never = pd.DataFrame(holes, columns=["arm", "num_images"]).assign(state=NOT_RUN, runs=0)
    table = pd.concat([part for part in (known, never) if len(part)]) if len(known) or holes else known
    table["place"] = [arms.index(arm) for arm in table["arm"]]
    table["words"] = [f"{arm} on {count:,.0f} images: {f'{number} {state}' if number else state}" for arm, count, state,
                      number in table[["arm", "num_images", "state", "runs"]].to_numpy(dtype=object)]  # fmt: skip
    return table.sort_values(["num_images", "place", "state"], ignore_index=True)


def residuals(scaling: Scaling) -> pd.DataFrame:
    """A row a fitted run: ``residual``, its log error minus the median prediction of its arm."""
    table = runs(scaling)
    table = table[~table["held_out"]].reset_index(drop=True)
    sizes = np.unique(table["num_images"].to_numpy(dtype=float))
    middle = np.log(np.median(scaling.samples(sizes, beyond=True), axis=0))  # (arms, sizes)
    curve = [scaling.arms.index(arm) for arm in table["arm"]]
    place = np.searchsorted(sizes, table["num_images"])
    table["residual"] = np.log(table["error"] / 100) - middle[curve, place]
    return table


def generalisation(scaling: Scaling) -> pd.DataFrame:
    """A row an arm and amount of data: means of ``train_loss`` and ``accuracy`` (percent), ``held_out``; in order of
    images. Runs without a training loss are left out."""
    table = finished(scaling)
    table["accuracy"] = 100 * (1 - table["error"])
    table = table[np.isfinite(pd.to_numeric(table["train_loss"], errors="coerce").to_numpy(dtype=float))]
    grouped = table.groupby(["arm", "num_images", "held_out"], sort=False)[["train_loss", "accuracy"]].mean()
    return grouped.reset_index().sort_values(["arm", "num_images"], ignore_index=True)


def dots(num_images: pd.Series, smallest: float, largest: float) -> NDArray[np.float64]:
    """The size of a mark by the amount of data, in points: 6 for the smallest, 16 for the largest, even in the log."""
    if largest <= smallest:
        return np.full(len(num_images), 10.0)
    return 6 + 10 * np.log(num_images.to_numpy(dtype=float) / smallest) / math.log(largest / smallest)


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where two arms change order: the probability of each bin of images, the rest in words."""

    first: str
    second: str
    edges: NDArray[np.float64]
    chances: NDArray[np.float64]
    not_in_range: float
    words: str


def crossings(scaling: Scaling) -> list[Crossing]:
    """A crossing a pair, those that likely cross first; at most ``MOST_PAIRS``."""
    sizes = scaling.grid()
    samples = scaling.samples(sizes)
    found = []
    for a, b in itertools.combinations(range(len(scaling.arms)), 2):
        one = compare.crossover(samples, sizes, a, b)
        edges, chances = one.density(bins=len(sizes) - 1)
        first, second = scaling.arms[a], scaling.arms[b]
        always = f"{first} better throughout {one.always_a:.2f}, {second} {one.always_b:.2f}"
        found.append(Crossing(first=first, second=second, edges=edges, chances=chances, not_in_range=one.not_in_range,
                              words=f"not in range {one.not_in_range:.2f}: {always}"))  # fmt: skip
    return sorted(found, key=lambda one: one.not_in_range)[:MOST_PAIRS]


def frontier(scaling: Scaling, num_images: float) -> pd.DataFrame:
    """A row an arm with known cost, the cheapest training first: ``Scaling.at`` with errors in percent, ``layout``, and
    ``best``: no arm that trains with as little has a smaller predicted error."""
    table = scaling.at(num_images, level=LEVEL)
    table = table[np.isfinite(table["training_macs"])].sort_values(["training_macs", "error"], ignore_index=True)
    for name in ("error", "low", "high"):
        table[name] = 100 * table[name]
    layouts = scaling.runs.drop_duplicates("arm").set_index("arm")["layout"]
    table["layout"] = [str(layouts[arm]) for arm in table["arm"]]
    table["best"] = table["error"] < table["error"].shift().cummin().fillna(math.inf)
    return table


def wide(costs: pd.Series) -> bool:
    """Whether costs span enough for a logarithmic axis to have ticks that tell."""
    return bool(costs.max() > marks.LOG_FACTOR * costs.min())


def noise_words(scaling: Scaling) -> str:
    """The noise floor at the largest amounts of data where it is known, as a sentence for the caption."""
    parts = []
    for name, text in (("seed_sd", "between seeds"), ("binomial_sd", "from the number of validation images")):
        known = scaling.noise[scaling.noise[name].notna()]
        if len(known):
            row = known.iloc[-1]
            parts.append(f"{100 * row[name]:.2g} points {text} (at {row['num_images']:,.0f} images)")
        else:
            parts.append(f"unknown {text}")
    return f"noise, 1 sd: {', '.join(parts)}"


def caption(scaling: Scaling, settings: Sequence[str]) -> list[str]:
    """What every figure of a study says below it: how the points were made, and their noise; a line each."""
    return ["; ".join(settings), noise_words(scaling)]
