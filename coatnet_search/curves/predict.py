"""The one predictive distribution: value, interval, order of curves, crossover and regret all come from its samples.

Each curve's posterior over the library of forms (``posterior.py``) is pooled with its group's (``pool.py``) and moved
towards the line that fades (``fading.py``); the spread of its draws around their median is widened by a
factor for the distance of extrapolation that was calibrated on published curves (``calibration.py``); and the draws of
all curves are put in one order (``together.py``). A draw is a whole curve, kept on a grid of log x, so that every call
of ``predict`` reads the same draws.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.core.errors import InputError
from coatnet_search.curves import load_form
from coatnet_search.curves.calibration import Calibration, published_calibration
from coatnet_search.curves.fading_line import blend, group_means, slope
from coatnet_search.curves.fitting import FormFit, enough_sizes, fit_form
from coatnet_search.curves.form import Array
from coatnet_search.curves.joint_draws import in_one_order
from coatnet_search.curves.paired_runs import paired_share, shared_part
from coatnet_search.curves.partial_pooling import pooled_priors
from coatnet_search.curves.points import check_points
from coatnet_search.curves.posterior import NOISE, Posterior, infer, noise_prior, trajectories
from coatnet_search.curves.prior_library import Library, library
from coatnet_search.curves.summary import Curve, Summary, run_share, summarise

DRAWS = 1000
FARTHEST = 4096.0  # times the last x: no prediction beyond it, calibrated or not
BELOW = 16.0  # a draw reaches down to the smallest x over this
INSIDE, AHEAD, BEYOND = 25, 25, 13  # points of the grid: down from the last x, over the calibrated range, and beyond


@dataclass(frozen=True)
class Prediction:
    """At each x_new: the median, the bounds of the central interval, and the draws (draws, len(x_new)) of error."""

    value: Array
    low: Array
    high: Array
    samples: Array


@dataclass(frozen=True)
class Fits:
    """The joint predictive distribution of several curves; ``noise_sd`` is that of a run's log error, ``paired`` the
    share of it that runs of one label and size have in common."""

    names: tuple[str, ...]
    posteriors: tuple[Posterior, ...]
    warnings: tuple[str, ...]
    noise_sd: float
    paired: float
    calibration: Calibration = field(repr=False)
    form: str | None = None
    draws: int = DRAWS
    seed: int = 0

    def predict(self, x_new: ArrayLike, *, beyond: bool = False) -> Array:
        """Draws of each curve's expected error at x_new, (draws, curves, len(x_new)); one draw is one state of the
        group, at every x and in every call. Raises InputError beyond the calibrated distance, unless ``beyond``."""
        x = check_targets(x_new)
        rows = []
        for name, posterior, (grid, drawn) in zip(self.names, self.posteriors, self._worlds, strict=True):
            u = np.log(x / posterior.summary.x_last)
            self._near_enough(name, u, grid, beyond)
            place = np.clip(np.searchsorted(grid, u) - 1, 0, len(grid) - 2)
            share = (u - grid[place]) / (grid[place + 1] - grid[place])
            rows.append(drawn[:, place] * (1 - share) + drawn[:, place + 1] * share)
        return np.exp(np.stack(rows, axis=1))

    def marginal(self, name: str, x_new: ArrayLike, level: float = 0.9, *, beyond: bool = False) -> Prediction:
        """One curve's median, interval and draws, from the joint samples."""
        return summarise_samples(self.predict(x_new, beyond=beyond)[:, self.names.index(name)], level)

    def alone(self, name: str) -> "Fit":
        """One curve of these as a fit of its own, pooled with the others as it is here."""
        return Fit(self, self.names.index(name))

    @functools.cached_property
    def _worlds(self) -> list[tuple[Array, Array]]:
        """Each curve's grid of u and its draws of log error (draws, grid), in one order."""
        grids = [self._grid(posterior.summary) for posterior in self.posteriors]
        groups = [posterior.summary.curve.group for posterior in self.posteriors]
        slopes = [slope(posterior.summary, self.noise_sd) for posterior in self.posteriors]
        common = group_means(slopes, groups)
        drawn = [self._drawn(i, grid, slopes[i], common[i]) for i, grid in enumerate(grids)]
        if len(drawn) > 1:
            near, far = INSIDE - 1, INSIDE + AHEAD - 1
            drawn = in_one_order(drawn, groups, near, far, self.paired, self.calibration.agreement, self.seed)
        return list(zip(grids, drawn, strict=True))

    def _grid(self, summary: Summary) -> Array:
        reach = np.log(self.calibration.reach)
        return np.concatenate(
            [
                np.linspace(summary.u[0] - np.log(BELOW), 0.0, INSIDE),
                np.linspace(0.0, reach, AHEAD + 1)[1:],
                np.linspace(reach, max(np.log(FARTHEST), reach + 1.0), BEYOND + 1)[1:],
            ]
        )

    def _drawn(self, place: int, grid: Array, own: float, common: float) -> Array:
        posterior = self.posteriors[place]
        drawn = trajectories(posterior, grid, self.draws, np.random.default_rng([self.seed, 4, place]))
        if self.form is None:
            drawn = blend(drawn, grid, own, common)
        return self.calibration.widened(grid, drawn)

    def _near_enough(self, name: str, u: Array, grid: Array, beyond: bool) -> None:
        distance, reach = float(np.exp(u.max())), self.calibration.reach
        if distance > reach * (1 + 1e-9) and not beyond:
            raise InputError(
                f"{name}: asked at {distance:.3g} times its largest size on record, and predictions are calibrated up "
                f"to {reach:g} times: measure nearer, or allow it (--beyond; beyond=True)"
            )
        if u.max() > grid[-1] or u.min() < grid[0]:
            raise InputError(
                f"{name}: {distance:.3g} times its largest size on record is out of every range; ask nearer to that"
            )


@dataclass(frozen=True)
class Fit:
    """The predictive distribution of one curve: the one at ``place`` of a joint fit."""

    fits: Fits
    place: int = 0

    @property
    def warnings(self) -> list[str]:
        """What is odd about the points: not monotone, duplicate x."""
        return list(self._posterior.summary.points.warnings)

    @property
    def weights(self) -> dict[str, float]:
        """The posterior probability of each form."""
        names, weights = self._posterior.library.names, self._posterior.member_weights
        return {str(name): float(weights[names == name].sum()) for name in dict.fromkeys(names.tolist())}

    def predict(self, x_new: ArrayLike, level: float = 0.9, beyond: bool = False) -> Prediction:
        """Median, interval and draws of the curve's expected error at x_new."""
        return summarise_samples(self.fits.predict(x_new, beyond=beyond)[:, self.place], level)

    def parameters(self, form: str | None = None) -> FormFit:
        """The best parameters of a form (the fit's own, or the most probable) for the same points."""
        points = self._posterior.summary.points
        return fit_form(form or self.fits.form or max(self.weights, key=self.weights.__getitem__), points.x, points.y)

    @property
    def _posterior(self) -> Posterior:
        return self.fits.posteriors[self.place]


def summarise_samples(samples: Array, level: float) -> Prediction:
    """Median and central interval of draws (draws, points)."""
    if not 0 < level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {level!r}")
    low, value, high = np.quantile(samples, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    return Prediction(value, low, high, samples)


def check_targets(x_new: ArrayLike) -> Array:
    """The sizes asked for as an array (k,). Raises InputError for what is not a positive number."""
    x = np.atleast_1d(np.asarray(x_new, dtype=float))
    if x.ndim != 1 or not len(x) or not (np.isfinite(x) & (x > 0)).all():
        raise InputError("x_new: expected positive numbers")
    return x


def fit_curve(
    x: ArrayLike,
    error: ArrayLike,
    runs: Sequence[object] | None = None,
    form: str | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    calibration: Calibration | None = None,
) -> Fit:
    """The predictive distribution of one curve; ``form`` names one form instead of all. Raises InputError for points
    that cannot be fitted and for too few sizes."""
    curve = Curve("curve", x, error, runs)
    return Fit(fit_curves([curve], form=form, seed=seed, draws=draws, calibration=calibration))


def fit_curves(
    curves: Sequence[Curve],
    form: str | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    calibration: Calibration | None = None,
) -> Fits:
    """The joint predictive distribution of the curves of one study. Raises InputError for points that cannot be fitted,
    names that come twice, and too few sizes."""
    names = [curve.name for curve in curves]
    if not curves or len(set(names)) < len(names):
        raise InputError("curves: expected at least one, each with a name of its own")
    members = library(form)
    points = [check_points(curve.x, curve.error, curve.runs, curve.name) for curve in curves]
    for curve, each in zip(curves, points, strict=True):
        enough_sizes(load_form(form or "power"), each.num_sizes, f"{curve.name}: ")
    share, paired = run_share(points), paired_share(points)
    explained = shared_part(points, paired)
    summaries = [
        summarise(curve, each, share, part) for curve, each, part in zip(curves, points, explained, strict=True)
    ]
    log_noise = noise_prior(sum(one.square for one in summaries), sum(one.freedom for one in summaries))
    posteriors = _pooled(summaries, members, log_noise)
    noise = np.mean([np.exp(one.log_weights).sum(axis=1) for one in posteriors], axis=0)
    return Fits(
        names=tuple(names),
        posteriors=tuple(posteriors),
        warnings=tuple(f"{one.curve.name}: {text}" for one in summaries for text in one.points.warnings),
        noise_sd=float(noise.reshape(len(NOISE), -1).sum(axis=1) @ NOISE),
        paired=paired,
        calibration=calibration or published_calibration(),
        form=form,
        draws=draws,
        seed=seed,
    )


def _pooled(summaries: Sequence[Summary], members: Library, log_noise: Array) -> list[Posterior]:
    posteriors = [infer(summary, members, log_noise) for summary in summaries]
    groups = [summary.curve.group for summary in summaries]
    if len(set(groups)) == len(groups):
        return posteriors
    priors = pooled_priors(members, [each.member_weights for each in posteriors], groups)
    return [posterior.with_prior(prior) for posterior, prior in zip(posteriors, priors, strict=True)]
