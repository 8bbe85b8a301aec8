"""Picks the first candidates of a search, before a model can be fitted: extremes, then an even spread of costs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from coatnet_search.strategies.features import Array, Features
from coatnet_search.strategies.problem import Known, Problem

_STRATA = 16
_MOST_LAYOUTS = 32  # beyond that many combinations of named choices, they are dimensions like any other


def spread(problem: Problem, pool: Sequence[Known], tried: Sequence[Known], count: int,
           rng: np.random.Generator) -> list[Known]:  # fmt: skip
    """Up to ``count`` of ``pool``, given what has been tried.

    First the extremes of each exact objective that nothing tried reaches; then, near costs that are spread evenly over
    the range of the first such objective (by its logarithm where it spans much), a candidate of a layout (the choices
    that are names, such as block types) that has been taken least, as far as possible from all others.
    """
    if not pool or count <= 0:
        return []
    names = [name for name in problem.objectives if name in pool[0].exact]
    costs = np.array([[one.exact[name] for name in names] for one in pool]).reshape(len(pool), len(names))
    level = _level(costs[:, 0]) if names else rng.random(len(pool))
    chosen = _Chosen(problem, pool, tried)
    for place in _extremes(costs, names, tried)[:count]:
        chosen.add(place)
    while len(chosen.places) < min(count, len(pool)):
        chosen.add(chosen.best(_stratum(level, _halves(len(tried) + len(chosen.places))), rng))
    return [pool[place] for place in chosen.places]


class _Chosen:
    """What of the pool is chosen, how far the rest is from it and from what was tried, and the layouts' counts."""

    def __init__(self, problem: Problem, pool: Sequence[Known], tried: Sequence[Known]) -> None:
        features = Features(problem, [*pool, *tried])
        self.places: list[int] = []
        self.coordinates = features.spatial(pool)[0]
        self.away = np.full(len(pool), np.inf)
        for row in features.spatial(tried)[0]:
            self._nearer(row)
        named = [name for name, values in problem.choices.items() if any(isinstance(value, str) for value in values)]
        layouts = [tuple(known.candidate.get(name) for name in named) for known in pool]
        self.layouts: list[Any] = layouts if len(set(layouts)) <= _MOST_LAYOUTS else [()] * len(pool)
        self.counts = Counter(tuple(known.candidate.get(name) for name in named) for known in tried)

    def _nearer(self, row: Array) -> None:
        self.away = np.minimum(self.away, ((self.coordinates - row) ** 2).sum(axis=1))

    def add(self, place: int) -> None:
        if place not in self.places:
            self.places.append(place)
            self.counts[self.layouts[place]] += 1
            self._nearer(self.coordinates[place])
            self.away[place] = -1.0

    def best(self, places: Array, rng: np.random.Generator) -> int:
        """Of these, or of all where these are used up."""
        free = places[self.away[places] >= 0]
        if not len(free):
            free = np.flatnonzero(self.away >= 0)
        counts = np.array([self.counts[self.layouts[place]] for place in free])
        free = free[counts == counts.min()]
        furthest = free[self.away[free] >= self.away[free].max() - 1e-9]
        return int(furthest[rng.integers(len(furthest))])


def _extremes(costs: Array, names: Sequence[str], tried: Sequence[Known]) -> list[int]:
    found = []
    for column, name in zip(costs.T, names, strict=True):
        done = [one.exact[name] for one in tried if name in one.exact]
        if not done or column.min() < min(done):
            found.append(int(column.argmin()))
        if not done or column.max() > max(done):
            found.append(int(column.argmax()))
    return list(dict.fromkeys(found))


def _halves(place: int) -> float:
    """The van der Corput sequence 0, 1/2, 1/4, 3/4, 1/8, ...: any first few of it are spread evenly over [0, 1)."""
    found, share = 0.0, 0.5
    while place:
        place, bit = divmod(place, 2)
        found, share = found + bit * share, share / 2
    return found


def _level(costs: Array) -> Array:
    """Costs as shares of their range."""
    if costs.min() > 0 and costs.max() > 3 * costs.min():
        costs = np.log(costs)
    return np.asarray((costs - costs.min()) / (np.ptp(costs) or 1.0))


def _stratum(level: Array, at: float) -> Array:
    """The part of the pool whose costs are nearest to this share of their range."""
    return np.argsort(np.abs(level - at), kind="stable")[: -(-len(level) // _STRATA)]
