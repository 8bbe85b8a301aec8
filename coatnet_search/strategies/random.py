"""Candidates at random: the baseline that every other strategy must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.record.trial import Trial
from coatnet_search.strategies.legal_candidates import draw
from coatnet_search.strategies.problem import Problem, Suggestion, look_back


@dataclass(frozen=True, kw_only=True)
class Random:
    """Combinations of choices drawn evenly, of which the legal and new ones are kept."""

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        taken = {seen.known.key for seen in look_back(problem, history)}
        return [Suggestion(known.candidate) for known in draw(problem, rng, count, taken)]
