"""NSGA-II in its steady-state form: parents are the best trials so far by rank and crowding distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.breeding import breed, survivors
from coatnet_search.strategies.legal_candidates import draw
from coatnet_search.strategies.problem import Known, Problem, Suggestion, look_back


@dataclass(frozen=True, kw_only=True)
class NSGA2:
    """Parents are the ``population`` best trials (Deb et al. 2002), anew for each batch, as trials end one by one,
    not in generations (Durillo et al. 2009). The first ``population`` trials are drawn at random. Unlike
    ``evolution`` it does not look at what children are known to cost, and forgets no trial: the textbook baseline.
    """

    population: int = 20

    def __post_init__(self) -> None:
        if self.population < 2:
            raise InputError(f"population: expected at least 2, got {self.population}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        past = look_back(problem, history)
        taken = {seen.known.key for seen in past}
        done = [seen for seen in past if seen.state == "done"]
        children: list[Known] = []
        if len(done) >= self.population:
            parents = [seen.known for seen in survivors(done, self.population)]
            children = breed(problem, parents, rng, count, taken)
        children += draw(problem, rng, count - len(children), taken | {known.key for known in children})
        return [Suggestion(known.candidate) for known in children]
