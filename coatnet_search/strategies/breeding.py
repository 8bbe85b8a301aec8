"""Parents -> children: who survives by rank and crowding distance; crossover and mutation inside the choices."""

from collections.abc import Collection, Sequence

import moocore
import numpy as np

from coatnet_search.strategies.features import Array
from coatnet_search.strategies.legal_candidates import neighbour
from coatnet_search.strategies.problem import Key, Known, Problem, Row, Seen

_TRIES = 5  # per wanted child: repeats and illegal children are frequent late in a search
_CROSSED = 0.7  # share of children with two parents


def child(problem: Problem, one: Row, other: Row, rng: np.random.Generator) -> Row:
    """Each dimension from either parent, then at least one dimension changed unless the parents already differed."""
    mixed = one
    if rng.random() < _CROSSED:
        mixed = tuple(a if first else b for a, b, first in zip(one, other, rng.random(len(one)) < 0.5, strict=True))
    changes = int(rng.integers(0 if mixed not in (one, other) else 1, 3))
    for _ in range(changes):
        mixed = neighbour(problem, mixed, rng)
    return mixed


def breed(
    problem: Problem, parents: Sequence[Known], rng: np.random.Generator, count: int, taken: Collection[Key]
) -> list[Known]:
    """Up to ``count`` different legal children outside ``taken``; fewer where crossing and changing finds no more."""
    found: dict[Key, Known] = {}
    for _ in range(_TRIES * count):
        if len(found) >= count:
            break
        one, other = (parents[int(place)].row for place in rng.integers(len(parents), size=2))
        known = problem.look(child(problem, one, other, rng))
        if known.legal and known.key not in taken:
            found.setdefault(known.key, known)
    return list(found.values())


def survivors(done: Sequence[Seen], population: int) -> list[Seen]:
    """Trials inside the measured limits first, then by rank, then by the room that they have on their front."""
    losses = np.array([seen.losses for seen in done])
    over = np.array([sum(seen.excess.values()) for seen in done])
    rank = np.asarray(moocore.pareto_rank(losses))
    room = np.zeros(len(done))
    for level in np.unique(rank):
        room[rank == level] = crowding(losses[rank == level])
    return [done[place] for place in np.lexsort([-room, rank, over])[:population]]


def crowding(losses: Array) -> Array:
    """(rows,): how far the neighbours of each row are along every objective; infinite at the ends (Deb et al. 2002)."""
    found = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = float(np.ptp(column))
        found[order[[0, -1]]] = np.inf
        if span > 0:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return found
