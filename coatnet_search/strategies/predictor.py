"""The default strategy: an ensemble of surrogates, exact costs known, batches of the largest expected gain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.model_search import LEAST_DONE, suggest
from coatnet_search.strategies.problem import Problem, Suggestion
from coatnet_search.strategies.surrogate import MODELS


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Ridge regression, randomised trees and a Gaussian process, weighted by how well they rank trials left out.

    ``startup``: trials that are spread over costs and layouts before models choose.
    """

    startup: int = 8

    def __post_init__(self) -> None:
        if self.startup < LEAST_DONE:
            raise InputError(f"startup: expected at least {LEAST_DONE}, got {self.startup}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        return suggest(problem, history, rng, count, startup=self.startup, models=MODELS)
