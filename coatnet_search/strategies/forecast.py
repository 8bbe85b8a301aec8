"""Surrogate models of every objective and limited metric -> what untried candidates are predicted to show."""

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from coatnet_search.strategies.features import Array, Features
from coatnet_search.strategies.problem import Known, Problem, Seen
from coatnet_search.strategies.surrogate import Surrogate

_BELOW = 0.25  # standard deviations from the least value to the origin of the logarithm; found on published tables


@dataclass(frozen=True)
class Scale:
    """A rising map to the scale that models work on: the logarithm of the distance to just below the least value.

    The best values are the ones to tell apart, and a few networks that hardly learn would otherwise rule a fit.
    """

    origin: float

    @classmethod
    def of(cls, values: Array) -> "Scale":
        return cls(float(values.min() - (values.std() or 1.0) * _BELOW))

    def to(self, values: Array) -> Array:
        return np.asarray(np.log(np.maximum(values - self.origin, 1e-300)))

    def back(self, values: Array) -> Array:
        return np.asarray(np.exp(values) + self.origin)


@dataclass(frozen=True)
class Done:
    """A tried candidate with its losses and measured limited metrics, the mean over replicates."""

    known: Known
    losses: Array
    metrics: dict[str, float]


def averaged(problem: Problem, past: Iterable[Seen]) -> list[Done]:
    """The done trials, replicates as one."""
    same: dict[object, list[Seen]] = defaultdict(list)
    for seen in past:
        if seen.state == "done":
            same[seen.known.key].append(seen)
    return [
        Done(group[0].known, np.mean([seen.losses for seen in group], axis=0), _means(problem.bounds, group))
        for group in same.values()
    ]


def _means(names: Iterable[str], group: Sequence[Seen]) -> dict[str, float]:
    found = {}
    for name in names:
        values = [value for seen in group if (value := seen.metrics.get(name)) is not None and math.isfinite(value)]
        if values:
            found[name] = float(np.mean(values))
    return found


class Surrogates:
    """Models fitted to what is done. ``columns`` are objectives as losses, on the scales that the models work on."""

    def __init__(self, problem: Problem, features: Features, done: Sequence[Done], models: Sequence[str],
                 rng: np.random.Generator) -> None:  # fmt: skip
        self.problem, self.done = problem, done
        self.known = [one.known for one in done]
        self.losses = np.array([one.losses for one in done])
        fit = functools.partial(Surrogate, features, names=models, rng=rng)
        self.scales: dict[int, Scale] = {}
        self.models: dict[int, Surrogate] = {}
        for column, name in enumerate(problem.objectives):
            if any(name not in known.exact for known in self.known):
                self.scales[column] = Scale.of(self.losses[:, column])
                self.models[column] = fit(self.known, self.scales[column].to(self.losses[:, column]))
        self.limits = {}
        for name, bound in problem.bounds.items():
            shown = [one for one in done if name in one.metrics and name not in one.known.exact]
            if len(shown) >= 4:
                values = np.array([one.metrics[name] for one in shown])
                scale = Scale.of(values)
                self.limits[name] = (bound, scale, fit([one.known for one in shown], scale.to(values)))

    def predict(self, known: Sequence[Known]) -> tuple[Array, Array]:
        """Mean and standard deviation, (candidates, objectives); the deviation of exact metrics is 0."""
        mean, std = (
            np.zeros((len(known), len(self.problem.objectives))),
            np.zeros((len(known), len(self.problem.objectives))),
        )
        for column, (name, sign) in enumerate(zip(self.problem.objectives, self.problem.signs, strict=True)):
            if column in self.models:
                mean[:, column], std[:, column] = self.models[column].predict(known)
            else:
                mean[:, column] = [sign * one.exact[name] for one in known]
        return mean, std

    def feasible(self, known: Sequence[Known]) -> Array:
        """(candidates,): the probability that measured metrics will lie inside their limits."""
        found = np.ones(len(known))
        for (low, high), scale, model in self.limits.values():
            mean, std = model.predict(known)
            std = np.maximum(std, 1e-9)
            edges = [scale.to(np.array(edge)) if math.isfinite(edge) else edge for edge in (low, high)]
            found *= ndtr((edges[1] - mean) / std) - ndtr((edges[0] - mean) / std)
        return found

    def to_scale(self, losses: Array) -> Array:
        """Losses (rows, objectives) on the models' scales; ``back`` is the inverse."""
        found = losses.copy()
        for column, scale in self.scales.items():
            found[:, column] = scale.to(losses[:, column])
        return found

    def back(self, values: Array) -> Array:
        found = values.copy()
        for column, scale in self.scales.items():
            found[:, column] = scale.back(values[:, column])
        return found

    def reached(self) -> Array:
        """Losses, as the models see them (which discounts luck), of tried candidates inside the limits."""
        mean, _ = self.predict(self.known)
        inside = [not any(self.problem.excess({**one.known.exact, **one.metrics}).values()) for one in self.done]
        return np.asarray(self.back(mean)[np.array(inside, bool)])
