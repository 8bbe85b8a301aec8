"""Search by models: an even spread first, then batches that are expected to add the most hypervolume."""

import math
from collections.abc import Sequence

import numpy as np

from coatnet_search.arch import Trial
from coatnet_search.strategies.breeding import breed
from coatnet_search.strategies.features import Array, Features
from coatnet_search.strategies.gain import best_batch, nondominated, reach, shell
from coatnet_search.strategies.legal import ENUMERABLE, draw, every, towards_extremes
from coatnet_search.strategies.outlook import Outlook, averaged
from coatnet_search.strategies.problem import Key, Known, Problem, Suggestion, look_back
from coatnet_search.strategies.spread import spread

LEAST_DONE = 4  # trials with results, below which nothing is modelled
_DRAWN, _BRED, _ROUNDS = 1000, 700, 3  # candidates of a space that is too large to enumerate
_KEPT = 800  # candidates that stay for the exact choice of a batch
_ROUGH = 200  # points for the choice of those
_HOPE = 1.0  # standard deviations below the mean that a candidate is hoped to reach
_TRUST = 0.7  # of the models' standard deviations, which are wide after few trials; found on published tables


def suggest(problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int, *,
            startup: int, models: Sequence[str]) -> list[Suggestion]:  # fmt: skip
    """What a strategy returns that spreads its first ``startup`` trials and then searches with these models."""
    past = look_back(problem, history)
    taken = {seen.known.key for seen in past}
    past = [seen for seen in past if math.isfinite(seen.known.violation)]  # exact metrics are known
    pool = _pool(problem, rng, taken)
    tried = [seen.known for seen in past if seen.state in ("done", "running")]
    done = averaged(problem, past)
    first = count if len(done) < LEAST_DONE else min(count, max(0, startup - len(tried)))
    chosen = spread(problem, pool, tried, first, rng)
    if count > len(chosen) and len(done) >= LEAST_DONE:
        taken |= {known.key for known in chosen}
        pool = [known for known in pool if known.key not in taken]
        waiting = [seen.known for seen in past if seen.state == "running"] + chosen
        features = Features(problem, [*pool, *waiting, *(one.known for one in done)])
        outlook = Outlook(problem, features, done, models, rng)
        chosen += _best(outlook, pool, waiting, taken, count - len(chosen), rng)
    chosen += draw(problem, rng, count - len(chosen), taken | {known.key for known in chosen})
    return [Suggestion(known.candidate) for known in chosen]


def _pool(problem: Problem, rng: np.random.Generator, taken: set[Key]) -> list[Known]:
    """Every new legal candidate of a small space; of a large one, its extremes and a sample."""
    if problem.size <= ENUMERABLE:
        return [known for known in every(problem) if known.key not in taken]
    sample = draw(problem, rng, _DRAWN, taken)
    found = {known.key: known for known in [*towards_extremes(problem, sample, rng), *sample] if known.key not in taken}
    return list(found.values())


class _Chances:
    """How likely candidates are to reach each of some points that nothing has reached yet."""

    def __init__(self, outlook: Outlook, pool: Sequence[Known], rng: np.random.Generator) -> None:
        self.outlook = outlook
        mean, std = outlook.predict(pool)
        front = nondominated(outlook.reached())
        losses = np.vstack([outlook.back(mean), outlook.losses])
        high = np.where([column in outlook.models for column in range(losses.shape[1])], outlook.losses.max(axis=0),
                        losses.max(axis=0))  # fmt: skip
        margin = 0.02 * (high - losses.min(axis=0)) + 1e-12
        points = shell(front, outlook.back(mean - _HOPE * _TRUST * std), high + margin, rng)
        self.points = outlook.to_scale(points)

    def of(self, known: Sequence[Known], points: int | None = None) -> Array:
        """(candidates, points)."""
        mean, std = self.outlook.predict(known)
        chances = reach(mean, _TRUST * std, self.points[:points])
        return np.asarray(chances * self.outlook.feasible(known)[:, None])


def _best(outlook: Outlook, pool: list[Known], waiting: Sequence[Known], taken: set[Key], count: int,
          rng: np.random.Generator) -> list[Known]:  # fmt: skip
    """The batch that is expected to add most to what is reached and to what ``waiting`` candidates will reach."""
    if not pool:
        return []
    chances = _Chances(outlook, pool, rng)
    gains = chances.of(pool, _ROUGH).sum(axis=1)
    if outlook.problem.size > ENUMERABLE:
        pool, gains = _bred(outlook, chances, pool, gains, taken, rng)
    kept = [pool[place] for place in np.argsort(-gains, kind="stable")[:_KEPT]]
    covered = 1.0 - np.prod(1.0 - chances.of(waiting), axis=0) if waiting else np.zeros(len(chances.points))
    return [kept[place] for place in best_batch(chances.of(kept), covered, count)]


def _bred(outlook: Outlook, chances: _Chances, pool: list[Known], gains: Array, taken: set[Key],
          rng: np.random.Generator) -> tuple[list[Known], Array]:  # fmt: skip
    """The pool and generations of children of its best candidates and of the best that have been tried."""
    front = outlook.losses
    tried = [outlook.known[place] for place in range(len(front)) if _on_front(front, place)]
    for _ in range(_ROUNDS):
        best = [pool[place] for place in np.argsort(-gains, kind="stable")[: _DRAWN // 20]]
        children = breed(outlook.problem, [*best, *tried], rng, _BRED, taken | {known.key for known in pool})
        if not children:
            break
        pool = pool + children
        gains = np.concatenate([gains, chances.of(children, _ROUGH).sum(axis=1)])
    return pool, gains


def _on_front(losses: Array, place: int) -> bool:
    others = (losses <= losses[place]).all(axis=1) & (losses < losses[place]).any(axis=1)
    return not others.any()
