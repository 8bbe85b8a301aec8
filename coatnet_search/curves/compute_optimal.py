"""What a budget of compute buys: the best size and data from the joint form, and the iso-FLOP parabola beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.core.errors import InputError
from coatnet_search.curves.fitting import FormFit
from coatnet_search.curves.form import Array
from coatnet_search.curves.points import check_points


@dataclass(frozen=True)
class Allocation:
    """At each compute: the size N and data D with the smallest loss, that loss, and ``draws`` of N (draws, budgets)
    from the parameters' covariance. N grows with compute to the power ``exponent`` = beta / (alpha + beta)."""

    size: Array
    data: Array
    loss: Array
    exponent: float
    draws: Array


def compute_optimal(fit: FormFit, compute: ArrayLike, cost: float = 6.0, draws: int = 400, seed: int = 0) -> Allocation:
    """The compute-optimal frontier of a joint form, where a run costs ``cost`` * N * D (6 for multiply-adds of forward
    and backward counted twice, as in Hoffmann 2022). Raises InputError for another form or one that does not fall."""
    names = ("E", "A", "B", "alpha", "beta")
    if fit.form != "joint":
        raise InputError(f"compute-optimal allocation: expected a fit of form 'joint', got {fit.form!r}")
    centre = np.array([fit.parameters[name] for name in names])
    if (centre[1:] <= 0).any():
        raise InputError("compute-optimal allocation: the loss does not fall with both size and data")
    budget = np.atleast_1d(np.asarray(compute, dtype=float)) / cost
    size = _best_size(centre, budget)
    data = budget / size
    loss = centre[0] + centre[1] * size ** -centre[3] + centre[2] * data ** -centre[4]
    spread = np.nan_to_num(fit.covariance) / np.outer(centre, centre)  # of the logs: they stay positive
    logs = np.random.default_rng(seed).multivariate_normal(
        np.log(centre[1:]), spread[1:, 1:], draws, check_valid="ignore"
    )
    drawn = np.stack([_best_size(np.array([centre[0], *np.exp(row)]), budget) for row in logs])
    return Allocation(size, data, loss, float(centre[4] / (centre[3] + centre[4])), drawn)


def _best_size(parameters: Array, budget: Array) -> Array:
    _, a, b, alpha, beta = parameters
    size: Array = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * budget ** (beta / (alpha + beta))
    return size


@dataclass(frozen=True)
class Parabola:
    """The smallest loss at one budget by a parabola in log size: a cross-check alone, biased even without noise."""

    size: float
    loss: float
    residual_sd: float


def isoflop_parabola(size: ArrayLike, loss: ArrayLike) -> Parabola:
    """The minimum of a parabola in log size through runs of equal compute. Raises InputError where there are fewer than
    four sizes or where the minimum does not lie inside the range of sizes."""
    points = check_points(size, loss, name="iso-FLOP runs")
    if points.num_sizes < 4:
        raise InputError(f"iso-FLOP parabola: needs 4 distinct sizes, got {points.num_sizes}")
    centre = float(np.log(points.x).mean())
    u = np.log(points.x) - centre
    square, line, level = np.polyfit(u, points.y, 2)
    place = -line / (2 * square) if square > 0 else np.nan
    if not u[0] < place < u[-1]:
        raise InputError(
            "iso-FLOP parabola: no interior minimum within the sizes measured "
            f"({points.x[0]:g} to {points.x[-1]:g}); add runs of other sizes at this compute"
        )
    rest = points.y - np.polyval([square, line, level], u)
    sd = float(np.sqrt(rest @ rest / max(len(u) - 3, 1)))
    return Parabola(float(np.exp(place + centre)), float(level - line**2 / (4 * square)), sd)
