"""Computes, from noisy runs of many networks, what each network is worth: a posterior mean with its interval.

The best of many noisy numbers looks better than it is (winner's curse). So a network's mean over its runs is drawn
towards what its cost, layout and choices predict, the more the fewer runs it has and the noisier they are:

    run = intercept + slope of log cost + ridge(features) + own deviation (sd ``spread``) + noise of a run

All variances are unknown. They are not fixed at an estimate but summed over on a grid, each weighted by its likelihood
(restricted: the intercept has a flat prior), so that intervals have the heavier tails of Student's t.
Priors: log-normal for the noise between seeds, on top of the floor that the number of validation images gives; for
the sizes of all effects, as multiples of a run's noise, half-Cauchy (Gelman 2006, Bayesian Analysis 1, 515), and with
probability ``ALIKE`` networks of equal cost do not differ at all. With a single run of each network the data cannot
tell noise from spread, and these priors decide; a second seed of a few networks decides more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 1000
LEVEL = 0.95  # of an interval
# Between seeds, the errors of NAS-Bench-Macro's 6,561 networks (three seeds each, 10,000 test images) vary by half of
# the binomial variance of the images: the other half or more is common to all networks, since the images are the same.
SHARED = 0.5
# sd between seeds beyond the images, as a share of p (1 - p): .024 on NAS-Bench-Macro with what the images add. The
# factor of e lets one standard deviation of the prior reach the spreads of small data (.06) and of long recipes (.008).
SEEDS, SEEDS_LOG_SD = 0.02, 1.0
# The same where the number of images is not known: what 300 to 50,000 of them add to seeds lies within one sd.
UNKNOWN, UNKNOWN_LOG_SD = 0.04, 1.2
# Where the prior of the noise between seeds falls off steeply, in the same units: 1.4 points at 10 % error, 4 at 50 %.
# No published repetition that was looked at (NAS-Bench-Macro, this project's records) has half of it.
MOST_NOISE = 0.15
ALIKE = 0.5  # prior probability that networks of equal cost are alike: as probable as not, chosen on nothing
LEAST = 1e-8  # variance of a run, of that between networks: below it numbers are equal
NO_EFFECT = 0.05  # of a run's noise: what choices do where networks are alike
NONE = 0.25  # of a run's noise: the spread of networks that are alike; none are equal, which a front would show
FEW = 5  # networks, up to which nothing is learned from cost and features
MOST = 400  # networks that variances are learned from; more of them sharpen nothing that is shown


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is known of the noise of a run before any is repeated, (networks,) each. ``floor``: variance that the images
    give, its part that differs between networks; ``common``: its part that all networks have in common and that no
    seed averages out; ``unit``: what the sd between seeds is a multiple of; ``median``, ``log_sd``, ``most`` of that.
    """

    floor: Floats
    common: Floats
    unit: Floats
    median: float
    log_sd: float
    most: float = MOST_NOISE


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """``mean``, ``low``, ``high`` (95 % interval), (networks,), the less the better. ``draws``, (draws, networks): of
    what networks are worth on these images, for comparisons; the interval has the images' ``common`` noise besides.
    ``run_sd``: of one run; ``spread``: of networks about what is predicted of them; posterior medians."""

    mean: Floats
    low: Floats
    high: Floats
    draws: Floats
    run_sd: float
    spread: float


def of_fractions(expected: Floats, num_images: int | None) -> Noise:
    """The noise of errors or accuracies, (networks,) fractions, seen on so many images (None: not known)."""
    unit = np.clip(expected, 1e-3, 1 - 1e-3)
    unit = unit * (1 - unit)
    return _of_images(unit, unit, num_images)


def of_losses(expected: Floats, num_images: int | None) -> Noise:
    """The noise of mean losses; those of single images are taken to differ as an exponential distribution's do, whose
    standard deviation is its mean (an assumption: records hold no losses of single images)."""
    size = np.maximum(np.abs(expected), 1e-9)
    return _of_images(size**2, size, num_images)


def of_anything(expected: Floats, scatter: float) -> Noise:
    """The noise of a number of which nothing is known but how much it scatters."""
    none = np.zeros(len(expected))
    return Noise(floor=none, common=none, unit=np.full(len(expected), max(scatter, 1e-12)), median=0.5, log_sd=1.0,
                 most=np.inf)  # fmt: skip


def _of_images(variance: Floats, unit: Floats, num_images: int | None) -> Noise:
    if not num_images:
        none = np.zeros(len(unit))
        return Noise(floor=none, common=none, unit=unit, median=UNKNOWN, log_sd=UNKNOWN_LOG_SD)
    all_of_it = variance / num_images
    return Noise(floor=(1 - SHARED) * all_of_it, common=SHARED * all_of_it, unit=unit, median=SEEDS,
                 log_sd=SEEDS_LOG_SD)  # fmt: skip


def posterior(runs: Sequence[Floats], cost: Floats, features: Floats, noise: Noise, *, seed: int = 0) -> Posterior:
    """What networks are worth. ``runs``: of each network its values, the less the better; ``cost``: (networks,),
    logarithms; ``features``: (networks, any), standardised here."""
    rng = np.random.default_rng(seed)
    means = np.array([np.mean(one) for one in runs])
    size = max(float(means.std()), float(np.sqrt(np.mean(noise.floor)) + noise.median * np.mean(noise.unit)), 1e-12)
    found = _posterior([(one - means.mean()) / size for one in runs], cost, features, _in_units(noise, size), rng)
    ends = {name: getattr(found, name) * size + means.mean() for name in ("mean", "low", "high", "draws")}
    return Posterior(**ends, run_sd=found.run_sd * size, spread=found.spread * size)


def _in_units(noise: Noise, size: float) -> Noise:
    return replace(noise, floor=noise.floor / size**2 + LEAST, common=noise.common / size**2, unit=noise.unit / size)


def _posterior(
    runs: Sequence[Floats], cost: Floats, features: Floats, noise: Noise, rng: np.random.Generator
) -> Posterior:
    """As ``posterior``, of values whose mean is 0 and whose size is 1."""
    model = _Model(runs, cost, features, noise)
    learned = model.part(rng.permutation(len(runs))[:MOST]) if len(runs) > MOST else model
    points, weights = _explored(learned)
    draws, means = model.sample(points, weights, rng)
    shift = rng.standard_normal((DRAWS, 1)) * np.sqrt(noise.common)
    low, high = np.quantile(draws + shift, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    run_sd = np.sqrt(np.mean(noise.floor) + (points[:, 0] * np.mean(noise.unit)) ** 2)
    return Posterior(mean=means, low=low, high=high, draws=draws, run_sd=_median(run_sd, weights),
                     spread=_median(points[:, 1], weights))  # fmt: skip


class _Model:
    """Likelihood and draws at given variances. A point: seed noise in units, spread, size of the slope, of the ridge
    effects."""

    def __init__(self, runs: Sequence[Floats], cost: Floats, features: Floats, noise: Noise) -> None:
        self.noise, self.runs, self.cost, self.features = noise, runs, cost, features
        self.counts = np.array([len(one) for one in runs], dtype=float)
        self.means = np.array([np.mean(one) for one in runs])
        self.squares = np.array([np.sum((one - np.mean(one)) ** 2) for one in runs])
        slope = [_standard(cost)] if len(runs) > FEW and np.ptp(cost) > 0 else []
        bent = [_standard(cost) ** 2] if slope else []  # error against log cost is seldom straight
        ridge = [_standard(column) for column in (*bent, *features.T) if np.ptp(column) > 0] if len(runs) > FEW else []
        size = np.sqrt(max(len(ridge), 1))  # however many features: the sd of all of them is what the prior is of
        self.design = np.column_stack([np.ones(len(runs)), *slope, *(column / size for column in ridge)])
        self.sizes = np.array([2] * len(slope) + [3] * len(ridge), dtype=int)  # place in a point of each effect's sd

    def part(self, places: NDArray[np.intp]) -> "_Model":
        noise = self.noise
        own = replace(noise, floor=noise.floor[places], common=noise.common[places], unit=noise.unit[places])
        return _Model([self.runs[place] for place in places], self.cost[places], self.features[places], own)

    def run_variance(self, seeds: Floats) -> Floats:
        """(points, networks)"""
        return np.asarray(self.noise.floor + (seeds[:, None] * self.noise.unit) ** 2)

    def _normal(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Of each point: precisions of the networks' means, the normal equations' matrix and right-hand side."""
        within = self.run_variance(points[:, 0])
        precision = 1 / (points[:, 1:2] ** 2 + within / self.counts)
        matrix = np.einsum("kn,ni,nj->kij", precision, self.design, self.design, optimize=True)
        places = np.arange(1, matrix.shape[1])
        matrix[:, places, places] += 1 / points[:, self.sizes] ** 2
        return precision, matrix, (precision * self.means) @ self.design

    def log_likelihood(self, points: Floats) -> Floats:
        """(points,): restricted, of means between networks and of runs within them."""
        precision, matrix, side = self._normal(points)
        best = np.linalg.solve(matrix, side[:, :, None])[:, :, 0]
        fit = (precision * self.means**2).sum(axis=1) - (side * best).sum(axis=1)
        between = np.log(precision).sum(axis=1) - np.linalg.slogdet(matrix)[1]
        between -= 2 * np.log(points[:, self.sizes]).sum(axis=1)
        within = self.run_variance(points[:, 0])
        again = ((self.counts - 1) * np.log(within) + self.squares / within).sum(axis=1)
        return np.asarray((between - fit - again) / 2)

    def sample(self, points: Floats, weights: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draws, (draws, networks), and the mean of their distributions, (networks,)."""
        picked = _systematic(weights, 250 if len(self.means) <= MOST else 50, rng)
        draws, means = [], []
        for place, share in zip(*np.unique(picked, return_counts=True), strict=True):
            point = points[place : place + 1]
            precision, matrix, side = self._normal(point)
            best = np.linalg.solve(matrix[0], side[0])
            root = np.linalg.cholesky(np.linalg.inv(matrix[0]))
            kept = point[0, 1] ** 2 * precision[0]
            own_sd = np.sqrt(kept * self.run_variance(point[:, 0])[0] / self.counts)
            effects = best + rng.standard_normal((share * DRAWS // len(picked), len(best))) @ root.T
            centre = effects @ self.design.T * (1 - kept) + kept * self.means
            draws.append(centre + own_sd * rng.standard_normal(centre.shape))
            means.append(share * ((self.design @ best) * (1 - kept) + kept * self.means))
        return np.vstack(draws), np.sum(means, axis=0) / len(picked)


def _explored(model: _Model) -> tuple[Floats, Floats]:
    """Points of the grid that carry the posterior, (points, 4), and their weights. The grid is narrowed twice to where
    the weight is, so that much data, which says much, is not read off a coarse grid."""
    median, log_sd = model.noise.median, model.noise.log_sd
    seeds = np.log(median) + log_sd * np.linspace(-3, 4, 11)
    angles = np.linspace(0, np.arctan(50), 9)  # of spread over a run's noise: a half-Cauchy is even in it
    slope, ridge = (np.linspace(0.05, np.arctan(20), 5) if at in model.sizes else np.ones(1) for at in (2, 3))
    even = np.log(2 / np.pi) * (1 + (3 in model.sizes))  # density of the angles that only those that differ have
    for last in (False, False, True):
        some = _scored(model, (seeds, angles, slope, ridge))
        none = _scored(model, (seeds, np.full(1, NONE), slope, np.full(1, NO_EFFECT)))
        points = np.concatenate([some[0], none[0]])
        scores = np.concatenate([some[1] + np.log(1 - ALIKE) + even, none[1] + np.log(ALIKE)])
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        if not last:
            differ = weights[: len(some[0])].reshape(len(seeds), len(angles), len(slope), len(ridge))
            alike = weights[len(some[0]) :].reshape(len(seeds), len(slope))
            seeds = _narrowed(seeds, differ.sum((1, 2, 3)) + alike.sum(1))
            angles, ridge = _narrowed(angles, differ.sum((0, 2, 3))), _narrowed(ridge, differ.sum((0, 1, 2)))
            slope = _narrowed(slope, differ.sum((0, 1, 3)) + alike.sum(0))
    return points, weights


def _scored(model: _Model, grids: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Every combination as a point, and the logarithm of its weight."""
    log_seeds, spread, slope, ridge = (part.ravel() for part in np.meshgrid(*grids, indexing="ij"))
    run_sd = np.sqrt(model.run_variance(np.exp(log_seeds)).mean(axis=1))
    points = np.column_stack([np.exp(log_seeds), *(np.tan(angle) * run_sd for angle in (spread, slope, ridge))])
    cells = sum(np.log(part.ravel()) for part in np.meshgrid(*map(_widths, grids), indexing="ij"))
    prior = -0.5 * ((log_seeds - np.log(model.noise.median)) / model.noise.log_sd) ** 2
    prior = prior - np.log1p((points[:, 0] / model.noise.most) ** 8)
    return points, model.log_likelihood(points) + prior + cells


def _narrowed(grid: Floats, weights: Floats) -> Floats:
    """As many points over the part of the grid that has all but a thousandth of the weight, and a cell on each side."""
    if len(grid) == 1:
        return grid
    inside = np.flatnonzero(weights >= 1e-3 * weights.max())
    first, last = max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 1, len(grid) - 1)
    return np.linspace(grid[first], grid[last], len(grid))


def _widths(grid: Floats) -> Floats:
    """Of each point's cell (trapezoid rule)."""
    return np.gradient(grid) * np.where(np.isin(np.arange(len(grid)), (0, len(grid) - 1)), 0.5, 1.0) if (
        len(grid) > 1) else np.ones(1)  # fmt: skip


def _systematic(weights: Floats, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """(count,) places, each as often as its weight says, up to one."""
    ends = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(ends, (np.arange(count) + rng.random()) / count), len(weights) - 1)


def _standard(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / (values.std() or 1.0))


def _median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())])
