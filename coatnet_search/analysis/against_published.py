"""Sets a study's results beside printed ones for its choices: each value, and whether the order agrees.

Trials that are done count, of the largest amount of data and the longest schedule unless the printed result is of an
amount of its own; peers and doubled schedules do not. Where a choice has several networks (instances), its units are
their means over seeds, because the choice is compared over networks; else its units are its runs, a seed and draw each,
and differences are paired over those that both choices have.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from coatnet_search.analysis.frame import complete, numbers, searched
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import quantity
from coatnet_search.record.trial import PEER, TUNE, kind_of

GAP = "generalisation_gap"
LEVEL = 0.95  # of intervals of differences, two-sided
EQUAL = 1e-9  # printed values that are so close are equal
Agreement = Literal["agrees", "opposite", "undecided", "no difference seen", "differs", "one run each", "not run"]
Unit = str | tuple[float, float]  # a network by its id, or a run by its seed and draw


@dataclass(frozen=True, kw_only=True)
class Result:
    """A printed result (``value``, or ``rank`` where only an order was printed) and ours: the mean of its units, their
    standard deviation (None: fewer than two), the number of runs and of networks."""

    where: Mapping[str, Any]
    metric: str
    value: float | None
    rank: int | None
    note: str
    ours: float | None
    sd: float | None
    runs: int
    networks: int
    units: Mapping[Unit, float] = field(default_factory=dict, repr=False)

    @property
    def choice(self) -> str:
        """``layout C-C-T-T, num_images 10 %``."""
        return ", ".join(f"{name} {_word(name, value)}" for name, value in self.where.items())


@dataclass(frozen=True, kw_only=True)
class Order:
    """Two choices that differ in one value: ``better`` is the one that was printed as better. ``printed`` and ``ours``:
    by how much it is better, in the metric's unit (None: only the order was printed; not run); ``equal``: they were
    printed as equal. ``low``, ``high``: 95 % interval of ours (Student's t; None: fewer than two units of either)."""

    metric: str
    better: str
    worse: str
    equal: bool
    printed: float | None
    ours: float | None
    low: float | None
    high: float | None

    @property
    def agreement(self) -> Agreement:
        if self.ours is None:
            return "not run"
        if self.low is None or self.high is None:
            return "one run each"
        if self.equal:
            return "no difference seen" if self.low <= 0 <= self.high else "differs"
        return "agrees" if self.low > 0 else "opposite" if self.high < 0 else "undecided"


def results(frame: pd.DataFrame, study: Mapping[str, Any]) -> list[Result]:
    """Every printed result of a resolved study (``published``) with ours from its record (``read_record``).

    Raises InputError where the study has none.
    """
    printed = study.get("published") or []
    if not printed:
        raise InputError(f"study {study.get('name', '')}: it has no published results to set ours beside; add them "
                         "under published:")  # fmt: skip
    rows = _rows(frame, study)
    return [_result(one, rows, study) for one in printed]


def unrun(study: Mapping[str, Any]) -> list[Result]:
    """As ``results``, before anything was run."""
    return results(pd.DataFrame({"number": []}), study)


def orders(found: Sequence[Result]) -> list[Order]:
    """Every pair of results of one metric whose choices differ in one value (other than the amount of data)."""
    return [_order(first, second) for first, second in itertools.combinations(found, 2) if _contrast(first, second)]


# --- one result -------------------------------------------------------------------------------------------------------


def _rows(frame: pd.DataFrame, study: Mapping[str, Any]) -> pd.DataFrame:
    """The trials that count, with what they are told apart by."""
    table = searched(complete(frame))
    attributes = [value if isinstance(value, Mapping) else {} for value in table["attributes"]]
    sizes = study.get("sizes") or (1.0,)
    rows = pd.DataFrame({
        "layout": [str(one.get("layout") or name) for one, name in zip(attributes, table["layout"], strict=True)],
        "size": [float(one.get("size", sizes[0])) for one in attributes],
        "candidate": table["candidate"],
        "network": table["arch_id"].astype(str),
    })  # fmt: skip
    for name in ("epochs", "num_images", "seed", "draw"):
        rows[name] = numbers(table, name)
    rows["num_images"] = rows["num_images"].fillna(_num_train(study))
    rows[["seed", "draw"]] = rows[["seed", "draw"]].fillna(0)
    metrics = {str(one["metric"]) for one in study.get("published") or []}
    for name in metrics - {GAP}:
        rows[name] = numbers(table, name)
    if GAP in metrics:
        rows[GAP] = numbers(table, "train_top1") - numbers(table, "val_top1")
    usual = [not one.get("doubled") and kind_of(one) not in (PEER, TUNE) for one in attributes]
    return rows[(table["state"] == "done").to_numpy(dtype=bool) & np.array(usual, dtype=bool)]


def _num_train(study: Mapping[str, Any]) -> float:
    return float((study.get("data_summary") or {}).get("num_train") or math.inf)


def _result(printed: Mapping[str, Any], rows: pd.DataFrame, study: Mapping[str, Any]) -> Result:
    where, metric = printed["where"], str(printed["metric"])
    kept = _chosen(rows[np.isfinite(rows[metric])], where, study)
    units = _units(kept, metric)
    values = np.array(list(units.values()))
    return Result(
        where=dict(where), metric=metric, value=printed.get("value"), rank=printed.get("rank"),
        note=str(printed.get("note") or ""), ours=float(values.mean()) if values.size else None,
        sd=float(values.std(ddof=1)) if values.size > 1 else None, runs=len(kept), networks=kept["network"].nunique(),
        units=units,
    )  # fmt: skip


def _chosen(rows: pd.DataFrame, where: Mapping[str, Any], study: Mapping[str, Any]) -> pd.DataFrame:
    amount = where.get("num_images", rows["num_images"].max() if len(rows) else math.inf)
    if amount <= 1:
        amount = round(amount * _num_train(study)) if math.isfinite(_num_train(study)) else math.nan
    size = where.get("size", (study.get("sizes") or (1.0,))[0])
    keep = (rows["num_images"] == amount) & (rows["size"] == size)
    if "layout" in where:
        keep &= rows["layout"] == where["layout"]
    for name in where.keys() - {"layout", "size", "num_images"}:
        keep &= np.array([isinstance(one, Mapping) and one.get(name) == where[name] for one in rows["candidate"]],
                         dtype=bool)  # fmt: skip
    kept = rows[keep]
    return kept[kept["epochs"] == kept["epochs"].max()]


def _units(rows: pd.DataFrame, metric: str) -> dict[Unit, float]:
    if rows["network"].nunique() > 1:
        return {str(name): float(value) for name, value in rows.groupby("network")[metric].mean().items()}
    return {(float(seed), float(draw)): float(value)
            for seed, draw, value in zip(rows["seed"], rows["draw"], rows[metric], strict=True)}  # fmt: skip


# --- two of them ------------------------------------------------------------------------------------------------------


def _contrast(first: Result, second: Result) -> bool:
    if first.metric != second.metric or first.where.keys() != second.where.keys():
        return False
    if (first.value is None) is not (second.value is None):
        return False
    others = [name for name in first.where if first.where[name] != second.where[name]]
    return len(others) == 1 and others[0] != "num_images"


def _order(first: Result, second: Result) -> Order:
    ahead = _printed(first, second)
    better, worse = (first, second) if ahead >= 0 else (second, first)
    ours, low, high = _difference(better, worse)
    return Order(
        metric=first.metric, better=better.choice, worse=worse.choice, equal=abs(ahead) < EQUAL,
        printed=None if first.value is None else abs(ahead), ours=ours, low=low, high=high,
    )  # fmt: skip


def _printed(first: Result, second: Result) -> float:
    """How much better the first was printed to be: above 0 is better; of ranks, only the sign says something."""
    if first.value is None or second.value is None:
        return float((second.rank or 0) - (first.rank or 0))
    return _sign(first.metric) * (first.value - second.value)


def _sign(metric: str) -> float:
    return 1.0 if quantity(metric).sense == "max" else -1.0


def _difference(better: Result, worse: Result) -> tuple[float | None, float | None, float | None]:
    """By how much ours is better, and its interval."""
    if better.ours is None or worse.ours is None:
        return None, None, None
    sign = _sign(better.metric)
    shared = [unit for unit in better.units if unit in worse.units and better.networks == worse.networks == 1]
    if len(shared) > 1:
        middle, error, freedom = _paired(np.array([better.units[unit] - worse.units[unit] for unit in shared]))
    elif min(len(better.units), len(worse.units)) > 1:
        middle, error, freedom = _welch(*(np.array(list(one.units.values())) for one in (better, worse)))
    else:
        return sign * (better.ours - worse.ours), None, None
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return sign * middle, sign * middle - reach, sign * middle + reach


def _paired(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, its standard error, degrees of freedom."""
    count = len(differences)
    return float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(count), count - 1


def _welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """As ``_paired`` of two samples with variances of their own (Welch)."""
    parts = [one.var(ddof=1) / len(one) for one in (first, second)]
    total = float(sum(parts))
    freedoms = float(sum(part**2 / (len(one) - 1) for part, one in zip(parts, (first, second), strict=True)))
    freedom = total**2 / freedoms if freedoms else float(len(first) + len(second) - 2)
    return float(first.mean() - second.mean()), math.sqrt(total), freedom


def _word(name: str, value: Any) -> str:
    if name == "num_images":
        return f"{100 * value:g} %" if value <= 1 else f"{value:,.0f}"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def notes(found: Sequence[Result]) -> Iterator[str]:
    """What a reader must know of printed results, each once."""
    yield from dict.fromkeys(f"{one.choice}: {one.note}" for one in found if one.note)
