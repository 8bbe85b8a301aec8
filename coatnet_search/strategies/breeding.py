"""Children of candidates: crossover and mutation that stay inside the choices."""

from collections.abc import Collection, Sequence

import numpy as np

from coatnet_search.strategies.legal_candidates import neighbour
from coatnet_search.strategies.problem import Key, Known, Problem, Row

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
