"""Curves as the predictive distribution sees them: log errors of several arms at their common sizes, with repeats.

A arms, m sizes, n points of an arm. u = log(x / last x of the group); a size that an arm lacks is ``absent``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.curves.form import Array
from coatnet_search.curves.paired_runs import paired_share, shared_part
from coatnet_search.curves.points import Points
from coatnet_search.curves.posterior import NOISE, Seen

MOST_SIZES = 48  # beyond this many, neighbours in log x are averaged: they tell no more about the shape
PRIOR_LABELS = 4.0  # labels of which the estimate of their share is worth a half
PRIOR_FREEDOM = 4.0  # repeats of which an arm's own noise beside that of all arms is worth a half
LEAST_PAIRED = 0.05  # common variance beside a run's own below which labels say nothing of it
LEAST_NOISE = 1e-3  # sd of log error below which no repeats are believed


@dataclass(frozen=True)
class Curve:
    """What was measured of one thing (a layout, an instance, a size): errors at x, ``runs`` one label a point; equal
    labels share their seed and data draw across the curves of a fit. ``instances``: what stays with a run at all sizes
    (its network), by default its label. ``images``: on how many images each error was measured, for the binomial part
    of its noise. ``group`` names curves that are believed to be alike; None is a group too."""

    name: str
    x: ArrayLike
    error: ArrayLike
    runs: Sequence[object] | None = None
    group: str | None = None
    instances: Sequence[object] | None = None
    images: int | None = None


@dataclass(frozen=True)
class Summary:
    """Of the curves of one group: ``u`` (m,) ascending to 0, ``z`` (A, m) mean log errors, ``present`` (A, m),
    ``noise`` (A, m, m) the covariance of z in units of the pooled variance of a run's own noise, ``known`` (A, m) the
    binomial variance of z, repeats' squares and freedom, ``paired`` the share of the noise that labels have in common,
    ``common`` (m,) its variance at each size in units of a run's."""

    points: tuple[Points, ...]
    x_last: float
    u: Array
    z: Array
    present: Array
    noise: Array
    known: Array
    square: float
    freedom: float
    binomial: float
    paired: float
    common: Array
    excess: Array  # (A,): by how much the log of an arm's mean error over runs lies above the mean of their logs

    def log_noise(self) -> Array:
        """Log weights (``NOISE``,) of the noise of a run of its own, by the repeats' squares on an even prior."""
        variance = NOISE**2 + self.binomial
        return -0.5 * self.freedom * np.log(variance) - self.square / (2 * variance)

    def log_common(self) -> Array:
        """The same of the noise that runs of one label have in common; flat where nothing is known of it."""
        arms, ratio = len(self.z), self.paired / max(1 - self.paired, 1e-3)
        if ratio < LEAST_PAIRED:
            return np.zeros(len(NOISE))
        freedom = self.freedom / arms
        return -0.5 * freedom * np.log(NOISE**2) - ratio * self.square / arms / (2 * NOISE**2)


def summarise(curves: Sequence[Curve], points: Sequence[Points]) -> Summary:
    """The curves of one group, each with its checked points."""
    x_last = float(max(each.x[-1] for each in points))
    paired, run_share = paired_share(points), shared_by_run(points)
    explained = shared_part(points, paired)
    place, u = _places(points, x_last)
    sizes = len(u)
    z, present = np.zeros((len(points), sizes)), np.zeros((len(points), sizes), dtype=bool)
    noise, known = np.zeros((len(points), sizes, sizes)), np.zeros((len(points), sizes))
    squares, freedoms, parts = [], [], []
    for a, (curve, each, where, part) in enumerate(zip(curves, points, place, explained, strict=True)):
        shares = (where[None] == np.arange(sizes)[:, None]).astype(float)  # (m, n)
        counts = shares.sum(axis=1)
        shares /= np.maximum(counts, 1)[:, None]
        logs = np.log(each.y) - part
        z[a], present[a] = shares @ logs, counts > 0
        noise[a] = _noise(each, shares, run_share)
        binomial = _binomial(each, where, curve.images)
        known[a] = (shares**2) @ binomial
        distinct = np.unique(each.x, return_inverse=True)[1]
        means = np.bincount(distinct, logs) / np.bincount(distinct)
        squares.append(float(((logs - means[distinct]) ** 2).sum()))
        freedoms.append(len(logs) - len(means))
        parts.append(float(binomial.mean()))
    factors = _own_factors(np.array(squares), np.array(freedoms))
    pooled = np.sum(squares) / (np.sum(freedoms) + PRIOR_FREEDOM) / max(1 - paired, 1e-3)
    counts = np.array([np.diag(each) for each in noise])
    common = np.array([np.mean(column[there]) for column, there in zip(counts.T, present.T, strict=True)])
    return Summary(tuple(points), x_last, u, z, present, noise * factors[:, None, None], known, float(np.sum(squares)),
                   float(np.sum(freedoms)), float(np.mean(parts)), paired, common, factors * pooled / 2)  # fmt: skip


def _places(points: Sequence[Points], x_last: float) -> tuple[list[np.ndarray], Array]:
    """The place of each point among the common sizes, and the sizes' u."""
    logs = [np.log(each.x / x_last) for each in points]
    every = np.concatenate(logs)
    sizes, place = np.unique(every, return_inverse=True)
    if len(sizes) > MOST_SIZES:
        width = -sizes[0] / MOST_SIZES
        place = np.unique(np.floor(every / width + 1e-9), return_inverse=True)[1]
        sizes = np.bincount(place, every) / np.bincount(place)
        sizes = np.append(sizes[:-1], 0.0)
    return np.split(place, np.cumsum([len(each) for each in logs])[:-1]), sizes


def _noise(points: Points, shares: Array, run_share: float) -> Array:
    own = shares @ shares.T
    if points.instances is None:
        return own
    labels = np.unique(points.instances, return_inverse=True)[1]
    together = (labels[:, None] == labels[None]).astype(float)
    common: Array = shares @ together @ shares.T
    return (1 - run_share) * own + run_share * common


def _binomial(points: Points, place: np.ndarray, images: int | None) -> Array:
    """The variance of each log error from the number of images, by the mean error at its size; (n,)."""
    if images is None:
        return np.zeros(len(points.y))
    mean = (np.bincount(place, points.y) / np.maximum(np.bincount(place), 1))[place]
    error = np.where(points.y < 1 / images, points.y, mean)  # none wrong: its own, which is far more uncertain
    variance: Array = (1 - np.minimum(error, 1)) / (error * images)
    return variance


def _own_factors(squares: Array, freedoms: Array) -> Array:
    """Of each arm the variance of its noise beside the pooled one, drawn to 1 where it has few repeats."""
    pooled = max(squares.sum() / max(freedoms.sum(), 1), LEAST_NOISE**2)
    factors: Array = (squares / pooled + PRIOR_FREEDOM) / (freedoms + PRIOR_FREEDOM)
    return factors


def alone(summary: Summary, arm: int) -> Seen:
    """One curve of a group as it stands for itself."""
    here = summary.present[arm]
    u, z = summary.u[here], summary.z[arm, here]
    return Seen(u, z, summary.noise[arm][np.ix_(here, here)], np.diag(summary.known[arm, here]), summary.log_noise(),
                crude_slope(u, z))  # fmt: skip


def crude_slope(u: Array, z: Array) -> float:
    """The size of the slope that deviations from a form are measured in: of a line that favours the last sizes, and at
    least half of the mean slope, so that one noisy step does not make the curve look flat."""
    if len(u) < 2:
        return 0.1
    root = np.exp(u / 2)
    line = np.linalg.lstsq(np.stack([root, root * u], axis=1), root * z, rcond=None)[0]
    return float(max(abs(line[1]), abs(z[-1] - z[0]) / (u[-1] - u[0]) / 2, 1e-4))


def shared_by_run(curves: Sequence[Points]) -> float:
    """The share of the noise that stays with a run (its network) at all sizes, by the mean squares of two-way tables of
    label and size, pooled over curves and drawn towards 0 where there are few labels. Where no table has two labels at
    two sizes the share is taken for a half: points of a run are known not to be independent, and nothing says how
    much."""
    squares = (
        np.array([_mean_squares(each) for each in curves if each.instances is not None]).reshape(-1, 4).sum(axis=0)
    )
    between, within, freedom, rest = squares
    if not freedom:
        return 0.5
    own, sizes = within / rest, rest / freedom + 1
    effect = max((between / freedom - own) / sizes, 0.0)
    return float(effect / max(effect + own, 1e-300) * freedom / (freedom + PRIOR_LABELS))


def _mean_squares(points: Points) -> tuple[float, float, int, int]:
    """Sums of squares between labels and within, and their degrees of freedom, over the sizes that have all labels."""
    sizes = np.unique(points.x, return_inverse=True)[1]
    labels = np.unique(np.array(points.instances), return_inverse=True)[1]
    sums, counts = (np.zeros((sizes.max() + 1, labels.max() + 1)) for _ in range(2))
    np.add.at(sums, (sizes, labels), np.log(points.y))
    np.add.at(counts, (sizes, labels), 1)
    table = (sums / np.where(counts > 0, counts, np.nan))[(counts > 0).all(axis=1)]
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0, 0.0, 0, 0
    rest = table - table.mean(axis=1, keepdims=True)
    effect = rest.mean(axis=0)
    within = float(((rest - effect) ** 2).sum())
    return rows * float(effect @ effect), within, columns - 1, (rows - 1) * (columns - 1)
