"""Bayesian optimisation with a Gaussian process, and exact costs known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.model_search import LEAST_DONE, suggest
from coatnet_search.strategies.problem import Problem, Suggestion


@dataclass(frozen=True, kw_only=True)
class GP:
    """The ``predictor`` strategy with a Gaussian process as its only model.

    ``startup``: trials that are spread over costs and layouts before models choose.
    """

    startup: int = 8

    def __post_init__(self) -> None:
        if self.startup < LEAST_DONE:
            raise InputError(f"startup: expected at least {LEAST_DONE}, got {self.startup}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        return suggest(problem, history, rng, count, startup=self.startup, models=("process",))
