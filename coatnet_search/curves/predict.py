"""The one predictive distribution: value, interval, order of curves, crossover and regret all come from its samples.

The curves of a group are fitted together (``arms.py``), a curve alone by its own posterior (``posterior.py``). A draw
is a state of the world: a whole curve for each arm, kept on a grid of log x, so that every call of ``predict`` reads
the same draws. No draw is moved or widened afterwards.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.core.errors import InputError
from coatnet_search.curves import load_form
from coatnet_search.curves.arms import Group, fit_group
from coatnet_search.curves.deviating import Suspect, suspects, without
from coatnet_search.curves.fitting import FormFit, enough_sizes, fit_form
from coatnet_search.curves.form import Array
from coatnet_search.curves.points import Points, check_points
from coatnet_search.curves.summary import Curve, summarise

Fitted = tuple[tuple[Group, ...], tuple[tuple[int, int], ...]]  # groups, and of each curve its group and place

DRAWS = 2000
NOTABLE = 0.1  # probability from which odd points are told, and the answer allows for them
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
class World:
    """What may be so of the points, with a share of all ``draws``: ``groups`` fitted, and of each curve its group and
    its place there; ``jumps``: by curve, the size from which on it lies at a measured log error, with its sd."""

    groups: tuple[Group, ...]
    places: tuple[tuple[int, int], ...]
    draws: int
    seed: int
    jumps: Mapping[int, tuple[float, float, float]]

    def predict(self, x: Array) -> Array:
        """Draws of log error (draws, curves, len(x))."""
        columns = []
        for curve, (group, arm) in enumerate(self.places):
            grid, drawn = self._drawn[group]
            u = np.log(x / self.groups[group].summary.x_last)
            values = _between(grid, drawn[:, arm], u)
            if curve in self.jumps:
                size, level, sd = self.jumps[curve]
                jumped = level + sd * np.random.default_rng([self.seed, 5, curve]).standard_normal((self.draws, 1))
                there = _between(grid, drawn[:, arm], np.log(np.array([size]) / self.groups[group].summary.x_last))
                values = values + np.where(x >= size * (1 - 1e-9), jumped - there, 0.0)
            columns.append(values)
        return np.stack(columns, axis=1)

    @functools.cached_property
    def _drawn(self) -> list[tuple[Array, Array]]:
        """Each group's grid of u and its draws of log error (draws, arms, grid)."""
        found = []
        for i, group in enumerate(self.groups):
            grid = _grid(float(group.summary.u[0]))
            found.append((grid, group.draw(grid, self.draws, np.random.default_rng([self.seed, 4, i]))))
        return found


def _between(grid: Array, drawn: Array, u: Array) -> Array:
    place = np.clip(np.searchsorted(grid, u) - 1, 0, len(grid) - 2)
    share = (u - grid[place]) / (grid[place + 1] - grid[place])
    values: Array = drawn[:, place] * (1 - share) + drawn[:, place + 1] * share
    return values


@dataclass(frozen=True)
class Fits:
    """The joint predictive distribution of several curves; ``noise_sd`` is that of a run's log error (beyond what the
    number of images explains), ``paired`` the share of it that runs of one label and size have in common. ``spans``:
    the smallest and the largest x of each curve; ``suspects``: points that fit no curve, at most one size a curve."""

    names: tuple[str, ...]
    worlds: tuple[World, ...]
    spans: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...]
    suspects: tuple[Suspect, ...] = ()
    form: str | None = None
    seed: int = 0
    reach: float = REACH

    @functools.cached_property
    def noise_sd(self) -> float:
        return float(np.sqrt(np.mean([group.noise_variance for group in self.worlds[0].groups])))

    @property
    def paired(self) -> float:
        return max(group.summary.paired for group in self.worlds[0].groups)

    def predict(self, x_new: ArrayLike, *, beyond: bool = False) -> Array:
        """Draws of each curve's expected error at x_new, (draws, curves, len(x_new)); one draw is one state of the
        world, at every x and in every call. Raises InputError beyond the calibrated distance, unless ``beyond``."""
        x = check_targets(x_new)
        for name, span in zip(self.names, self.spans, strict=True):
            self._near_enough(name, x, span, beyond)
        return np.exp(np.concatenate([world.predict(x) for world in self.worlds if world.draws]))

    def marginal(self, name: str, x_new: ArrayLike, level: float = 0.9, *, beyond: bool = False) -> Prediction:
        """One curve's median, interval and draws, from the joint samples."""
        return summarise_samples(self.predict(x_new, beyond=beyond)[:, self.names.index(name)], level)

    def alone(self, name: str) -> "Fit":
        """One curve of these as a fit of its own, fitted with the others as it is here."""
        return Fit(self, self.names.index(name))

    def _near_enough(self, name: str, x: Array, span: tuple[float, float], beyond: bool) -> None:
        distance = float(x.max() / span[1])
        if distance > self.reach * (1 + 1e-9) and not beyond:
            raise InputError(
                f"{name}: asked at {distance:.3g} times its largest size on record, and predictions are calibrated up "
                f"to {self.reach:g} times: measure nearer, or allow it (--beyond; beyond=True)"
            )
        if distance > FARTHEST or x.min() < span[0] / BELOW * (1 - 1e-9):
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
        start = f"{self.fits.names[self.place]}: "
        return [text.removeprefix(start) for text in self.fits.warnings if text.startswith(start)]

    @property
    def weights(self) -> dict[str, float]:
        """The posterior probability of each form of the (common) curve."""
        return self.fits.worlds[0].groups[self.fits.worlds[0].places[self.place][0]].common.form_weights

    def predict(self, x_new: ArrayLike, level: float = 0.9, beyond: bool = False) -> Prediction:
        """Median, interval and draws of the curve's expected error at x_new."""
        return summarise_samples(self.fits.predict(x_new, beyond=beyond)[:, self.place], level)

    def parameters(self, form: str | None = None) -> FormFit:
        """The best parameters of a form (the fit's own, or the most probable) for the same points."""
        world = self.fits.worlds[0]
        group, arm = world.places[self.place]
        points = world.groups[group].summary.points[arm]
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
    odd = suspects(curves, points, seed) if form is None else []
    odd = [one for one in odd if one.probability > NOTABLE]
    return Fits(
        names=tuple(names),
        worlds=tuple(_worlds(curves, points, odd, form, draws, seed)),
        spans=tuple((float(each.x.min()), float(each.x.max())) for each in points),
        warnings=(
            *(f"{curve.name}: {text}" for curve, each in zip(curves, points, strict=True) for text in each.warnings),
            *(one.text(curves[one.curve].name) for one in odd),
        ),
        suspects=tuple(odd),
        form=form,
        seed=seed,
    )


def _worlds(curves: Sequence[Curve], points: Sequence[Points], odd: Sequence[Suspect], form: str | None, draws: int,
            seed: int) -> list[World]:  # fmt: skip
    """All points are on their curves; or the odd ones are not, and broken; or they are right, and the curves jumped."""
    if not odd:
        return [World(*_fitted(curves, points, form, seed), draws, seed, {})]
    likely = float(np.mean([one.probability for one in odd]))
    jumped = float(np.mean([one.jumped for one in odd]))
    counts = np.round(draws * np.cumsum([1 - likely, likely * (1 - jumped), likely * jumped])).astype(int)
    counts = np.diff(counts, prepend=0)
    usual = World(*_fitted(curves, points, form, seed), int(counts[0]), seed, {})
    left = list(curves)
    for one in odd:
        left[one.curve] = without(curves[one.curve], points[one.curve], one.x)
    checked = [check_points(each.x, each.error, each.runs, each.name, each.instances, each.images) for each in left]
    fitted = _fitted(left, checked, form, seed)
    jumps = {one.curve: (one.x, float(np.log(one.error)), _sd(fitted, one, curves[one.curve].images))
             for one in odd if one.last}  # fmt: skip
    return [usual, World(*fitted, int(counts[1]), seed + 1, {}), World(*fitted, int(counts[2]), seed + 2, jumps)]


def _sd(fitted: Fitted, odd: Suspect, images: int | None) -> float:
    """Of the mean log error of odd points, by the noise of a run and the number of images."""
    groups, places = fitted
    noise = groups[places[odd.curve][0]].noise_variance
    return float(np.sqrt((noise + ((1 - odd.error) / (odd.error * images) if images else 0.0)) / odd.count))


def _fitted(curves: Sequence[Curve], points: Sequence[Points], form: str | None, seed: int) -> Fitted:
    keys = [curve.group if form is None else curve.name for curve in curves]
    members = {key: [i for i, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)}
    groups, places = [], {}
    for number, rows in enumerate(members.values()):
        groups.append(fit_group(summarise([curves[i] for i in rows], [points[i] for i in rows]), form, seed))
        places.update({i: (number, arm) for arm, i in enumerate(rows)})
    return tuple(groups), tuple(places[i] for i in range(len(curves)))
