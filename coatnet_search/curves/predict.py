"""The one predictive distribution: value, interval, order of curves, crossover and regret all come from its samples.

Each curve's posterior over the library of forms (``posterior.py``) is pooled with its group's (``pool.py``); the spread
of its draws around their median is widened by a factor for the distance of extrapolation that was calibrated on
published curves, and the draws of different curves are ordered to err together as much as published curves do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.curves import load_form
from coatnet_search.curves.calibration import Calibration, published_calibration
from coatnet_search.curves.fitting import FormFit, enough_sizes, fit_form
from coatnet_search.curves.form import Array
from coatnet_search.curves.library import Library, library
from coatnet_search.curves.pairing import paired_share
from coatnet_search.curves.pool import cells, pooled_priors
from coatnet_search.curves.posterior import NOISE, Posterior, infer, noise_prior, trajectories
from coatnet_search.curves.summary import Curve, Summary, run_share, summarise
from coatnet_search.errors import InputError

DRAWS = 1000


@dataclass(frozen=True)
class Prediction:
    """At each x_new: the median, the bounds of the central interval, and the draws (draws, len(x_new)) of error."""

    value: Array
    low: Array
    high: Array
    samples: Array


@dataclass(frozen=True)
class Fits:
    """The joint predictive distribution of several curves."""

    names: tuple[str, ...]
    posteriors: tuple[Posterior, ...]
    warnings: tuple[str, ...]
    noise_sd: float
    paired: float
    calibration: Calibration = field(repr=False)
    draws: int = DRAWS
    seed: int = 0

    def predict(self, x_new: ArrayLike, *, beyond: bool = False) -> Array:
        """Draws of each curve's expected error at x_new, (draws, curves, len(x_new)); one draw is one
        state of the world. Raises InputError beyond the calibrated distance, unless ``beyond``."""
        x = check_targets(x_new)
        if not beyond:
            self._near_enough(x)
        rng = np.random.default_rng([self.seed, 1])
        common = rng.standard_normal(self.draws)
        rows = []
        for i, posterior in enumerate(self.posteriors):
            own = np.random.default_rng([self.seed, 2, i])
            u = np.log(x / posterior.summary.x_last)
            drawn = self._widen(trajectories(posterior, u, self.draws, own), u)
            rows.append(self._in_order(drawn, u, common, own))
        return np.exp(np.stack(rows, axis=1))

    def marginal(self, name: str, x_new: ArrayLike, level: float = 0.9, *, beyond: bool = False) -> Prediction:
        """One curve's prediction from the joint samples."""
        samples = self.predict(x_new, beyond=beyond)[:, self.names.index(name)]
        return summarise_samples(samples, level)

    def _near_enough(self, x: Array) -> None:
        for name, posterior in zip(self.names, self.posteriors, strict=True):
            distance = float(x.max()) / posterior.summary.x_last
            if distance > self.calibration.reach * (1 + 1e-9):
                raise InputError(
                    f"{name}: x = {x.max():g} is {distance:.3g} times its last x; calibrated up to "
                    f"{self.calibration.reach:g} times: measure nearer, or pass beyond=True"
                )

    def _widen(self, drawn: Array, u: Array) -> Array:
        middle = np.median(drawn, axis=0)
        return middle + (drawn - middle) * self.calibration.widening(u)

    def _in_order(self, drawn: Array, u: Array, common: Array, rng: np.random.Generator) -> Array:
        """The curve's draws, ordered so that curves err together: by the part of the noise that pairs share, and beyond
        the last x by what published curves of one group share."""
        far = float(max(u.max(), 0.0))
        shared = self.calibration.agreement(far)
        noisy = max(self.paired * (1 - far / np.log(4.0)), 0.0)
        total = min(shared + noisy, 0.95)
        latent = np.sqrt(total) * common + np.sqrt(1 - total) * rng.standard_normal(len(common))
        ranked = drawn[np.argsort(drawn[:, np.argmax(u)], kind="stable")]
        ordered: Array = ranked[np.argsort(np.argsort(latent))]
        return ordered


@dataclass(frozen=True)
class Fit:
    """The predictive distribution of one curve."""

    fits: Fits
    form: str | None

    @property
    def warnings(self) -> list[str]:
        """What is odd about the points: not monotone, duplicate x."""
        return list(self.fits.warnings)

    @property
    def weights(self) -> dict[str, float]:
        """The posterior probability of each form."""
        posterior = self.fits.posteriors[0]
        names, weights = posterior.library.names, posterior.member_weights
        return {str(name): float(weights[names == name].sum()) for name in dict.fromkeys(names.tolist())}

    def predict(self, x_new: ArrayLike, level: float = 0.9, beyond: bool = False) -> Prediction:
        """Median, interval and draws of the curve's expected error at x_new."""
        if not 0 < level < 1:
            raise InputError(f"level: expected a number between 0 and 1, got {level!r}")
        return summarise_samples(self.fits.predict(x_new, beyond=beyond)[:, 0], level)

    def parameters(self, form: str | None = None) -> FormFit:
        """The best parameters of a form (the fit's own, or the most probable) for the same points."""
        posterior = self.fits.posteriors[0]
        points = posterior.summary.points
        return fit_form(form or self.form or max(self.weights, key=self.weights.__getitem__), points.x, points.y)


def summarise_samples(samples: Array, level: float) -> Prediction:
    """Median and central interval of draws (draws, points)."""
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
    fits = fit_curves([Curve("curve", x, error, runs)], form=form, seed=seed, draws=draws, calibration=calibration)
    return Fit(fits, form)


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
    share = run_share(curves)
    summaries = [summarise(curve, share) for curve in curves]
    for summary in summaries:
        enough_sizes(load_form(form or "power"), summary.points.num_sizes, f"{summary.curve.name}: ")
    log_noise = noise_prior(sum(one.square for one in summaries), sum(one.freedom for one in summaries))
    posteriors = _pooled(summaries, members, log_noise)
    noise = np.mean([np.exp(one.log_weights).sum(axis=1) for one in posteriors], axis=0)
    return Fits(
        names=tuple(names),
        posteriors=tuple(posteriors),
        warnings=tuple(f"{one.curve.name}: {text}" for one in summaries for text in one.points.warnings),
        noise_sd=float(noise.reshape(len(NOISE), -1).sum(axis=1) @ NOISE),
        paired=paired_share(summaries),
        calibration=calibration or published_calibration(),
        draws=draws,
        seed=seed,
    )


def _pooled(summaries: Sequence[Summary], members: Library, log_noise: Array) -> list[Posterior]:
    posteriors = [infer(summary, members, log_noise) for summary in summaries]
    groups = [summary.curve.group for summary in summaries]
    if len(set(groups)) == len(groups):
        return posteriors
    place = cells(members)
    priors = pooled_priors(members, place, [each.member_weights for each in posteriors], groups)
    return [infer(summary, members, log_noise, prior) for summary, prior in zip(summaries, priors, strict=True)]
