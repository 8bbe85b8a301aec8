"""The points of a curve, checked: what is refused, and what is fitted with a warning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coatnet_search.core.errors import InputError
from coatnet_search.curves.form import Array

DIVERGED = 3.0  # an error this many times the smallest one before it is a run that broke, not noise of a curve


@dataclass(frozen=True)
class Points:
    """Points in order of x: x (n,) or (n, columns), y (n,), ``runs`` one label a point or None, ``order`` from the
    user's order to this one, and what the user should know of them."""

    x: Array
    y: Array
    runs: tuple[str, ...] | None
    warnings: tuple[str, ...]
    instances: tuple[str, ...] | None = None

    @property
    def num_sizes(self) -> int:
        return len(np.unique(self.x, axis=0))


def check_points(x: ArrayLike, error: ArrayLike, runs: Sequence[object] | None = None, name: str = "curve",
                 instances: Sequence[object] | None = None, images: int | None = None) -> Points:  # fmt: skip
    """The points in order of x; ``instances`` (by default the runs) name what stays with a run at all sizes, and of
    ``images`` images none wrong counts as half a wrong one.

    Raises InputError for what no form can be fitted to: shapes that differ, numbers that are not positive, a curve of
    which one run diverged.
    """
    x_array, y = _numbers(f"{name}: x", x), _numbers(f"{name}: error", _half_wrong(error, images))
    if y.ndim != 1 or x_array.ndim not in (1, 2) or len(x_array) != len(y):
        raise InputError(f"{name}: expected as many x as errors, got shapes {x_array.shape} and {y.shape}")
    if runs is not None and len(runs) != len(y):
        raise InputError(f"{name}: expected one run label a point, got {len(runs)} for {len(y)} points")
    order = np.lexsort(x_array.reshape(len(y), -1).T[::-1])
    x_array, y = x_array[order], y[order]
    labels = None if runs is None else tuple(str(runs[i]) for i in order)
    stays = labels if instances is None else tuple(str(instances[i]) for i in order)
    warnings = _shape_of(name, x_array, y, labels) if x_array.ndim == 1 else ()
    return Points(x_array, y, labels, warnings, stays)


def half_wrong(images: int) -> float:
    """What none wrong of so many images counts as: (0 + 1/2) / (images + 1), which has a logarithm."""
    return 0.5 / (images + 1)


def _half_wrong(error: ArrayLike, images: int | None) -> ArrayLike:
    if images is None:
        return error
    try:
        values = np.asarray(error, dtype=float)
    except (TypeError, ValueError):
        return error  # refused as all others
    return np.where(values == 0, half_wrong(images), values)


def _numbers(place: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{place}: expected numbers") from None
    if array.size == 0:
        raise InputError(f"{place}: expected numbers, got none")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)).ravel())
    if len(bad):
        value = array.ravel()[bad[0]]
        raise InputError(
            f"{place}: expected positive numbers, got {value:g} at position {bad[0]}; leave failed runs out"
        )
    return array


def _shape_of(name: str, x: Array, y: Array, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    sizes, means = means_by_size(x, np.log(y))
    rise = means - np.minimum.accumulate(means)
    worst = int(np.argmax(rise))
    if (
        rise[worst] > np.log(DIVERGED) and (x == sizes[worst]).sum() == 1
    ):  # several runs show themselves how they differ
        raise InputError(
            f"{name}: diverged: the error at x = {sizes[worst]:g} is {np.exp(rise[worst]):.3g} times the smallest"
            " before it; leave the run out"
        )
    warnings = []
    if rise[worst] > 0:
        warnings.append(
            f"not monotone: the error at x = {sizes[worst]:g} is {np.expm1(rise[worst]):.2%} above a smaller x's"
        )
    if len(sizes) < len(x) and labels is None:
        warnings.append(
            f"duplicate x: {len(x)} points at {len(sizes)} sizes, taken for repeats with seeds of their own"
        )
    elif labels is not None and len(set(zip(x.tolist(), labels, strict=True))) < len(x):
        warnings.append("duplicate x: some run labels come twice at one size; taken for repeats")
    return tuple(warnings)


def means_by_size(x: Array, z: Array) -> tuple[Array, Array]:
    """The distinct sizes and the mean of z at each."""
    sizes, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return sizes, np.bincount(place, z) / counts
