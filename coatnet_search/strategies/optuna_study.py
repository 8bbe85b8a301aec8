"""An Optuna study made of the history, asked for candidates. What every strategy that uses Optuna shares."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from coatnet_search.strategies.features import rising
from coatnet_search.strategies.legal_candidates import draw
from coatnet_search.strategies.problem import Key, Known, Problem, Seen

ASKS = (
    30  # times that Optuna, which repeats itself once it has converged, is asked before a candidate is drawn at random
)
_STATES = {
    "done": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "running": TrialState.RUNNING,
    "failed": TrialState.FAIL,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its notes on new studies and experimental options, here only."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna(\..*)?")
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _place(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> int:
    if isinstance(distribution, IntDistribution):
        return int(trial.suggest_int(name, distribution.low, distribution.high))
    return int(trial.suggest_categorical(name, distribution.choices))


def distributions(problem: Problem) -> dict[str, BaseDistribution]:
    """Each dimension as the position of its value: in order where values are rising numbers, otherwise unordered."""
    return {name: _distribution(values) for name, values in problem.choices.items()}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if rising(values):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(tuple(range(len(values))))


def effective(problem: Problem, known: Known) -> dict[str, int]:
    """The dimensions that matter to this candidate: those where ``canonical`` lets another value stand."""
    kept = {}
    for name, place, size in zip(problem.names, known.row, problem.sizes, strict=True):
        other = problem.choices[name][(place + 1) % size]
        if size == 1 or frozenset(problem.canonical({**known.candidate, name: other}).items()) != known.key:
            kept[name] = place
    return kept


class Asked:
    """One rebuilt study, from which ``count`` candidates are taken."""

    def __init__(
        self,
        problem: Problem,
        past: Sequence[Seen],
        sampler: optuna.samplers.BaseSampler,
        *,
        params: Callable[[Problem, Known], dict[str, int]] = lambda problem, known: dict(
            zip(problem.names, known.row, strict=True)
        ),
    ) -> None:
        self.problem, self.past, self.params = problem, past, params
        self.dimensions = distributions(problem)
        self.study = optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=sampler)
        self.study.add_trials([self._frozen(seen) for seen in past])

    def _frozen(self, seen: Seen) -> optuna.trial.FrozenTrial:
        places = self.params(self.problem, seen.known)
        places = {name: place for name, place in places.items() if place < len(self.problem.choices[name])}
        return optuna.trial.create_trial(
            state=_STATES[seen.state],
            values=list(seen.losses) if seen.state == "done" else None,
            params=places,
            distributions={name: self.dimensions[name] for name in places},
            constraints=dict(seen.excess) if seen.state == "done" else None,
        )

    def take(self, rng: np.random.Generator, count: int) -> list[Known]:
        """Up to ``count`` new legal candidates."""
        taken = {seen.known.key for seen in self.past}
        chosen: list[Known] = []
        while len(chosen) < count:
            known = self._ask_again(taken)
            if known is None:
                known = next(iter(draw(self.problem, rng, 1, taken)), None)
            if known is None:
                break
            taken.add(known.key)
            chosen.append(known)
        return chosen

    def _ask_again(self, taken: set[Key]) -> Known | None:
        asked = (self._ask(taken) for _ in range(ASKS))
        return next((known for known in asked if known is not None), None)

    def _ask(self, taken: set[Key]) -> Known | None:
        """One candidate, which stays running in the study; None where Optuna's has been seen or is not legal."""
        trial = self.study.ask()
        row = [_place(trial, name, distribution) for name, distribution in self.dimensions.items()]
        known = self.problem.look(row)
        if known.legal and known.key not in taken:
            return known
        for name, value in self.problem.excess(known.exact).items():
            trial.set_constraint(name, value)
        self.study.tell(trial, state=TrialState.FAIL if known.legal else TrialState.PRUNED)
        return None
