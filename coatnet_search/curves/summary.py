"""A curve as the predictive distribution sees it: log errors by distinct size, u = log(x / last x), with repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.curves.form import Array
from coatnet_search.curves.points import Points

MOST_SIZES = 48  # beyond this many, neighbours in log x are averaged: they tell no more about the shape
PRIOR_LABELS = 4.0  # labels of which the estimate of their share is worth a half


@dataclass(frozen=True)
class Curve:
    """What was measured of one thing (a layout, an instance, a size): errors at x, ``runs`` one label a point; equal
    labels share their seed and data draw, within a curve and across the curves of a fit. ``group`` names curves that
    shrink towards each other and err together; None is a group too."""

    name: str
    x: ArrayLike
    error: ArrayLike
    runs: Sequence[object] | None = None
    group: str | None = None


@dataclass(frozen=True)
class Summary:
    """Of m sizes: ``u`` (m,) ascending to 0, ``z`` mean log error (m,), ``noise`` (m, m) covariance of z in units of
    the noise variance, ``slope`` a crude size of d z / d u, repeats' squares and their degrees of freedom."""

    curve: Curve
    points: Points
    x_last: float
    u: Array
    z: Array
    noise: Array
    slope: float
    square: float
    freedom: int


def summarise(curve: Curve, points: Points, run_share: float, explained: Array) -> Summary:
    """``run_share`` is the share of the noise variance that belongs to the run's label at all sizes; ``explained`` (n,)
    is taken off the log errors."""
    x_last = float(points.x[-1])
    log_x, z = np.log(points.x / x_last), np.log(points.y) - explained
    place = np.unique(log_x, return_inverse=True)[1]
    means = np.bincount(place, z) / np.bincount(place)
    square, freedom = float(((z - means[place]) ** 2).sum()), len(z) - len(means)
    if len(means) > MOST_SIZES:
        width = -log_x[0] / MOST_SIZES
        place = np.unique(np.floor(log_x / width + 1e-9), return_inverse=True)[1]
    shares = (place[None] == np.arange(place.max() + 1)[:, None]).astype(float)  # (m, n)
    shares /= shares.sum(axis=1, keepdims=True)
    u, z = shares @ log_x, shares @ z
    return Summary(curve, points, x_last, u, z, _noise(points, shares, run_share), crude_slope(u, z), square, freedom)


def _noise(points: Points, shares: Array, run_share: float) -> Array:
    own = shares @ shares.T
    if points.runs is None:
        return own
    labels = np.unique(points.runs, return_inverse=True)[1]
    together = (labels[:, None] == labels[None]).astype(float)
    common: Array = shares @ together @ shares.T
    return (1 - run_share) * own + run_share * common


def crude_slope(u: Array, z: Array) -> float:
    """The size of the slope that deviations from a form are measured in: of a line that favours the last sizes, and at
    least half of the mean slope, so that one noisy step does not make the curve look flat."""
    if len(u) < 2:
        return 0.1
    root = np.exp(u / 2)
    line = np.linalg.lstsq(np.stack([root, root * u], axis=1), root * z, rcond=None)[0]
    return float(max(abs(line[1]), abs(z[-1] - z[0]) / (u[-1] - u[0]) / 2, 1e-4))


def run_share(curves: Sequence[Points]) -> float:
    """The share of the noise that stays with a run label at all sizes, by the mean squares of two-way tables of label
    and size, pooled over curves and drawn towards 0 where there are few labels. Where no table has two labels at two
    sizes the share is taken for a half: points of a run are known not to be independent, and nothing says how much."""
    squares = (
        np.array([_mean_squares(points) for points in curves if points.runs is not None]).reshape(-1, 4).sum(axis=0)
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
    labels = np.unique(np.array(points.runs), return_inverse=True)[1]
    table = np.full((sizes.max() + 1, labels.max() + 1), np.nan)
    table[sizes, labels] = np.log(points.y)
    table = table[np.isfinite(table).all(axis=1)]
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0, 0.0, 0, 0
    rest = table - table.mean(axis=1, keepdims=True)
    effect = rest.mean(axis=0)
    within = float(((rest - effect) ** 2).sum())
    return rows * float(effect @ effect), within, columns - 1, (rows - 1) * (columns - 1)
