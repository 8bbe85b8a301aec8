"""Evolution: children of the best trials so far, chosen where their known costs fill the widest gaps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.breeding import breed, survivors
from coatnet_search.strategies.legal_candidates import draw
from coatnet_search.strategies.problem import Known, Problem, Suggestion, look_back

_CHILDREN = 12  # that are bred for each one taken


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """Parents are the ``population`` best trials, by non-dominated rank and then by spacing (as in NSGA-II), among the
    ``memory`` latest (as in regularised evolution, so that a lucky run does not breed for ever).

    Of many legal children those are taken whose exact costs lie furthest from the parents' and from each other, which
    costs nothing to know. The first ``population`` trials are drawn at random.
    """

    population: int = 20
    memory: int = 200

    def __post_init__(self) -> None:
        if self.population < 2:
            raise InputError(f"population: expected at least 2, got {self.population}")
        if self.memory < self.population:
            raise InputError(f"memory: expected at least the population ({self.population}), got {self.memory}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        past = look_back(problem, history)
        taken = {seen.known.key for seen in past}
        done = [seen for seen in past if seen.state == "done"]
        chosen: list[Known] = []
        if len(done) >= self.population:
            parents = survivors(done[-self.memory :], self.population)
            children = breed(problem, [seen.known for seen in parents], rng, _CHILDREN * count, taken)
            running = [seen.known for seen in past if seen.state == "running"]
            chosen = _apart(problem, children, [*(seen.known for seen in parents), *running], count)
        chosen += draw(problem, rng, count - len(chosen), taken | {known.key for known in chosen})
        return [Suggestion(known.candidate) for known in chosen]


def _apart(problem: Problem, children: Sequence[Known], others: Sequence[Known], count: int) -> list[Known]:
    """Children one by one, each furthest in known objectives from those before it and ``others``."""
    names = [name for name in problem.objectives if children and name in children[0].exact]
    if not names:
        return list(children[:count])
    values = np.array([[known.exact[name] for name in names] for known in [*children, *others]])
    values = np.argsort(np.argsort(values, axis=0), axis=0) / len(values)  # ranks: even over any spread of costs
    own, away = values[: len(children)], np.full(len(children), np.inf)
    for row in values[len(children) :]:
        away = np.minimum(away, np.abs(own - row).sum(axis=1))
    chosen = []
    for _ in range(min(count, len(children))):
        best = int(away.argmax())
        chosen.append(children[best])
        away = np.minimum(away, np.abs(own - own[best]).sum(axis=1))
        away[best] = -1.0
    return chosen
