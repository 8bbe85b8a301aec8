"""Every candidate once, in an order that covers the space evenly from the start."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.record.trial import Trial
from coatnet_search.strategies.legal_candidates import LOOKS
from coatnet_search.strategies.problem import Key, Problem, Row, Suggestion, look_back

_GOLDEN = (math.sqrt(5) - 1) / 2  # steps of this share of a circle leave the most even gaps at every number of steps


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The whole space without repeats; which candidate comes next does not depend on chance.

    In plain order, a search that ends early would have varied the last dimensions only. Steps of the golden section of
    the number of combinations reach each combination once, and any first few of them lie far apart.
    """

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        taken = {seen.known.key for seen in look_back(problem, history)}
        chosen: dict[Key, Suggestion] = {}
        barren = 0  # combinations in a row that are not legal
        for row in _rows(problem):
            if len(chosen) >= count or barren >= LOOKS:
                break
            known = problem.look(row)
            barren = 0 if known.legal else barren + 1
            if known.legal and known.key not in taken:
                chosen.setdefault(known.key, Suggestion(known.candidate))
        return list(chosen.values())


def _rows(problem: Problem) -> Iterator[Row]:
    stride = max(1, round(problem.size * _GOLDEN))
    while math.gcd(stride, problem.size) != 1:
        stride += 1
    for step in range(problem.size):
        row, rest = [], step * stride % problem.size
        for size in problem.sizes:
            rest, place = divmod(rest, size)
            row.append(place)
        yield tuple(row)
