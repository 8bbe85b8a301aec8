"""The one predictive distribution: value, interval, order of curves, crossover and regret all come from its samples.

The curves of a group are fitted together (``arms.py``), a curve alone by its own posterior (``posterior.py``). A draw is
a state of the world: a whole curve for each arm, kept on a grid of log x, so that every call of ``predict`` reads the
same draws. No draw is moved or widened afterwards.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.core.errors import InputError
from coatnet_search.curves import load_form
from coatnet_search.curves.arms import Group, fit_group
from coatnet_search.curves.fitting import FormFit, enough_sizes, fit_form
from coatnet_search.curves.form import Array
from coatnet_search.curves.points import check_points
from coatnet_search.curves.summary import Curve, summarise

DRAWS = 2000
REACH = 16.0  # times the last x: how far predictions were checked (benchmarks/curve_fits.py)
FARTHEST = 4096.0  # times the last x: no prediction beyond it, checked or not
BELOW = 16.0  # a draw reaches down to the smallest x over this
INSIDE, AHEAD, BEYOND = 25, 25, 13  # points of the grid: down from the last x, over the checked range, and beyond


@dataclass(frozen=True)
class Prediction:
    """At each x_new: the median, the bounds of the central interval, and the draws (draws, len(x_new)) of error."""

    value: Array
    low: Array
    high: Array
    samples: Array


@dataclass(frozen=True)
class Fits:
    """The joint predictive distribution of several curves; ``noise_sd`` is that of a run's log error (beyond what the
    number of images explains), ``paired`` the share of it that runs of one label and size have in common. ``places``
    says of each curve its group and its place there."""

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    places: tuple[tuple[int, int], ...]
    warnings: tuple[str, ...]
    form: str | None = None
    draws: int = DRAWS
    seed: int = 0
    reach: float = REACH

    @functools.cached_property
    def noise_sd(self) -> float:
        return float(np.sqrt(np.mean([group.noise_variance for group in self.groups])))

    @property
    def paired(self) -> float:
        return max(group.summary.paired for group in self.groups)

    def predict(self, x_new: ArrayLike, *, beyond: bool = False) -> Array:
        """Draws of each curve's expected error at x_new, (draws, curves, len(x_new)); one draw is one state of the
        world, at every x and in every call. Raises InputError beyond the checked distance, unless ``beyond``."""
        x = check_targets(x_new)
        rows = []
        for name, (group, arm) in zip(self.names, self.places, strict=True):
            grid, drawn = self._worlds[group]
            summary = self.groups[group].summary
            u = np.log(x / summary.x_last)
            self._near_enough(name, float(x.max() / summary.points[arm].x[-1]), u, grid, beyond)
            place = np.clip(np.searchsorted(grid, u) - 1, 0, len(grid) - 2)
            share = (u - grid[place]) / (grid[place + 1] - grid[place])
            rows.append(drawn[:, arm, place] * (1 - share) + drawn[:, arm, place + 1] * share)
        return np.exp(np.stack(rows, axis=1))

    def marginal(self, name: str, x_new: ArrayLike, level: float = 0.9, *, beyond: bool = False) -> Prediction:
        """One curve's median, interval and draws, from the joint samples."""
        return summarise_samples(self.predict(x_new, beyond=beyond)[:, self.names.index(name)], level)

    def alone(self, name: str) -> "Fit":
        """One curve of these as a fit of its own, fitted with the others as it is here."""
        return Fit(self, self.names.index(name))

    @functools.cached_property
    def _worlds(self) -> list[tuple[Array, Array]]:
        """Each group's grid of u and its draws of log error (draws, arms, grid)."""
        found = []
        for i, group in enumerate(self.groups):
            grid = _grid(float(group.summary.u[0]))
            found.append((grid, group.draw(grid, self.draws, np.random.default_rng([self.seed, 4, i]))))
        return found

    def _near_enough(self, name: str, distance: float, u: Array, grid: Array, beyond: bool) -> None:
        if distance > self.reach * (1 + 1e-9) and not beyond:
            raise InputError(
                f"{name}: asked at {distance:.3g} times its largest size on record, and predictions are calibrated up "
                f"to {self.reach:g} times: measure nearer, or allow it (--beyond; beyond=True)"
            )
        if u.max() > grid[-1] or u.min() < grid[0]:
            raise InputError(
                f"{name}: {distance:.3g} times its largest size on record is out of every range; ask nearer to that"
            )


def _grid(first: float) -> Array:
    reach, end = np.log(REACH), np.log(FARTHEST)
    return np.concatenate(
        [
            np.linspace(first - np.log(BELOW), 0.0, INSIDE),
            np.linspace(0.0, reach, AHEAD + 1)[1:],
            np.linspace(reach, end, BEYOND + 1)[1:],
        ]
    )


@dataclass(frozen=True)
class Fit:
    """The predictive distribution of one curve: the one at ``place`` of a joint fit."""

    fits: Fits
    place: int = 0

    @property
    def warnings(self) -> list[str]:
        """What is odd about the points: not monotone, duplicate x, a run that fits no curve."""
        return list(self.fits.warnings)

    @property
    def weights(self) -> dict[str, float]:
        """The posterior probability of each form of the (common) curve."""
        return self.fits.groups[self.fits.places[self.place][0]].common.form_weights

    def predict(self, x_new: ArrayLike, level: float = 0.9, beyond: bool = False) -> Prediction:
        """Median, interval and draws of the curve's expected error at x_new."""
        return summarise_samples(self.fits.predict(x_new, beyond=beyond)[:, self.place], level)

    def parameters(self, form: str | None = None) -> FormFit:
        """The best parameters of a form (the fit's own, or the most probable) for the same points."""
        group, arm = self.fits.places[self.place]
        points = self.fits.groups[group].summary.points[arm]
        return fit_form(form or self.fits.form or max(self.weights, key=self.weights.__getitem__), points.x, points.y)


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
    images: int | None = None,
) -> Fit:
    """The predictive distribution of one curve; ``form`` names one form instead of all, ``images`` on how many images
    each error was measured. Raises InputError for points that cannot be fitted and for too few sizes."""
    curve = Curve("curve", x, error, runs, images=images)
    return Fit(fit_curves([curve], form=form, seed=seed, draws=draws))


def fit_curves(curves: Sequence[Curve], form: str | None = None, *, seed: int = 0, draws: int = DRAWS) -> Fits:
    """The joint predictive distribution of the curves of one study; curves of one form (``form``) each stand alone.
    Raises InputError for points that cannot be fitted, names that come twice, and too few sizes."""
    names = [curve.name for curve in curves]
    if not curves or len(set(names)) < len(names):
        raise InputError("curves: expected at least one, each with a name of its own")
    points = [check_points(each.x, each.error, each.runs, each.name, each.instances, each.images) for each in curves]
    for curve, each in zip(curves, points, strict=True):
        enough_sizes(load_form(form or "power"), each.num_sizes, f"{curve.name}: ")
    keys = [curve.group if form is None else curve.name for curve in curves]
    members = {key: [i for i, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)}
    groups, places = [], {}
    for number, (_, rows) in enumerate(members.items()):
        summary = summarise([curves[i] for i in rows], [points[i] for i in rows])
        groups.append(fit_group(summary, form, seed))
        places.update({i: (number, arm) for arm, i in enumerate(rows)})
    return Fits(
        names=tuple(names),
        groups=tuple(groups),
        places=tuple(places[i] for i in range(len(curves))),
        warnings=tuple(
            f"{curve.name}: {text}" for curve, each in zip(curves, points, strict=True) for text in each.warnings
        ),
        form=form,
        draws=draws,
        seed=seed,
    )
