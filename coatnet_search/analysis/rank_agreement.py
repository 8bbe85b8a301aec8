"""How well one score ranks networks by another: rank correlation, regret, reliability; each with a bootstrap interval.

Networks are drawn with replacement, each with all its seeds: a network's mean carries the noise of its seeds already,
and drawing seeds within networks on top would count it twice. Scores here are such that more is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
DRAWS = 1000
LEAST = 10  # networks, below which a figure would say nothing
RELIABLE = 0.5  # of the mean over seeds: below it, a correction for noise more than doubles what is explained
LEVEL = 95  # percent of an interval


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its 95 % interval, from so many networks; None, with the reason in ``note``, where it is not
    known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    networks: int = 0
    note: str = ""

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def too_few(networks: int) -> Figure:
    return Figure(networks=networks, note=f"too few: {networks} of {LEAST} networks")


def draws(networks: int, rng: np.random.Generator) -> Floats:
    """(1 + DRAWS, networks): how often each network is in a draw; the first row is the data itself."""
    drawn = rng.multinomial(networks, np.full(networks, 1 / networks), size=DRAWS)
    return np.vstack([np.ones(networks), drawn])


def figure(values: Floats, networks: int) -> Figure:
    """The first value, with the interval that the others span; a draw without a value is left out."""
    if not math.isfinite(values[0]):
        return Figure(networks=networks, note="not defined: all values are equal")
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Figure(value=float(values[0]), low=float(low), high=float(high), networks=networks)


def kendall(weights: Floats, first: Floats, second: Floats, together: NDArray[np.bool_] | None = None) -> Floats:
    """(draws,): Kendall's tau-b of two scores, (networks,) each; over the pairs that are ``together``, (networks,
    networks), or all. A network that was drawn twice is no pair with itself. NaN where a score is constant."""
    signs = [np.sign(score[:, None] - score[None, :]) for score in (first, second)]
    if together is not None:
        signs = [sign * together for sign in signs]
    concordance, one, other = (_over_pairs(weights, pairs) for pairs in (signs[0] * signs[1], signs[0] ** 2,
                                                                         signs[1] ** 2))  # fmt: skip
    scale = np.sqrt(one * other)
    return np.divide(concordance, scale, out=np.full(len(weights), np.nan), where=scale > 0)


def _over_pairs(weights: Floats, pairs: Floats) -> Floats:
    return np.asarray(((weights @ pairs) * weights).sum(axis=1))


def regret(weights: Floats, predicted: Floats, actual: Floats) -> Floats:
    """(draws,): how far the actual score of the network that is predicted best lies below the best actual one.

    The best of noisy means is a little too good: of two equal scores with noise the regret is above zero.
    """
    drawn = weights > 0
    chosen = np.where(drawn, predicted, -np.inf).argmax(axis=1)
    return np.asarray(np.where(drawn, actual, -np.inf).max(axis=1) - actual[chosen])


def mean(weights: Floats, values: Floats) -> Floats:
    """(draws,): the mean of a value; NaN where a draw has no network."""
    total = weights.sum(axis=1)
    return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)


def permuted(values: Floats, labels: Sequence[str], blocks: Sequence[int], rng: np.random.Generator) -> float:
    """The probability that labels without any meaning would part the values as much as these do (a permutation test
    within blocks): below 0.05, the labels differ by more than noise."""
    blocks_of, label_of = np.asarray(blocks), np.unique(np.asarray(labels), return_inverse=True)[1]
    centred = values - np.array([values[blocks_of == block].mean() for block in blocks])
    among = centred.copy()
    seen = [_between(centred, label_of)]
    for _ in range(DRAWS):
        for block in np.unique(blocks_of):
            own = np.flatnonzero(blocks_of == block)
            among[own] = centred[rng.permutation(own)]
        seen.append(_between(among, label_of))
    return float(np.mean(np.array(seen) >= seen[0] * (1 - 1e-9)))


def _between(values: Floats, labels: NDArray[np.intp]) -> float:
    counts = np.bincount(labels)
    return float((np.bincount(labels, values) ** 2 / counts).sum())


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A rank correlation (Spearman's) and what it would be without noise between seeds; ``reliability`` is that of
    the mean over the seeds, from how well the seeds agree (Spearman and Brown, 1910)."""

    reliability: Figure
    plain: Figure
    corrected: Figure


def without_noise(predicted: Floats, alone: Floats, rng: np.random.Generator) -> Corrected:
    """The rank correlation of ``predicted``, (networks,), with the mean over ``alone``, (networks, seeds).

    It is divided by the square root of the reliability; refused where that is below ``RELIABLE``.
    """
    networks = len(predicted)
    picks = np.vstack([np.arange(networks), rng.integers(networks, size=(DRAWS, networks))])
    seeds = alone.shape[1]
    ranks = [_ranks(score[picks]) for score in (predicted, alone.mean(axis=1), *alone.T)]
    pairs = [_correlation(ranks[2 + a], ranks[2 + b]) for a in range(seeds) for b in range(a)]
    agree = np.maximum(np.mean(pairs, axis=0), -0.5 / max(1, seeds - 1))  # (draws,)
    reliability = seeds * agree / (1 + (seeds - 1) * agree)
    plain = _correlation(ranks[0], ranks[1])
    if not reliability[0] >= RELIABLE:
        note = (f"the seeds agree too little (reliability {reliability[0]:.2f}, at least {RELIABLE:g} is needed): more "
                "seeds or more images")  # fmt: skip
        corrected = Figure(networks=networks, note=note)
    else:
        corrected = figure(np.clip(plain / np.sqrt(np.maximum(reliability, RELIABLE)), -1, 1), networks)
    return Corrected(reliability=figure(reliability, networks), plain=figure(plain, networks), corrected=corrected)


def _ranks(values: Floats) -> Floats:
    """(draws, networks), centred."""
    ranks = rankdata(values, axis=1)
    return np.asarray(ranks - ranks.mean(axis=1, keepdims=True))


def _correlation(one: Floats, other: Floats) -> Floats:
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    product = (one * other).sum(axis=1)
    return np.divide(product, scale, out=np.full(len(one), np.nan), where=scale > 0)
