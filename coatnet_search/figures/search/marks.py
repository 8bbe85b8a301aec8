"""What the figures show, before any plotting library: one visual language and the numbers that are drawn.

Colour is the layout, an open symbol is a trial that is not final (stopped, failed, still running, or done with a
smaller budget), a bar is an interval (``interval``). plotly (``figures.py``) and matplotlib (``pictures.py``) draw the
same marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coatnet_search.analysis.audit import Audit
from coatnet_search.analysis.frame import Floats, accuracies, complete, numbers, searched
from coatnet_search.analysis.front import comparable, network_front, non_dominated, with_num_val
from coatnet_search.analysis.intervals import wilson
from coatnet_search.analysis.networks import networks
from coatnet_search.analysis.published_points import published
from coatnet_search.core.quantities import COSTS, Sense, quality, scale, sense_of

# Okabe and Ito (2008), told apart with any colour vision; black and yellow are left out, as they vanish on one ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
SHAPES = ("circle", "square", "diamond", "triangle-up")
PEER, PEER_SHAPE = "timm:", "star"  # networks of timm beside the candidates
FIXED = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T", "T", "C-C-T-T-T")  # the paper's layouts look alike in every study
NUM_CURVES = 60
LOG_FACTOR = 3.0  # a cost's axis is logarithmic where the values span more than this


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one layout is drawn: a colour, and a shape that differs where colours are used up."""

    colour: str
    shape: str


def looks(frame: pd.DataFrame) -> dict[str, Look]:
    """A look for each layout in the frame, in order of name; the paper's layouts have theirs in every study."""
    layouts = sorted({str(name) for name in complete(frame)["layout"].dropna()})
    places = {name: FIXED.index(name) for name in layouts if name in FIXED}
    free = [place for place in range(len(FIXED) + len(layouts)) if place not in places.values()]
    for name in layouts:
        if name not in places:
            places[name] = free.pop(0)
    return {
        name: Look(
            colour=COLOURS[place % len(COLOURS)],
            shape=PEER_SHAPE if name.startswith(PEER) else SHAPES[place // len(COLOURS) % len(SHAPES)],
        )
        for name, place in ((name, places[name]) for name in layouts)
    }


def axes(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> list[str]:
    """Against which costs the quality is drawn: the objectives that are costs, then macs and throughput if known."""
    frame, main = complete(frame, objectives), quality(objectives)
    others = [name for name in objectives if name != main]
    names = dict.fromkeys([*others, "macs", "throughput_images_per_s"])
    return [name for name in names if name != main and np.isfinite(numbers(frame, name)).any()]


def logarithmic(values: pd.Series, name: str) -> bool:
    """Costs get a logarithmic axis where they span enough of it for ticks to tell."""
    least, most = float(values.min()), float(values.max())
    return name in COSTS and least > 0 and most / least > LOG_FACTOR


def points(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], x: str, y: str, num_val: int | None = None
) -> pd.DataFrame:
    """The trials that have both values: number, arch_id, layout, state, x, y, x_low..y_high, final, front. Those that
    may be compared are one point a network, at what its runs say that it is worth.

    Values are as drawn (percent, not fractions); the bounds are missing where no interval is known. ``front`` marks the
    front of this plane among the final trials.
    """
    rows = searched(complete(frame, [*objectives, x, y]))
    if num_val:
        rows = with_num_val(rows, num_val)
    plane = {y: sense_of(y, objectives), x: sense_of(x, objectives)}
    rows, final = _of_networks(rows, plane)
    shown = np.isfinite(numbers(rows, x)) & np.isfinite(numbers(rows, y)) & rows["layout"].notna().to_numpy(dtype=bool)
    rows = rows[shown].reset_index(drop=True)
    out = rows[["number", "arch_id", "layout", "state"]].astype({"layout": str}).copy()
    out["final"] = rows["number"].isin(final)
    out["front"] = False
    places = np.flatnonzero(out["final"].to_numpy(dtype=bool))
    out.loc[places[non_dominated(rows.iloc[places], plane)], "front"] = True
    for axis, name in (("x", x), ("y", y)):
        low, high = interval(rows, name, num_val)
        out[axis] = numbers(rows, name) * scale(name)
        out[f"{axis}_low"], out[f"{axis}_high"] = low * scale(name), high * scale(name)
    return out


def _of_networks(rows: pd.DataFrame, plane: Mapping[str, Sense]) -> tuple[pd.DataFrame, set[int]]:
    """The trials with those that are comparable as one row a network, with what it is worth; and their numbers."""
    final = comparable(rows, plane)
    if final.empty:
        return rows, set()
    table = networks(final, plane).table
    others = rows[~rows["number"].isin(set(final["number"]))]
    out = pd.concat([part for part in (table, others) if len(part)]).sort_values("number", ignore_index=True)
    out.attrs = dict(rows.attrs)
    return out, set(table["number"])


def published_points(x: str, y: str) -> pd.DataFrame:
    """Published networks that have both values, as drawn: name (with pixels and pre-training), x, y."""
    rows = published()
    if not {x, y} <= set(rows.columns):
        return pd.DataFrame({"name": [], "x": [], "y": []})
    rows = rows[rows[x].notna() & rows[y].notna()]
    more = rows["pretraining"].map({"none": "", "imagenet-21k": ", ImageNet-21K", "jft": ", JFT"})
    name = rows["name"] + " at " + rows["image_size"].astype(str) + more
    return pd.DataFrame({"name": name, "x": rows[x] * scale(x), "y": rows[y] * scale(y)})


def interval(rows: pd.DataFrame, name: str, num_val: int | None) -> tuple[Floats, Floats]:
    """The bar of a column's values, NaN where none is known: of networks' qualities the 95 % interval of what they are
    worth, of other accuracies that which follows from the number of validation images, of measured quantities the
    width of the middle half of the repeats (``_spread``)."""
    values = numbers(rows, name)
    if f"{name}_low" in rows.columns:
        return numbers(rows, f"{name}_low"), numbers(rows, f"{name}_high")
    if name in ("error", "val_top1") and num_val:
        low, high = wilson(accuracies(rows), num_val)
        return (1 - high, 1 - low) if name == "error" else (low, high)
    if f"{name}_spread" in rows.columns:
        half = np.abs(numbers(rows, f"{name}_spread")) / 2
        return values - half, values + half
    missing = np.full(len(rows), np.nan)
    return missing, missing


def audit_points(audit: Audit) -> pd.DataFrame:
    """The audited networks as drawn: number, layout, x (the inherited score), y (the mean of those trained alone) with
    y_low and y_high (the seeds' lowest and highest), offset (x - y)."""
    table = pd.DataFrame({
        "number": [one.number for one in audit.networks], "layout": [one.layout for one in audit.networks],
        "x": [one.inherited for one in audit.networks], "y": [float(np.mean(one.alone)) for one in audit.networks],
        "y_low": [min(one.alone) for one in audit.networks], "y_high": [max(one.alone) for one in audit.networks],
    })  # fmt: skip
    table["offset"] = table["x"] - table["y"]
    shown = ["x", "y", "y_low", "y_high", "offset"]
    table[shown] = table[shown] * scale(audit.metric)
    return table


def audit_looks(audit: Audit) -> dict[str, Look]:
    """As ``looks``, of the audited layouts."""
    return looks(pd.DataFrame({"layout": list(audit.offsets), "number": range(len(audit.offsets))}))


def audit_offsets(audit: Audit) -> pd.DataFrame:
    """The layouts' offsets that are known, as drawn: layout, value, low, high."""
    known = [(name, one.value, one.low, one.high) for name, one in audit.offsets.items() if one.value is not None]
    table = pd.DataFrame(known, columns=["layout", "value", "low", "high"])
    numbers_of = ["value", "low", "high"]
    table[numbers_of] = table[numbers_of].astype(float) * scale(audit.metric)
    return table


def shared_range(points: pd.DataFrame) -> tuple[float, float]:
    """The least and the largest of all drawn scores."""
    values = points[["x", "y_low", "y_high"]].to_numpy(dtype=float)
    return float(values.min()), float(values.max())


def curve_name(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> str | None:
    """What the learning curves show: the quality objective, else accuracy, else loss; None without curves."""
    known: set[str] = set()
    for curve in searched(complete(frame))["curve"]:
        if isinstance(curve, Sequence):
            known.update(*(epoch.keys() for epoch in curve))
    if "val_top1" in known:
        known.add("error")
    return next((name for name in (quality(objectives), "val_top1", "val_loss") if name in known), None)


def curves(frame: pd.DataFrame, name: str, objectives: Mapping[str, Sense]) -> list[tuple[pd.Series, Floats]]:
    """At most ``NUM_CURVES`` trials, each a row with ``on_front`` and its (epochs, 2) array of epoch and value.

    Values are as drawn. The front's trials come first, the rest evenly from the whole study.
    """
    rows = searched(complete(frame, objectives))
    has_curve = np.array([isinstance(curve, Sequence) and len(curve) > 0 for curve in rows["curve"]], dtype=bool)
    with_curve = rows[has_curve & rows["layout"].notna().to_numpy(dtype=bool)].copy()
    with_curve["on_front"] = with_curve["number"].isin(set(network_front(rows, objectives)["number"]))
    leading, rest = with_curve[with_curve["on_front"]], with_curve[~with_curve["on_front"]]
    room = max(NUM_CURVES - len(leading), 0)
    evenly = np.linspace(0, max(len(rest) - 1, 0), min(room, len(rest))).round().astype(int)
    drawn = [row for part in (rest.iloc[evenly], leading.iloc[:NUM_CURVES]) for _, row in part.iterrows()]
    return [(row, _curve(row["curve"], name)) for row in drawn]


def _curve(curve: Sequence[Mapping[str, float]], name: str) -> Floats:
    def value(epoch: Mapping[str, float]) -> float | None:
        if name == "error" and "error" not in epoch:
            accuracy = epoch.get("val_top1")
            return None if accuracy is None else 1.0 - accuracy
        return epoch.get(name)

    pairs = [(epoch.get("epoch", place), value(epoch)) for place, epoch in enumerate(curve, 1)]
    array = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    array = array[~np.isnan(array[:, 1])]  # an epoch without an evaluation
    return array * np.array([1.0, scale(name)])
