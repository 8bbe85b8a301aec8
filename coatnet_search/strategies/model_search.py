"""Model-based search: a cold start, then batches of the largest expected hypervolume gain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from coatnet_search.record.trial import Trial
from coatnet_search.strategies.breeding import breed
from coatnet_search.strategies.cold_start import spread
from coatnet_search.strategies.expected_gain import best_batch, chance_to_dominate, nondominated, points_to_gain
from coatnet_search.strategies.features import Array, Features
from coatnet_search.strategies.forecast import Surrogates, averaged
from coatnet_search.strategies.legal_candidates import ENUMERABLE, draw, every, towards_extremes
from coatnet_search.strategies.problem import Key, Known, Problem, Suggestion, look_back

LEAST_DONE = 4  # trials with results, below which nothing is modelled
_DRAWN, _BRED, _ROUNDS = 1000, 700, 3  # candidates of a space that is too large to enumerate
_PARENTS = 50  # of those, in each round
_KEPT = 800  # candidates that stay for the exact choice of a batch
_ROUGH = 200  # points for the choice of those
_OPTIMISM = 1.0  # standard deviations below the mean that a candidate is hoped to chance_to_dominate
_TRUST = 0.7  # of the models' standard deviations, which are wide after few trials; found on published tables


def suggest(problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int, *,
            startup: int, models: Sequence[str]) -> list[Suggestion]:  # fmt: skip
    """What a strategy returns that spreads its first ``startup`` trials and then searches with these models.

    What the models proposed has the attribute ``expected_gain``: the hypervolume that it is expected to add to what is
    reached and waiting, as a share of the box from the best hoped for to the worst seen.
    """
    past = look_back(problem, history)
    taken = {seen.known.key for seen in past}
    past = [seen for seen in past if math.isfinite(seen.known.violation)]  # exact metrics are known
    pool = _pool(problem, rng, taken)
    tried = [seen.known for seen in past if seen.state in ("done", "running")]
    done = averaged(problem, past)
    first = count if len(done) < LEAST_DONE else min(count, max(0, startup - len(tried)))
    chosen = spread(problem, pool, tried, first, rng)
    gains: dict[Key, dict[str, float]] = {}
    if count > len(chosen) and len(done) >= LEAST_DONE:
        taken |= {known.key for known in chosen}
        pool = [known for known in pool if known.key not in taken]
        waiting = [seen.known for seen in past if seen.state == "running"] + chosen
        features = Features(problem, [*pool, *waiting, *(one.known for one in done)])
        surrogates = Surrogates(problem, features, done, models, rng)
        for known, gain in _best(surrogates, pool, waiting, taken, count - len(chosen), rng):
            chosen.append(known)
            gains[known.key] = {"expected_gain": gain}
    chosen += draw(problem, rng, count - len(chosen), taken | {known.key for known in chosen})
    return [Suggestion(known.candidate, gains.get(known.key)) for known in chosen]


def _pool(problem: Problem, rng: np.random.Generator, taken: set[Key]) -> list[Known]:
    """Every new legal candidate of a small space; of a large one, its extremes and a sample."""
    if problem.size <= ENUMERABLE:
        return [known for known in every(problem) if known.key not in taken]
    sample = draw(problem, rng, _DRAWN, taken)
    found = {known.key: known for known in [*towards_extremes(problem, sample, rng), *sample] if known.key not in taken}
    return list(found.values())


@dataclass(frozen=True)
class _Forecast:
    """Candidates with what the surrogates says of each: (candidates, objectives) twice, and (candidates,)."""

    known: list[Known]
    mean: Array
    std: Array
    feasible: Array

    @classmethod
    def of(cls, surrogates: Surrogates, known: Sequence[Known]) -> "_Forecast":
        mean, std = surrogates.predict(known)
        return cls(list(known), mean, _TRUST * std, surrogates.feasible(known))

    def __add__(self, other: "_Forecast") -> "_Forecast":
        arrays = ((self.mean, other.mean), (self.std, other.std), (self.feasible, other.feasible))
        return _Forecast(self.known + other.known, *(np.concatenate(pair) for pair in arrays))

    def take(self, places: Array) -> "_Forecast":
        known = [self.known[place] for place in places]
        return _Forecast(known, self.mean[places], self.std[places], self.feasible[places])

    def chances(self, points: Array) -> Array:
        """(candidates, points): the probability that a candidate is legal and reaches the point."""
        return np.asarray(chance_to_dominate(self.mean, self.std, points) * self.feasible[:, None])


def _best(surrogates: Surrogates, pool: list[Known], waiting: Sequence[Known], taken: set[Key], count: int,
          rng: np.random.Generator) -> list[tuple[Known, float]]:  # fmt: skip
    """The batch that is expected to add most to what is reached and to what ``waiting`` candidates will reach, each
    with what it is expected to add."""
    if not pool:
        return []
    forecast = _Forecast.of(surrogates, pool)
    places, share = _open_points(surrogates, forecast, rng)
    points = surrogates.to_scale(places)
    gains = forecast.chances(points[:_ROUGH]).sum(axis=1)
    if surrogates.problem.size > ENUMERABLE:
        forecast, gains = _bred(surrogates, forecast, gains, points[:_ROUGH], taken, rng)
    kept = forecast.take(np.argsort(-gains, kind="stable")[:_KEPT])
    covered = np.zeros(len(points))
    if waiting:
        covered = 1.0 - np.prod(1.0 - _Forecast.of(surrogates, waiting).chances(points), axis=0)
    return [(kept.known[place], part * share) for place, part in best_batch(kept.chances(points), covered, count)]


def _open_points(surrogates: Surrogates, forecast: _Forecast, rng: np.random.Generator) -> tuple[Array, float]:
    """Losses, (points, objectives), that no trial reaches and that some candidate may, and their share of the box.

    They lie in a box from the best of every objective to the worst: of the pool where it is known exactly, of what
    trials have shown where it is predicted.
    """
    losses = np.vstack([surrogates.back(forecast.mean), surrogates.losses])
    shown = [column in surrogates.models for column in range(losses.shape[1])]
    high = np.where(shown, surrogates.losses.max(axis=0), losses.max(axis=0))
    margin = 0.02 * (high - losses.min(axis=0)) + 1e-12
    optimistic = surrogates.back(forecast.mean - _OPTIMISM * forecast.std)
    return points_to_gain(nondominated(surrogates.reached()), optimistic, high + margin, rng)


def _bred(surrogates: Surrogates, forecast: _Forecast, gains: Array, points: Array, taken: set[Key],
          rng: np.random.Generator) -> tuple[_Forecast, Array]:  # fmt: skip
    """The forecast with generations of children of its best candidates and of the front of the trials."""
    front = moocore.is_nondominated(surrogates.losses, keep_weakly=True)
    tried = [known for known, best in zip(surrogates.known, front, strict=True) if best]
    taken = taken | {known.key for known in forecast.known}
    for _ in range(_ROUNDS):
        best = [forecast.known[place] for place in np.argsort(-gains, kind="stable")[:_PARENTS]]
        children = breed(surrogates.problem, [*best, *tried], rng, _BRED, taken)
        if not children:
            break
        taken |= {known.key for known in children}
        added = _Forecast.of(surrogates, children)
        forecast, gains = forecast + added, np.concatenate([gains, added.chances(points).sum(axis=1)])
    return forecast, gains
