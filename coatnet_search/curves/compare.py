"""Answers that compare curves, all from the same samples of ``Fits.predict``: shape (draws, curves, points).

Every function takes the samples and answers at all points (target sizes) at once, so that the probabilities of one
report cannot disagree. An error is better when it is smaller.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.curves.form import Array


def probability_better(samples: Array, a: int, b: int) -> Array:
    """P(curve a has the smaller error than curve b) at each point, (points,); a draw that is equal counts half."""
    left, right = samples[:, a], samples[:, b]
    chance: Array = (left < right).mean(axis=0) + (left == right).mean(axis=0) / 2
    return chance


def probability_best(samples: Array) -> Array:
    """P(curve has the smallest error of all), (curves, points)."""
    best = samples.argmin(axis=1)  # (draws, points)
    chance: Array = (best[:, None] == np.arange(samples.shape[1])[:, None]).mean(axis=0)
    return chance


def expected_regret(samples: Array) -> Array:
    """What choosing a curve costs on average: its error less the smallest, in units of error, (curves, points)."""
    regret: Array = (samples - samples.min(axis=1, keepdims=True)).mean(axis=0)
    return regret


@dataclass(frozen=True)
class Sizes:
    """A distribution over sizes with room for "not in the range": ``sizes`` (draws,), NaN where there is none;
    ``not_in_range`` its probability; for crossovers ``always_a`` and ``always_b`` say which curve is better then."""

    sizes: Array
    low: float
    high: float
    always_a: float = 0.0
    always_b: float = 0.0

    @property
    def not_in_range(self) -> float:
        return float(np.isnan(self.sizes).mean())

    def quantile(self, level: float) -> float | None:
        """The size at this level of the whole distribution, where "not in the range" counts as larger than any size;
        None where that is the answer."""
        ordered = np.sort(np.where(np.isnan(self.sizes), np.inf, self.sizes))
        value = float(ordered[min(int(level * len(ordered)), len(ordered) - 1)])
        return value if np.isfinite(value) else None

    def density(self, bins: int = 40) -> tuple[Array, Array]:
        """Edges (bins + 1,), even in the log over the range, and the probability of each bin (bins,)."""
        edges = np.geomspace(self.low, self.high, bins + 1)
        counts = np.histogram(self.sizes[~np.isnan(self.sizes)], bins=edges)[0]
        return edges, counts / len(self.sizes)


def crossover(samples: Array, x: ArrayLike, a: int, b: int) -> Sizes:
    """Where the order of two curves changes for the last time within x (ascending, the points of the samples)."""
    sizes = _ascending(x, samples)
    gap = np.log(samples[:, a]) - np.log(samples[:, b])  # (draws, points)
    changed = np.sign(gap[:, 1:]) * np.sign(gap[:, :-1]) < 0
    never = ~changed.any(axis=1)
    last = changed.shape[1] - 1 - changed[:, ::-1].argmax(axis=1)
    found = np.where(never, np.nan, _between(sizes, gap, np.minimum(last, len(sizes) - 2)))
    always_a = float((never & (gap[:, -1] < 0)).mean())
    return Sizes(found, float(sizes[0]), float(sizes[-1]), always_a, float(never.mean()) - always_a)


def data_needed(samples: Array, x: ArrayLike, curve: int, target_error: float) -> Sizes:
    """The smallest size within x (ascending) from which the curve is at the target error or below."""
    if not (np.isfinite(target_error) and target_error > 0):
        raise InputError(f"target error: expected a positive number, got {target_error!r}")
    sizes = _ascending(x, samples)
    gap = np.log(samples[:, curve]) - np.log(target_error)
    above = gap > 0
    last = above.shape[1] - 1 - above[:, ::-1].argmax(axis=1)  # the last point above the target
    found = _between(sizes, gap, np.minimum(last, len(sizes) - 2))
    found = np.where(above.any(axis=1), found, sizes[0])
    return Sizes(np.where(above[:, -1], np.nan, found), float(sizes[0]), float(sizes[-1]))


def _ascending(x: ArrayLike, samples: Array) -> Array:
    sizes = np.asarray(x, dtype=float)
    if len(sizes) != samples.shape[2] or len(sizes) < 2 or not (np.diff(sizes) > 0).all():
        raise InputError("sizes: expected at least two, ascending, those of the samples")
    return sizes


def _between(sizes: Array, gap: Array, left: NDArray[np.intp]) -> Array:
    """Where a line in log x through the gap at left and at its right neighbour is zero, (draws,)."""
    draw = np.arange(len(gap))
    low, high = gap[draw, left], gap[draw, left + 1]
    share = np.divide(low, low - high, out=np.full(len(gap), 0.5), where=low != high)
    log_x = np.log(sizes)
    zero: Array = np.exp(log_x[left] + np.clip(share, 0.0, 1.0) * (log_x[left + 1] - log_x[left]))
    return zero
