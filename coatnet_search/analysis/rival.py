"""Scores a predictor that is fitted to stand-alone runs: what a supernet must beat for its hours."""

from collections.abc import Sequence

import numpy as np

from coatnet_search.analysis.rank_agreement import Floats
from coatnet_search.strategies.features import Features
from coatnet_search.strategies.forecast import Scale
from coatnet_search.strategies.problem import Known
from coatnet_search.strategies.surrogate import MODELS, Surrogate

FOLDS = 5  # each network is predicted by models that saw none of its runs
LEAST_RUNS = 8  # that a predictor is trained on


def most_runs(losses: Sequence[Sequence[float]]) -> int:
    """How many of these runs, a list a network, can be trained on whichever fifth of the networks is predicted."""
    counts = sorted(len(own) for own in losses)
    return sum(counts[: len(counts) - -(-len(counts) // FOLDS)])


def left_out(
    features: Features,
    known: Sequence[Known],
    losses: Sequence[Sequence[float]],
    runs: int,
    rng: np.random.Generator,
) -> Floats:
    """(networks,): each network's loss as predicted by the models of a search that saw so many runs of others."""
    out = np.zeros(len(known))
    order = rng.permutation(len(known)).tolist()
    for part in (order[place::FOLDS] for place in range(min(FOLDS, len(order)))):
        rest = [place for place in order if place not in part]
        used = _first([losses[place] for place in rest], runs)
        shown = [(known[place], float(np.mean(own))) for place, own in zip(rest, used, strict=True) if own]
        values = np.array([value for _, value in shown])
        scale = Scale.of(values)
        fitted = Surrogate(features, [one for one, _ in shown], scale.to(values), MODELS, rng)
        out[part] = scale.back(fitted.predict([known[place] for place in part])[0])
    return out


def _first(losses: Sequence[Sequence[float]], runs: int) -> list[list[float]]:
    """So many runs, a seed of each network before the next seed of any."""
    used: list[list[float]] = [[] for _ in losses]
    for seed in range(max(len(own) for own in losses)):
        for own, given in zip(used, losses, strict=True):
            if runs > 0 and seed < len(given):
                own.append(given[seed])
                runs -= 1
    return used
