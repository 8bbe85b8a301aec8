"""Makes comparable trials a table of networks, a row each, with posterior means and intervals in place of lucky runs.

A network is trained once or with several seeds. Its qualities (error, accuracy, loss) become posterior means (see
``posterior``), with their 95 % interval as ``NAME_low`` and ``NAME_high`` and what its best run itself showed as
``measured_NAME``; ``runs`` counts its runs. What is measured on a device becomes the mean over its runs, ``disturbed``
names what a busy machine measured, and what follows from the architecture stays as it is.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coatnet_search.analysis.frame import Floats, accuracies, numbers
from coatnet_search.analysis.posterior import DRAWS, Noise, Posterior, of_anything, of_fractions, of_losses
from coatnet_search.analysis.posterior import posterior as fitted
from coatnet_search.core.quantities import COSTS, Sense

NUM_VAL = "num_val"  # in a frame's ``attrs``: validation images that its scores are of
# in ``attrs``, of corrected inherited scores by the name of each quality that was corrected:
OFFSETS = "offset_errors"  # the standard error of each layout's correction
SCATTER = "score_errors"  # how much a network's corrected score scatters about what its training alone shows
MEASURED = "measured_"  # before the name of a quality: what the best run itself showed
ACCURACIES = ("val_top1", "error")
FRACTIONS = (*ACCURACIES, "val_top5")
MOST_FEATURES = 40


@dataclass(frozen=True)
class Networks:
    """``table``: a row a network; ``draws``: of each objective, (draws, networks), what the networks may be worth,
    the less the better; ``run_sd``: of each quality, the standard deviation of one run; ``place``: of each trial, the
    row of its network."""

    table: pd.DataFrame
    place: NDArray[np.intp]
    draws: Mapping[str, Floats]
    run_sd: Mapping[str, float]

    def losses(self) -> Floats:
        """(draws, networks, objectives)"""
        return np.stack(list(self.draws.values()), axis=2)


def networks(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> Networks:
    """The networks of comparable trials (``front.comparable``), in order of the number of their best trial. The row is
    that of the trial with the best first objective, ties by the next ones and by number."""
    signs = {name: 1.0 if sense == "min" else -1.0 for name, sense in objectives.items()}
    order = np.lexsort((numbers(rows, "number"), *(sign * numbers(rows, name) for name, sign in
                                                   reversed(signs.items()))))  # fmt: skip
    keys = _keys(rows)
    best = rows.iloc[order][~keys.iloc[order].duplicated().to_numpy()].sort_values("number", kind="stable")
    places = rows.groupby(keys.to_numpy(), sort=False).indices
    groups = [places[key] for key in keys.loc[best.index]]
    table = best.reset_index(drop=True).assign(
        runs=[len(group) for group in groups], disturbed=best["attributes"].map(disturbed_of).to_numpy()
    )
    table.attrs = dict(rows.attrs)
    at = {key: row for row, key in enumerate(keys.loc[best.index])}
    place = np.array([at[key] for key in keys], dtype=np.intp)
    about = _About(rows, groups)
    found = {name: _quality(rows, name, sign, about) for name, sign in
             {**signs, **_beside(rows, objectives)}.items() if not measured(rows, name)}  # fmt: skip
    columns: dict[str, Any] = {}
    for name, (sign, known) in found.items():
        columns |= _columns(table, name, sign, known)
    for name in [str(name) for name in rows.columns if f"{name}_spread" in rows.columns]:
        columns[name] = _means(numbers(rows, name), place, len(groups))
    table = table.assign(**columns)
    table.attrs = dict(rows.attrs)
    rng = np.random.default_rng(0)
    draws = {name: found[name][1].draws if name in found else _measured_draws(table, name, sign, rng)
             for name, sign in signs.items()}  # fmt: skip
    return Networks(table, place, draws, {name: known.run_sd for name, (_, known) in found.items()})


def is_disturbed(attributes: object, name: str) -> bool:
    """Whether a trial's measurement of a quantity was made on a busy machine: measurements are named by how the names
    of what they give begin (``throughput`` of ``throughput_images_per_s``)."""
    return any(name.startswith(one) for one in disturbed_of(attributes))


def disturbed_of(attributes: object) -> list[str]:
    """The measurements of a trial that were made on a busy machine."""
    busy = attributes.get("disturbed") if isinstance(attributes, Mapping) else None
    return [str(name) for name in busy or ()]


def _means(values: Floats, place: NDArray[np.intp], count: int) -> Floats:
    """(networks,): of the values that are known; NaN where none is."""
    known = np.isfinite(values)
    totals = np.bincount(place[known], values[known], count)
    counts = np.bincount(place[known], minlength=count)
    return np.divide(totals, counts, out=np.full(count, np.nan), where=counts > 0)


def measured(rows: pd.DataFrame, name: str) -> bool:
    """Whether a column is of a device, or exact: not what training makes of a network."""
    return name in COSTS or f"{name}_spread" in rows.columns


def _keys(rows: pd.DataFrame) -> pd.Series:
    """What makes two trials runs of one network: its id, of a network of timm its label, else nothing."""
    peers = rows["attributes"].map(lambda value: isinstance(value, Mapping) and value.get("peer") is not None)
    own = "trial " + rows["number"].astype(str)
    return rows["arch_id"].astype(object).where(rows["arch_id"].notna(), own).mask(peers.astype(bool), rows["layout"])


def _beside(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> dict[str, float]:
    """Accuracy and error, which are shown beside any objectives."""
    known = [name for name in ACCURACIES if name not in objectives and np.isfinite(numbers(rows, name)).any()]
    return {name: -1.0 if name == "val_top1" else 1.0 for name in known}


class _About:
    """What is known of networks before any run: cost, features; with the layouts' errors of a correction."""

    def __init__(self, rows: pd.DataFrame, groups: Sequence[Any]) -> None:
        first = rows.iloc[[int(group[0]) for group in groups]]
        self.groups, self.num_val = groups, rows.attrs.get(NUM_VAL)
        self.layouts = first["layout"].astype(str).to_numpy()
        cost = next((values for name in ("macs", "params") if np.isfinite(values := numbers(first, name)).all()), None)
        known = cost if cost is not None and cost.max() > 0 else np.ones(len(first))
        self.cost = np.log(np.maximum(known, max(1e-9 * known.max(), np.finfo(float).tiny)))
        self.features = _features(first)
        self.offsets: Mapping[str, Mapping[str, float]] = rows.attrs.get(OFFSETS) or {}
        self.scatter: Mapping[str, float] = rows.attrs.get(SCATTER) or {}


def _features(first: pd.DataFrame) -> Floats:
    """(networks, features): which layout, and the choices of candidates, text as one column a value."""
    choices = pd.DataFrame([value if isinstance(value, Mapping) else {} for value in first["candidate"]])
    words = pd.DataFrame({"layout": first["layout"].astype(str).to_numpy()})
    for name in choices:
        values = pd.to_numeric(choices[name], errors="coerce")
        if values.notna().any():
            words[str(name)] = values.fillna(values.mean())
        else:
            words[str(name)] = choices[name].astype(str)
    return pd.get_dummies(words).to_numpy(dtype=float)[:, :MOST_FEATURES]


def _quality(rows: pd.DataFrame, name: str, sign: float, about: _About) -> tuple[float, Posterior]:
    """The sign that makes a quality a loss, and what is known of each network."""
    mirror = name == "val_top1" and sign < 0  # of the error, which is fitted once for both
    values = 1 - accuracies(rows) if mirror else sign * numbers(rows, name)
    runs = [values[group][np.isfinite(values[group])] for group in about.groups]
    known = [place for place, own in enumerate(runs) if len(own)]
    found = _cached(_Runs(tuple(tuple(runs[place]) for place in known), about.cost[known].tobytes(),
                          about.features[known].tobytes(), "error" if mirror else name, about.num_val,
                          about.scatter.get(name, 0.0)))  # fmt: skip
    found = _shifted(_spread_out(found, known, len(runs)), -1.0 if mirror else 0.0)
    errors = np.array([about.offsets.get(name, {}).get(layout, 0.0) for layout in about.layouts])
    if not errors.any():
        return sign, found
    labels, place = np.unique(about.layouts, return_inverse=True)
    shift = np.random.default_rng(1).standard_normal((DRAWS, len(labels)))[:, place] * errors
    reach = [np.hypot(end - found.mean, 1.96 * errors) for end in (found.low, found.high)]
    return sign, replace(found, low=found.mean - reach[0], high=found.mean + reach[1], draws=found.draws + shift)


@dataclass(frozen=True)
class _Runs:
    """A question that is asked again and again of one record: it is answered once."""

    runs: tuple[tuple[float, ...], ...]
    cost: bytes
    features: bytes
    name: str
    num_val: int | None
    scatter: float


@functools.lru_cache(maxsize=32)
def _cached(asked: _Runs) -> Posterior:
    runs = [np.array(own) for own in asked.runs]
    if not runs:
        none = np.zeros(0)
        return Posterior(mean=none, low=none, high=none, draws=np.zeros((DRAWS, 0)), run_sd=np.nan, spread=np.nan)
    cost = np.frombuffer(asked.cost)
    features = np.frombuffer(asked.features).reshape(len(runs), -1)
    return fitted(runs, cost, features, _noise(runs, cost, asked))


def _noise(runs: Sequence[Floats], cost: Floats, asked: _Runs) -> Noise:
    """From what cost alone predicts, within what was seen: a lucky run's own error would say that it has less noise."""
    means = np.array([own.mean() for own in runs])
    expected = np.full(len(means), means.mean())
    if len(means) > 2 and np.ptp(cost) > 0:
        expected = np.clip(np.polyval(np.polyfit(cost - cost.mean(), means, 1), cost - cost.mean()), means.min(),
                           means.max())  # fmt: skip
    expected = np.where(np.abs(expected) < 0.01 * np.abs(means).max(), 0.01 * np.abs(means).max(), expected)
    if asked.name in FRACTIONS:
        noise = of_fractions(np.abs(expected), asked.num_val)
    elif asked.name.endswith("loss"):
        noise = of_losses(expected, asked.num_val)
    else:
        noise = of_anything(expected, float(means.std()))
    return replace(noise, floor=np.maximum(noise.floor, asked.scatter**2))


def _spread_out(found: Posterior, known: Sequence[int], count: int) -> Posterior:
    """With NaN for networks that lack the value."""
    if len(known) == count:
        return found
    ends = {}
    for name in ("mean", "low", "high"):
        ends[name] = np.full(count, np.nan)
        ends[name][list(known)] = getattr(found, name)
    draws = np.full((DRAWS, count), np.nan)
    draws[:, list(known)] = found.draws
    return Posterior(**ends, draws=draws, run_sd=found.run_sd, spread=found.spread)


def _shifted(found: Posterior, by: float) -> Posterior:
    return replace(found, mean=found.mean + by, low=found.low + by, high=found.high + by, draws=found.draws + by)


def _columns(table: pd.DataFrame, name: str, sign: float, found: Posterior) -> dict[str, Floats]:
    ends = (found.low, found.high) if sign > 0 else (-found.high, -found.low)
    columns = {MEASURED + name: numbers(table, name), name: sign * found.mean, f"{name}_low": ends[0],
               f"{name}_high": ends[1]}  # fmt: skip
    if name in FRACTIONS:
        columns |= {key: np.clip(columns[key], 0.0, 1.0) for key in (name, f"{name}_low", f"{name}_high")}
    return columns


def _measured_draws(table: pd.DataFrame, name: str, sign: float, rng: np.random.Generator) -> Floats:
    """With the spread that repeating the measurement has shown, where it has one: an interquartile range, 1.35 standard
    deviations of a normal distribution."""
    spread = numbers(table, f"{name}_spread") if f"{name}_spread" in table else np.zeros(len(table))
    sd = np.nan_to_num(spread) / 1.35
    if not sd.any():
        return np.broadcast_to(sign * numbers(table, name), (DRAWS, len(table)))
    return np.asarray(sign * (numbers(table, name) + sd * rng.standard_normal((DRAWS, len(table)))))
