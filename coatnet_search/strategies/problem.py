"""What a strategy is asked: choices, objectives, exact costs, limits; and trials as it sees them. No torch."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from coatnet_search.architecture.arch import Candidate
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError
from coatnet_search.core.limits import Limit, limit_pair
from coatnet_search.core.quantities import sense_of, sign
from coatnet_search.record.trial import Trial

Direction = Literal["min", "max"]
Row = tuple[int, ...]  # a candidate as the position of each value among its dimension's choices
Key = frozenset[tuple[str, Scalar]]
_REMEMBERED = 100_000  # candidates whose legality is kept; a candidate takes about 1 KB


class Suggestion(dict[str, Scalar]):
    """A canonical candidate; ``attributes`` (plain JSON) is what its strategy wants to find in ``Trial.attributes``."""

    def __init__(self, candidate: Candidate, attributes: Mapping[str, Any] | None = None) -> None:
        super().__init__(candidate)
        self.attributes: dict[str, Any] = dict(attributes or {})


@dataclass(frozen=True, slots=True)
class Known:
    """A canonical candidate with what is known of it before any trial.

    ``violation`` is 0 where it may be tried, infinite where it cannot be built, and otherwise the sum, over exact
    metrics outside their limits, of the distance to the limit relative to the limit.
    """

    candidate: Candidate
    key: Key
    row: Row
    exact: Mapping[str, float]
    violation: float

    @property
    def legal(self) -> bool:
        return self.violation == 0


@dataclass(frozen=True, eq=False)
class Problem:
    """What is searched. ``canonical`` returns a candidate with the same dimensions; ``problems`` takes a canonical one.

    ``exact`` returns the metrics that are known of any legal candidate without a trial. A number in ``limits`` bounds
    a metric from above, or from below where more is better; a pair is [low, high], either of which may be None.
    Raises InputError for a dimension without values and an objective without a direction.
    """

    choices: Mapping[str, Sequence[Scalar]]
    objectives: Mapping[str, Direction]
    exact: Callable[[Candidate], Mapping[str, float]] = lambda candidate: {}
    problems: Callable[[Candidate], Sequence[str]] = lambda candidate: []
    canonical: Callable[[Candidate], Candidate] = lambda candidate: candidate
    limits: Mapping[str, Limit] = field(default_factory=dict)
    _memo: dict[Row, Known] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, values in self.choices.items():
            if not values:
                raise InputError(f"dimension {name} has no values; give it at least one")
        if not self.objectives:
            raise InputError("no objectives; name at least one metric with min or max")
        for name, direction in self.objectives.items():
            if direction not in ("min", "max"):
                raise InputError(f"objective {name}: expected min or max, got {direction!r}")
        _ = self.bounds

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.choices)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of choices of each dimension."""
        return tuple(len(values) for values in self.choices.values())

    @functools.cached_property
    def size(self) -> int:
        """The number of combinations, legal or not."""
        return math.prod(self.sizes)

    @functools.cached_property
    def signs(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What turns objectives into losses: 1 where less is better, -1 where more is."""
        return np.array([sign(direction) for direction in self.objectives.values()])

    @functools.cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """``limits`` as (low, high), infinite where there is none."""
        return {name: self._bound(name, limit) for name, limit in self.limits.items()}

    def _bound(self, name: str, limit: Limit) -> tuple[float, float]:
        sense = sense_of(name, self.objectives)
        try:
            low, high = limit_pair(limit, sense)
            return (-math.inf if low is None else float(low), math.inf if high is None else float(high))
        except (TypeError, ValueError):
            raise InputError(f"limit of {name}: expected a number or [low, high], got {limit!r}") from None

    def excess(self, metrics: Mapping[str, float | None]) -> dict[str, float]:
        """How far each limited metric that is known lies outside its limits, relative to the limit; 0 inside."""
        found = {}
        for name, (low, high) in self.bounds.items():
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                short, over = max(0.0, low - value), max(0.0, value - high)
                found[name] = short / (abs(low) or 1.0) if short else over / (abs(high) or 1.0)
        return found

    @functools.cached_property
    def _places(self) -> list[dict[Scalar, int]]:
        return [{value: place for place, value in enumerate(values)} for values in self.choices.values()]

    def row(self, candidate: Candidate) -> Row:
        """Positions among the choices; a value that is none of them is one beyond the last."""
        return tuple(
            place.get(candidate[name], len(place)) if name in candidate else len(place)
            for name, place in zip(self.names, self._places, strict=True)
        )

    def look(self, row: Iterable[int]) -> Known:
        """What is known of the candidate with these choices, after ``canonical``; cheap when asked again."""
        raw = tuple([int(place) for place in row])
        known = self._memo.get(raw)
        if known is None:
            parts = zip(self.choices.items(), raw, strict=True)
            candidate = {name: values[place] if place < len(values) else values[0] for (name, values), place in parts}
            known = self.know(candidate)
            if len(self._memo) >= _REMEMBERED:
                self._memo.clear()
            self._memo[raw] = self._memo.setdefault(known.row, known)
        return self._memo[raw]

    def know(self, candidate: Candidate) -> Known:
        """As ``look``, of a candidate given by its values."""
        plain = dict(self.canonical(candidate))
        exact: Mapping[str, float] = {}
        violation = math.inf
        if not self.problems(plain):
            exact = self.exact(plain)
            violation = sum(self.excess(exact).values())
        return Known(plain, frozenset(plain.items()), self.row(plain), exact, violation)


@dataclass(frozen=True, slots=True)
class Seen:
    """A trial as strategies see it. ``losses``: see ``_losses``; never empty where the trial is ``done``."""

    known: Known
    state: Literal["done", "stopped", "running", "failed"]
    losses: tuple[float, ...]
    excess: Mapping[str, float]  # of every limited metric that is known, measured ones too
    metrics: Mapping[str, float | None]
    attributes: Mapping[str, Any]


def _fidelity(trial: Trial) -> tuple[Any, ...]:
    """What two trials must share to be compared; seed and draw are what replicates differ by."""
    budget = trial.budget
    return (budget.epochs, budget.num_images or math.inf, budget.image_size or 0) if budget else (0, 0, 0)


def look_back(problem: Problem, history: Sequence[Trial]) -> list[Seen]:
    """The trials of this space, in order. A done trial without a finite number for every objective counts as failed.

    Where done trials have several budgets, those of the most frequent one (of equals, the largest) are done and the
    others stopped, because fidelities do not mix. Trials of another space are left out.
    """
    counts = Counter(_fidelity(trial) for trial in history if trial.state == "done")
    full = max(counts, key=lambda fidelity: (counts[fidelity], fidelity), default=None)
    return [
        _seen(problem, trial, known, same_budget=_fidelity(trial) == full)
        for trial in history
        if (known := _recognised(problem, trial.candidate)) is not None
    ]


def _recognised(problem: Problem, candidate: Candidate) -> Known | None:
    """What is known of a trial's candidate; None where it has other dimensions or values."""
    row = problem.row(candidate)
    if all(place < size for place, size in zip(row, problem.sizes, strict=True)):
        return problem.look(row) if len(candidate) == len(row) else None
    try:  # it may be a canonical form with a value that stands for "no effect"
        return problem.know(candidate)
    except (ValueError, LookupError, TypeError):
        return None


def _seen(problem: Problem, trial: Trial, known: Known, *, same_budget: bool) -> Seen:
    metrics = {**trial.metrics, **known.exact}
    losses = _losses(problem, metrics)
    state: Literal["done", "stopped", "running", "failed"] = "failed"
    if trial.state in ("pending", "running", "paused"):
        state = "running"
    elif trial.state == "stopped" or (trial.state == "done" and not same_budget):
        state = "stopped"
    elif trial.state == "done" and losses:
        state = "done"
    return Seen(known, state, losses, problem.excess(metrics), metrics, trial.attributes)


def _losses(problem: Problem, metrics: Mapping[str, float | None]) -> tuple[float, ...]:
    """Every objective, the less the better; empty where one is missing or not a finite number."""
    found = []
    for name, factor in zip(problem.objectives, problem.signs, strict=True):
        value = metrics.get(name)
        if value is None or not math.isfinite(value):
            return ()
        found.append(float(factor * value))
    return tuple(found)


class Strategy(Protocol):
    """How the next candidates are chosen: a function of (problem, history, rng) and of its options."""

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        """At most ``count`` legal, canonical, distinct candidates that no trial has; fewer where no more are found."""
        ...
