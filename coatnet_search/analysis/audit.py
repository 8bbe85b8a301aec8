"""Audits a supernet: networks with inherited scores and trained alone -> rank agreement and offsets of layouts.

A ranking by inherited scores is set beside rankings that cost nothing (by multiply-adds, by parameters) and beside a
predictor trained on as many runs as the supernet's hours buy. A supernet may favour one layout, so the offset of its
scores is estimated per layout: where the offsets differ by more than noise, layouts compare only after correction, and
not at all where the correction is not known. Every figure has an interval and needs ``LEAST`` networks (``ranking``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from coatnet_search.analysis.rank_agreement import (
    LEAST,
    Corrected,
    Figure,
    Floats,
    draws,
    figure,
    kendall,
    mean,
    permuted,
    regret,
    too_few,
    without_noise,
)
from coatnet_search.analysis.rival import LEAST_RUNS, left_out, most_runs
from coatnet_search.architecture.arch import Candidate
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import COSTS, Sense
from coatnet_search.strategies.features import Features
from coatnet_search.strategies.problem import Problem

NUM_BANDS = 3  # of multiply-adds, with equal numbers of networks
REPEATS = 3  # of the predictor's folds


@dataclass(frozen=True, kw_only=True)
class Network:
    """An audited network: its ``inherited`` score and those of its stand-alone trainings, one a seed, all in the
    metric's own unit. ``number``: its inherited trial; ``wall_s``: seconds of one stand-alone training."""

    number: int
    arch_id: str
    layout: str
    macs: float
    params: float
    inherited: float
    alone: tuple[float, ...]
    candidate: Candidate = field(default_factory=dict)
    wall_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """How well the supernet ranks some networks. ``over_macs`` and ``over_params``: its tau minus that of the ranking
    by cost, more being better; ``regret``: of the network that it ranks first, in the metric's unit."""

    name: str
    kind: Literal["all", "same band", "band", "layout"]
    networks: int
    tau: Figure
    over_macs: Figure
    over_params: Figure
    regret: Figure


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A predictor trained on stand-alone runs: ``bought``: how many the supernet's hours buy, None where its hours are
    not known; ``runs``: how many it had; ``gain``: tau of the supernet minus that of the predictor."""

    bought: int | None = None
    runs: int = 0
    tau: Figure
    gain: Figure
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All figures of an audit. ``offsets``: inherited minus stand-alone by layout, in the metric's unit; ``p_equal``:
    the chance of offsets that differ so much where layouts are treated alike; ``unseen``: a difference between two
    layouts' offsets that these networks would miss; ``corrected``: tau after each layout's offset is taken off."""

    metric: str
    sense: Sense
    networks: tuple[Network, ...]
    bands: tuple[int, ...]
    groups: tuple[Group, ...]
    offsets: Mapping[str, Figure]
    offset: Figure
    p_equal: float | None
    unseen: float | None
    corrected: Figure
    noise: Corrected | None
    predicted: Predicted

    @property
    def layouts(self) -> dict[str, int]:
        """Audited networks by layout."""
        return {name: found.networks for name, found in self.offsets.items()}


def audited_metric(objectives: Mapping[str, str]) -> str:
    """What an audit is of: the first objective that is no cost. Raises InputError where all are."""
    for name in objectives:
        if name not in COSTS:
            return name
    raise InputError("audit: no objective tells how good a network is; add error: min to objectives, or remove it")


def audit(
    networks: Sequence[Network],
    metric: str,
    sense: Sense,
    *,
    problem: Problem | None = None,
    supernet_hours: float | None = None,
    seed: int = 0,
) -> Audit:
    """The audit of these networks, each with at least one stand-alone score. ``problem`` is what is searched, for the
    predictor; ``supernet_hours`` what the supernet's training took, on the device of the stand-alone runs."""
    rng = np.random.default_rng(seed)
    sign = 1.0 if sense == "max" else -1.0
    inherited = np.array([one.inherited for one in networks])
    alone = np.array([float(np.mean(one.alone)) for one in networks])
    bands = band_of([one.macs for one in networks])
    labels = [one.layout for one in networks]
    ranks = _Ranks(networks, sign * inherited, sign * alone, rng)
    offset = inherited - alone
    enough = len(networks) >= LEAST
    same = np.equal.outer(bands, bands)
    return Audit(
        metric=metric,
        sense=sense,
        networks=tuple(networks),
        bands=tuple(int(band) for band in bands),
        groups=(
            ranks.group("all networks", "all", np.full(len(networks), True)),
            ranks.group("pairs within a band", "same band", np.full(len(networks), True), same),
            *(ranks.group(_band_name(networks, bands, band), "band", bands == band) for band in range(NUM_BANDS)),
            *(ranks.group(name, "layout", np.array(labels) == name) for name in sorted(set(labels))),
        ),
        offsets={name: ranks.mean(offset, np.array(labels) == name) for name in sorted(set(labels))},
        offset=ranks.mean(offset, np.full(len(networks), True)),
        p_equal=permuted(offset, labels, bands.tolist(), rng) if enough and len(set(labels)) > 1 else None,
        unseen=_unseen(offset, labels) if enough else None,
        corrected=ranks.tau(sign * (inherited - _offset_of_others(offset, labels))),
        noise=_noise(networks, sign, rng),
        predicted=_predicted(networks, ranks, sign, problem, supernet_hours, rng),
    )


def band_of(macs: Sequence[float]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(networks,): the band of each, 0 the cheapest; equal numbers of networks, up to one."""
    order = np.argsort(np.argsort(np.asarray(macs), kind="stable"), kind="stable")
    return np.asarray(order * NUM_BANDS // max(1, len(order)))


def _band_name(networks: Sequence[Network], bands: Any, band: int) -> str:
    own = [one.macs for one, place in zip(networks, bands, strict=True) if place == band]
    return f"{_million(min(own))} to {_million(max(own))} M multiply-adds" if own else f"band {band + 1}"


def _million(macs: float) -> str:
    return f"{macs / 1e6:.3g}"


class _Ranks:
    """The supernet's ranking and those that cost nothing, over the same bootstrap draws, so that gains are paired."""

    def __init__(self, networks: Sequence[Network], inherited: Floats, alone: Floats, rng: np.random.Generator) -> None:
        self.inherited, self.alone = inherited, alone
        self.macs = np.array([one.macs for one in networks], dtype=float)
        self.params = np.array([one.params for one in networks], dtype=float)
        self.weights = draws(len(networks), rng) if networks else np.zeros((1, 0))

    def group(self, name: str, kind: Any, members: Any, together: Any = None) -> Group:
        count = int(members.sum())
        if count < LEAST:
            none = too_few(count)
            return Group(name=name, kind=kind, networks=count, tau=none, over_macs=none, over_params=none, regret=none)
        weights = self.weights * members
        taus = {place: kendall(weights, score, self.alone, together)
                for place, score in enumerate((self.inherited, self.macs, self.params))}  # fmt: skip
        lost = Figure(networks=count, note="of a band's best, see the bands")
        if together is None:
            lost = figure(regret(weights, self.inherited, self.alone), count)
        return Group(name=name, kind=kind, networks=count, tau=figure(taus[0], count),
                     over_macs=figure(taus[0] - taus[1], count), over_params=figure(taus[0] - taus[2], count),
                     regret=lost)  # fmt: skip

    def tau(self, score: Floats) -> Figure:
        if len(score) < LEAST:
            return too_few(len(score))
        return figure(kendall(self.weights, score, self.alone), len(score))

    def mean(self, values: Floats, members: Any) -> Figure:
        count = int(members.sum())
        return too_few(count) if count < LEAST else figure(mean(self.weights * members, values), count)


def _offset_of_others(offset: Floats, labels: Sequence[str]) -> Floats:
    """(networks,): the mean offset of the other networks of its layout, so that none corrects itself; 0 of none."""
    names = np.array(labels)
    same = np.equal.outer(names, names) & ~np.eye(len(names), dtype=bool)
    count = same.sum(axis=1)
    return np.asarray(np.divide(same @ offset, count, out=np.zeros(len(names)), where=count > 0))


def _unseen(offset: Floats, labels: Sequence[str]) -> float | None:
    """Half of the 95 % interval of a difference between the offsets of the two layouts with the fewest networks."""
    names, place, counts = np.unique(np.array(labels), return_inverse=True, return_counts=True)
    if len(names) < 2 or len(labels) <= len(names):
        return None
    means = np.bincount(place, offset) / counts
    variance = float(((offset - means[place]) ** 2).sum() / (len(labels) - len(names)))
    return 1.96 * math.sqrt(variance * float((1 / np.sort(counts)[:2]).sum()))


def _noise(networks: Sequence[Network], sign: float, rng: np.random.Generator) -> Corrected | None:
    """Needs two seeds of each; None where there are too few networks that have them."""
    repeated = [one for one in networks if len(one.alone) > 1]
    if len(repeated) < LEAST:
        return None
    seeds = min(len(one.alone) for one in repeated)
    alone = np.array([one.alone[:seeds] for one in repeated])
    return without_noise(sign * np.array([one.inherited for one in repeated]), sign * alone, rng)


def _predicted(
    networks: Sequence[Network],
    ranks: _Ranks,
    sign: float,
    problem: Problem | None,
    hours: float | None,
    rng: np.random.Generator,
) -> Predicted:
    count = len(networks)
    bought = _bought(networks, hours)
    if count < LEAST or problem is None:
        return Predicted(bought=bought, tau=too_few(count), gain=too_few(count))
    losses = [[-sign * score for score in one.alone] for one in networks]
    most = most_runs(losses)
    runs = most if bought is None else min(bought, most)
    if runs < LEAST_RUNS:
        none = Figure(networks=count, note=f"the supernet's hours buy {runs} runs; a predictor needs {LEAST_RUNS}")
        return Predicted(bought=bought, runs=runs, tau=none, gain=none)
    known = [problem.know(one.candidate) for one in networks]
    features = Features(problem, known)
    taus = [kendall(ranks.weights, -left_out(features, known, losses, runs, rng), ranks.alone)
            for _ in range(REPEATS)]  # fmt: skip
    by_predictor = np.mean(taus, axis=0)
    by_supernet = kendall(ranks.weights, ranks.inherited, ranks.alone)
    note = "the supernet's hours are not known" if bought is None else ""
    if bought is not None and bought > runs:
        note = (f"too few for equal hours: the supernet's hours buy {bought:,} runs, the record leaves {runs} to train "
                "on beside those that are predicted; more runs would help the predictor")  # fmt: skip
    return Predicted(bought=bought, runs=runs, tau=figure(by_predictor, count),
                     gain=figure(by_supernet - by_predictor, count), note=note)  # fmt: skip


def _bought(networks: Sequence[Network], hours: float | None) -> int | None:
    """How many stand-alone runs take as long as the supernet's training."""
    known = [one.wall_s for one in networks if one.wall_s]
    return int(hours * 3600 / float(np.mean(known))) if hours is not None and known else None
