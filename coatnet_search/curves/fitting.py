"""One form, fitted: log residuals, scaled units, many starts, the linear part by non-negative least squares inside.

n points, S shape parameters, L linear ones. A search over shapes from every start (variable projection) is followed by
one over all parameters from the best, to rounding. The objective is the sum of squares, or of Huber terms, of log
residuals in units of the threshold, so that it is of order one: a Huber sum in raw units is so small that default
tolerances stop it after two iterations wherever it began.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares, nnls

from coatnet_search.core.errors import InputError
from coatnet_search.curves import load_form
from coatnet_search.curves.form import Array, Form
from coatnet_search.curves.points import check_points

Residuals = Callable[[Array], Array]

BELOW = 1 - 1e-9  # the floor stays under the smallest y by this factor
INNER, INNER_HUBER = 3, 25  # Gauss-Newton steps from relative to log (Huber) residuals inside the search over shapes
NEAR = 1.01  # optima within this factor of the best objective count as found


@dataclass(frozen=True)
class Optima:
    """Where the starts ended: how many there were, the share that ended within 1 % of the best objective, and the range
    of each published parameter over those."""

    num_starts: int
    share: float
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class FormFit:
    """A form's parameters at full precision in the user's units, their covariance (in the order of ``parameters``; NaN
    for one that lies on its bound or that the points leave open), the sum of (Huber) losses of log residuals, and the
    spread of optima. ``linear`` and ``shape`` are the same fit in scaled units."""

    form: str
    parameters: Mapping[str, float]
    covariance: Array
    objective: float
    residual_sd: float
    optima: Optima
    linear: Array
    shape: Array
    x_scale: Array
    y_scale: float

    def value(self, x: ArrayLike) -> Array:
        """The fitted y at x, (m,) or (m, columns)."""
        form = load_form(self.form)
        scaled = np.asarray(x, dtype=float) / (self.x_scale[0] if len(form.columns) == 1 else self.x_scale)
        return form.value(scaled, self.linear, self.shape) * self.y_scale


@dataclass(frozen=True)
class _Problem:
    """The scaled points of one fit, weights normalised to a mean of one."""

    form: Form
    x: Array
    log_y: Array
    weights: Array
    huber: float | None

    @property
    def unit(self) -> float:
        return self.huber or 1.0

    def loss(self, linear: Array, shape: Array) -> float:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            residual = (np.log(self.form.value(self.x, linear, shape)) - self.log_y) / self.unit
        if not np.isfinite(residual).all():
            return np.inf
        size = np.abs(residual)
        terms = residual**2 / 2 if self.huber is None else np.where(size < 1, size**2 / 2, size - 0.5)
        return float(self.weights @ terms)


def fit_form(
    form: str, x: ArrayLike, error: ArrayLike, *, weights: ArrayLike | None = None, huber: float | None = None
) -> FormFit:
    """The form's best parameters for errors at x, (n,) or (n, columns of the form).

    ``weights`` multiply the squared (or Huber) terms; ``huber`` is the threshold on the log residual. Raises InputError
    where there are too few distinct sizes, and says which simpler form would do.
    """
    law = load_form(form)
    points = check_points(x, error)
    if (1 if points.x.ndim == 1 else points.x.shape[1]) != len(law.columns):
        raise InputError(
            f"form {form}: expected x with the columns {', '.join(law.columns)}, got shape {points.x.shape}"
        )
    enough_sizes(law, points.num_sizes)
    given = np.ones(len(points.y)) if weights is None else np.asarray(weights, dtype=float)[_order(x)]
    x_scale, y_scale = law.scale(points.x), float(points.y[-1])
    scaled = points.x / (x_scale[0] if points.x.ndim == 1 else x_scale)
    problem = _Problem(law, scaled, np.log(points.y / y_scale), given / given.mean(), huber)
    return _solve(problem, x_scale, y_scale)


def enough_sizes(form: Form, num_sizes: int, name: str = "") -> None:
    """Raises InputError where the form has no unique fit to so few distinct sizes."""
    if num_sizes >= form.min_sizes:
        return
    offer = f"; form {form.simpler!r} needs fewer" if form.simpler else "; measure more sizes"
    raise InputError(f"{name}form {form.name} needs {form.min_sizes} distinct sizes, got {num_sizes}{offer}")


def _order(x: ArrayLike) -> NDArray[np.intp]:
    array = np.asarray(x, dtype=float)
    order: NDArray[np.intp] = np.lexsort(array.reshape(len(array), -1).T[::-1])
    return order


def _solve(problem: _Problem, x_scale: Array, y_scale: float) -> FormFit:
    ends = [_search(problem, start) for start in problem.form.starts()]
    ends = sorted((end for end in ends if np.isfinite(end[0])), key=lambda end: end[0])
    polished = [_polish(problem, linear, shape) for _, linear, shape in _distinct(ends)[:3]]
    objective, linear, shape = min(polished, key=lambda end: end[0])
    names = problem.form.parameters
    published = problem.form.published(linear, shape, x_scale, y_scale)
    limit = objective * NEAR + 1e-12
    found = [problem.form.published(*end[1:], x_scale, y_scale) for end in ends if end[0] <= limit] or [published]
    ranges = {name: (min(row[name] for row in found), max(row[name] for row in found)) for name in names}
    share = sum(end[0] <= limit for end in ends) / len(problem.form.starts())
    residual = np.log(problem.form.value(problem.x, linear, shape)) - problem.log_y
    freedom = max(len(residual) - len(names), 1)
    return FormFit(
        form=problem.form.name,
        parameters={name: published[name] for name in names},
        covariance=_covariance(problem, linear, shape, x_scale, y_scale),
        objective=objective * problem.unit**2,
        residual_sd=float(np.sqrt(problem.weights @ residual**2 / freedom)),
        optima=Optima(len(problem.form.starts()), share, ranges),
        linear=linear,
        shape=shape,
        x_scale=x_scale,
        y_scale=y_scale,
    )


def project(problem: _Problem, shape: Array) -> Array:
    """The best non-negative linear part for a shape: relative residuals first, then Gauss-Newton steps to log ones."""
    features = problem.form.features(problem.x, shape)
    fitted = np.exp(problem.log_y)
    linear = np.zeros(features.shape[1])
    for _ in range(INNER if problem.huber is None else INNER_HUBER):
        residual = np.log(fitted) - problem.log_y
        robust = 1.0 if problem.huber is None else np.minimum(1.0, problem.unit / np.maximum(np.abs(residual), 1e-300))
        root = np.sqrt(problem.weights * robust)
        linear = _non_negative(features / fitted[:, None] * root[:, None], (1 - residual) * root)
        linear = _under_smallest(problem, features, linear)
        fitted = np.maximum(features @ linear, 1e-12)
    return linear


def _non_negative(matrix: Array, target: Array) -> Array:
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    solved: Array = nnls(matrix / scale, target)[0]
    return solved / scale


def _under_smallest(problem: _Problem, features: Array, linear: Array) -> Array:
    floor, smallest = problem.form.floor, float(np.exp(problem.log_y.min())) * BELOW
    if floor is None or linear[floor] < smallest:
        return linear
    rest = [i for i in range(len(linear)) if i != floor]
    y = np.exp(problem.log_y)
    linear = linear.copy()
    linear[floor] = smallest
    linear[rest] = _non_negative(features[:, rest] / y[:, None], 1 - smallest / y)
    return linear


def _search(problem: _Problem, start: Array) -> tuple[float, Array, Array]:
    low, high = np.array(problem.form.bounds).T

    def residuals(shape: Array) -> Array:
        value = problem.form.value(problem.x, project(problem, shape), shape)
        return np.sqrt(problem.weights) * (np.log(np.maximum(value, 1e-12)) - problem.log_y) / problem.unit

    loss = "linear" if problem.huber is None else "huber"
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        try:
            end = least_squares(residuals, start, bounds=(low, high), loss=loss, max_nfev=40, xtol=1e-6, ftol=1e-6).x
        except (ValueError, RuntimeError):  # a shape at the edge of what floats hold: this start leads nowhere
            return np.inf, np.zeros(0), start
        linear = project(problem, end)
    return problem.loss(linear, end), linear, end


def _distinct(ends: list[tuple[float, Array, Array]]) -> list[tuple[float, Array, Array]]:
    kept: list[tuple[float, Array, Array]] = []
    for end in ends:
        if all(np.abs(end[2] - other[2]).max() > 0.05 for other in kept):
            kept.append(end)
    return kept


def _polish(problem: _Problem, linear: Array, shape: Array) -> tuple[float, Array, Array]:
    """The optimum over all parameters that are off their bounds, from a point near it, to rounding."""
    residuals, start, low, high, unpack = _free(problem, linear, shape)
    loss = "linear" if problem.huber is None else "huber"
    best = (problem.loss(linear, shape), linear, shape)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        for _ in range(3):  # a restart renews the scaling of the variables
            end = least_squares(
                residuals, start, bounds=(low, high), loss=loss, jac="3-point", x_scale="jac",
                ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=300,
            )  # fmt: skip
            start = np.clip(end.x, low, high)
            at = unpack(start)
            value = problem.loss(*at)
            if value >= best[0] * (1 - 1e-10):
                break
            best = (value, *at)
    return best


def _free(
    problem: _Problem, linear: Array, shape: Array
) -> tuple[Residuals, Array, Array, Array, Callable[[Array], tuple[Array, Array]]]:
    """Residuals as a function of the parameters that are off their bounds: the logs of positive linear parts are not
    taken, because a floor may reach zero."""
    form = problem.form
    used = np.flatnonzero(linear > 0)
    ceiling = np.full(len(linear), np.inf)
    if form.floor is not None:
        ceiling[form.floor] = np.exp(problem.log_y.min())
    shape_low, shape_high = np.array(form.bounds).T
    low = np.concatenate([np.zeros(len(used)), shape_low])
    high = np.concatenate([ceiling[used], shape_high])
    start = np.clip(np.concatenate([linear[used], shape]), low + 1e-12, np.where(np.isinf(high), high, high - 1e-12))

    def unpack(free: Array) -> tuple[Array, Array]:
        full = np.zeros(len(linear))
        full[used] = free[: len(used)]
        return full, free[len(used) :]

    def residuals(free: Array) -> Array:
        value = form.value(problem.x, *unpack(free))
        return np.sqrt(problem.weights) * (np.log(np.maximum(value, 1e-12)) - problem.log_y) / problem.unit

    return residuals, start, low, high, unpack


def _covariance(problem: _Problem, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Array:
    """Covariance of the published parameters: the sandwich of the (Huber) residuals at the optimum, through the
    derivative of the published parameters by the free ones."""
    residuals, start, low, high, unpack = _free(problem, linear, shape)
    names = problem.form.parameters
    jacobian = _derivative(residuals, start, low, high)
    residual = residuals(start)
    inside = np.ones(len(residual), dtype=bool) if problem.huber is None else np.abs(residual) < 1
    psi = np.clip(residual, -1, 1) if problem.huber is not None else residual
    freedom = max(len(residual) - len(names), 1)
    bread = np.linalg.pinv(jacobian[inside].T @ jacobian[inside], rcond=1e-14)
    inner = bread * float(psi @ psi) / freedom
    if problem.huber is not None:
        inner = bread @ (jacobian.T * psi**2) @ jacobian @ bread * len(residual) / freedom
    outer = _derivative(
        lambda free: np.array([problem.form.published(*unpack(free), x_scale, y_scale)[name] for name in names]),
        start, low, high,
    )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        covariance: Array = outer @ inner @ outer.T
    unknown = np.flatnonzero(~outer.any(axis=1) | ~np.isfinite(np.diag(covariance)))
    covariance[unknown], covariance[:, unknown] = np.nan, np.nan
    return covariance


def _derivative(function: Residuals, at: Array, low: Array, high: Array) -> Array:
    columns = []
    for i in range(len(at)):
        step = 1e-6 * max(abs(at[i]), 1e-3)
        up, down = at.copy(), at.copy()
        up[i], down[i] = min(at[i] + step, high[i]), max(at[i] - step, low[i])
        columns.append((function(up) - function(down)) / (up[i] - down[i]))
    derivative: Array = np.stack(columns, axis=1)
    return derivative
