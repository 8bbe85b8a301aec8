"""Draws, enumerates or walks to legal candidates that no trial has."""

import heapq
import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from coatnet_search.strategies.problem import Key, Known, Problem, Row

ENUMERABLE = 20_000  # combinations; about a second of looking
LOOKS = 10_000  # random combinations that are looked at before a draw is given up
_AT_ONCE = 16  # rows that are drawn in one call, which takes as long as one
_WALKS, _STEPS = 16, 150  # searches from the least violations, and combinations that each looks at
_STARTS, _DOWN = 3, 150  # searches from the most extreme, and changes that each tries


def every(problem: Problem) -> list[Known]:
    """Every legal candidate once, in the order of the choices. Only for a size of at most ENUMERABLE."""
    assert problem.size <= ENUMERABLE
    found: dict[Key, Known] = {}
    for row in itertools.product(*map(range, problem.sizes)):
        known = problem.look(row)
        if known.legal:
            found.setdefault(known.key, known)
    return list(found.values())


def random_rows(problem: Problem, rng: np.random.Generator, count: int) -> Iterator[Row]:
    for begin in range(0, count, _AT_ONCE):
        rows = rng.integers(0, problem.sizes, size=(min(_AT_ONCE, count - begin), len(problem.sizes)))
        yield from map(tuple, rows.tolist())


def neighbour(problem: Problem, row: Row, rng: np.random.Generator) -> Row:
    """The row with one dimension, that has several choices, changed."""
    movable = [place for place, size in enumerate(problem.sizes) if size > 1]
    if not movable:
        return row
    place = movable[int(rng.integers(len(movable)))]
    shift = int(rng.integers(1, problem.sizes[place]))
    return (*row[:place], (row[place] + shift) % problem.sizes[place], *row[place + 1 :])


def draw(problem: Problem, rng: np.random.Generator, count: int, taken: Collection[Key]) -> list[Known]:
    """Up to ``count`` different legal candidates outside ``taken``, at random; fewer where no more are found.

    Combinations are drawn until enough are legal. Where that fails a small space is enumerated, so that none is
    missed; in a large one, searches walk from the drawn combinations towards the limits.
    """
    found: dict[Key, Known] = {}
    if count <= 0:
        return []
    near: list[tuple[float, int, Row]] = []
    looks = min(LOOKS, 20 * count + 4 * problem.size) if problem.size <= ENUMERABLE else LOOKS
    for turn, row in enumerate(random_rows(problem, rng, looks)):
        known = problem.look(row)
        if known.legal and known.key not in taken:
            found.setdefault(known.key, known)
            if len(found) == count:
                return list(found.values())
        elif 0 < known.violation < np.inf:
            near.append((known.violation, turn, known.row))
    more = _rest(problem, rng) if problem.size <= ENUMERABLE else _walked(problem, rng, near)
    for known in more:
        if len(found) == count:
            break
        if known.key not in taken:
            found.setdefault(known.key, known)
    return list(found.values())


def _rest(problem: Problem, rng: np.random.Generator) -> list[Known]:
    legal = every(problem)
    return [legal[place] for place in rng.permutation(len(legal))]


def _walked(problem: Problem, rng: np.random.Generator, near: list[tuple[float, int, Row]]) -> Iterator[Known]:
    """Legal candidates on walks that never go further from the limits, from the combinations nearest to them."""
    for violation, _, row in heapq.nsmallest(_WALKS, near):
        for _ in range(_STEPS):
            known = problem.look(neighbour(problem, row, rng))
            if known.violation <= violation:
                violation, row = known.violation, known.row
                if known.legal:
                    yield known


def towards_extremes(problem: Problem, sample: Sequence[Known], rng: np.random.Generator) -> list[Known]:
    """Legal candidates on searches from ``sample`` to the least and to the most of each exact objective.

    Random candidates of a space crowd at some cost, often at a limit; these reach its ends and lie between.
    """
    found = []
    for name in problem.objectives:
        for sign in (1.0, -1.0):
            known = sorted((one for one in sample if name in one.exact), key=lambda one: sign * one.exact[name])
            for start in known[:_STARTS]:
                found += _downhill(problem, start, name, sign, rng)
    return found


def _downhill(problem: Problem, start: Known, name: str, sign: float, rng: np.random.Generator) -> list[Known]:
    path = [start]
    for _ in range(_DOWN):
        known = problem.look(neighbour(problem, path[-1].row, rng))
        if known.legal and sign * known.exact[name] < sign * path[-1].exact[name]:
            path.append(known)
    return path
