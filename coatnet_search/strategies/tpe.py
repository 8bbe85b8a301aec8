"""Optuna's tree-structured Parzen estimator, with the settings that this kind of search needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.samplers import TPESampler

from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.optuna_study import Asked, effective, quiet
from coatnet_search.strategies.problem import Problem, Suggestion, look_back


@dataclass(frozen=True, kw_only=True)
class TPE:
    """Densities of good and of other candidates over all dimensions together, in groups that occur together.

    Optuna's default looks at each dimension alone where there are several objectives, and then repeats itself.
    ``startup``: finished trials before which candidates are drawn at random.
    """

    startup: int = 10

    def __post_init__(self) -> None:
        if self.startup < 1:
            raise InputError(f"startup: expected at least 1, got {self.startup}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        with quiet():
            sampler = TPESampler(
                n_startup_trials=self.startup, multivariate=True, group=True, seed=int(rng.integers(2**31))
            )
            asked = Asked(problem, look_back(problem, history), sampler, params=effective)
            return [Suggestion(known.candidate) for known in asked.take(rng, count)]
