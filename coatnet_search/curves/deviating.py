"""Finds the run, or the runs of one size, that fit no curve through the other points, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from coatnet_search.curves.form import Array
from coatnet_search.curves.points import Points
from coatnet_search.curves.posterior import infer
from coatnet_search.curves.summary import Curve, alone, summarise

LEAST = 0.25  # log error from which a point may be odd at all, and
CLEAR = 5.0  # how many standard deviations of the other points around a line it must be off
ODD = 0.02  # probability, before they are seen, that the points of a size are on no curve: an assumption
SPREAD = 1.0  # scale of a Cauchy distribution of their log errors around the curve: they may be anywhere


@dataclass(frozen=True)
class Suspect:
    """The points of curve ``curve`` at size ``x`` (``count`` of them, of mean ``error``), where the others say
    ``expected``; ``probability`` that they are on no smooth curve; ``last``: no larger size of this curve is known."""

    curve: int
    x: float
    count: int
    error: float
    expected: float
    probability: float
    last: bool

    def text(self, name: str) -> str:
        runs = "a single run" if self.count == 1 else f"all {self.count} runs"
        return (
            f"{name}: {runs} at x = {self.x:g} (error {self.error:.3g}) fits no curve through the other points, which "
            f"say {self.expected:.3g}: look at it; it is odd with probability {self.probability:.2f}"
        )

    @property
    def jumped(self) -> float:
        """The probability that odd points are right, and the curve jumped there: several runs that agree can hardly all
        be broken; of a single one nobody knows. Points before the last size are not on the curve of the later ones."""
        if not self.last:
            return 0.0
        return 1 / (1 + ODD ** (self.count - 1))


def suspects(curves: Sequence[Curve], points: Sequence[Points], seed: int) -> list[Suspect]:
    """At most one of each curve, the farthest off."""
    found = []
    for i, (curve, each) in enumerate(zip(curves, points, strict=True)):
        x = _farthest(each, curve.images)
        if x is not None:
            found.append(_weighed(i, curve, each, x, seed))
    return found


def _farthest(points: Points, images: int | None) -> float | None:
    """The size whose points are off a line through the means of the others by far more than those are."""
    log_x, log_y = np.log(points.x), np.log(points.y)
    sizes, place = np.unique(log_x, return_inverse=True)
    if len(sizes) < 4:
        return None
    means = np.bincount(place, log_y) / np.bincount(place)
    within = [np.ptp(log_y[place == j]) for j in range(len(sizes))]
    offs = np.zeros(len(sizes))
    for j in range(len(sizes)):
        rest = np.arange(len(sizes)) != j
        line = np.polyfit(sizes[rest], means[rest], 1)
        residual = means[rest] - np.polyval(line, sizes[rest])
        sd = np.sqrt((residual**2).sum() / max(rest.sum() - 2, 1))
        error = np.exp(np.polyval(line, sizes[j]))
        binomial = np.sqrt(max(1 - error, 0.0) / (error * images)) if images else 0.0
        off = abs(means[j] - np.polyval(line, sizes[j]))
        wanted = max(LEAST, CLEAR * sd) + CLEAR * binomial + within[j]
        offs[j] = off / wanted if wanted > 0 else 0.0
    worst = int(offs.argmax())
    return float(np.exp(sizes[worst])) if offs[worst] > 1 else None


def without(curve: Curve, points: Points, x: float) -> Curve:
    """The curve without its points at a size."""
    keep = ~np.isclose(points.x, x)

    def left(values: Sequence[str] | None) -> list[str] | None:
        return None if values is None else [value for value, good in zip(values, keep, strict=True) if good]

    return Curve(curve.name, points.x[keep], points.y[keep], left(points.runs), curve.group, left(points.instances),
                 curve.images)  # fmt: skip


def _weighed(place: int, curve: Curve, points: Points, x: float, seed: int) -> Suspect:
    here = np.isclose(points.x, x)
    kept = np.flatnonzero(~here)
    rest = Points(points.x[kept], points.y[kept], _of(points.runs, kept), (), _of(points.instances, kept))
    both, other = (infer(alone(summarise([curve], [each]), 0), None, seed) for each in (points, rest))
    sizes, where = np.unique(np.log(rest.x), return_inverse=True)
    means = np.bincount(where, np.log(rest.y)) / np.bincount(where)
    near = np.argsort(np.abs(sizes - np.log(x)))[:3]
    expected = float(np.polyval(np.polyfit(sizes[near], means[near], 1), np.log(x)))
    off = float(np.log(points.y[here]).mean()) - expected
    odd = np.log(ODD) + _evidence(other.evidence) - np.log(np.pi * SPREAD * (1 + (off / SPREAD) ** 2))
    usual = np.log(1 - ODD) + _evidence(both.evidence)
    chance = float(np.exp(odd - np.logaddexp(odd, usual)))
    return Suspect(place, x, int(here.sum()), float(points.y[here].mean()), float(np.exp(expected)), chance,
                   bool(x >= points.x.max() * (1 - 1e-9)))  # fmt: skip


def _of(values: tuple[str, ...] | None, kept: NDArray[np.intp]) -> tuple[str, ...] | None:
    return None if values is None else tuple(values[int(i)] for i in kept)


def _evidence(logs: Array) -> float:
    return float(logsumexp(logs))
