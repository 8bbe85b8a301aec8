"""Acquisition: picks the batch with the largest expected gain of hypervolume, exact objectives included."""

import moocore
import numpy as np
from scipy.special import ndtr

from coatnet_search.strategies.features import Array

_POINTS = 1500  # of objective space that gains are averaged over
_DRAWS = 60_000  # to find that many in what is a thin points_to_gain late in a search


def dominated(points: Array, front: Array) -> Array:
    """(points,): whether some row of ``front`` is at most the point in every objective."""
    found = np.zeros(len(points), bool)
    for row in front:
        found |= (row <= points).all(axis=1)
    return found


def nondominated(losses: Array) -> Array:
    """The rows that no other row dominates, each once."""
    return np.asarray(losses[moocore.is_nondominated(losses)]) if len(losses) else losses


def points_to_gain(front: Array, optimistic: Array, reference: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Points between what is reached (``front``) and what may be reached (``optimistic``), (points, objectives); and
    the share of the box from the ideal to ``reference`` that they stand for."""
    ideal = np.minimum(optimistic.min(axis=0), front.min(axis=0, initial=np.inf))
    points = ideal + (reference - ideal) * rng.random((_DRAWS, len(reference)))
    points = points[~dominated(points, front)]
    inside = points[dominated(points, nondominated(optimistic))]
    return np.asarray(inside[:_POINTS]), len(inside) / _DRAWS


def chance_to_dominate(mean: Array, std: Array, points: Array) -> Array:
    """(candidates, points): the probability that a candidate is at least as good as the point in every objective."""
    found = np.ones((len(mean), len(points)))
    for column in range(mean.shape[1]):
        gap = points[:, column] - mean[:, column, None]
        known = std[:, column] == 0
        found[known] *= gap[known] >= 0
        found[~known] *= ndtr(gap[~known] / std[~known, column, None])
    return found


def best_batch(chances: Array, taken: Array, count: int) -> list[tuple[int, float]]:
    """Up to ``count`` candidates, each the one that adds most to those before it, with the share of points it adds.

    ``chances``: see ``chance_to_dominate``; ``taken`` (points,): the probability that a point is reached already.
    """
    left = 1.0 - taken
    chosen: list[tuple[int, float]] = []
    for _ in range(min(count, len(chances))):
        gains = chances @ left
        gains[[place for place, _ in chosen]] = -1.0
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        chosen.append((best, float(gains[best]) / len(left)))
        left = left * (1.0 - chances[best])
    return chosen
