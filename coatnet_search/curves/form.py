"""What a form of scaling law is: the interface of the files of the menu. n points, S shape parameters, L linear.

Every form is written as ``y = features(x, shape) @ linear`` with ``linear >= 0``, so that the linear part is found by
non-negative least squares inside any search for the shape (variable projection: the search is well conditioned, while a
search over all parameters at once is not). Both parts live in scaled units: x in units of its last value, y in units of
its last value. ``published`` turns them into the parameters that the literature prints.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Form(ABC):
    """One form of scaling law.

    ``parameters`` are the published names, ``columns`` the inputs (one, or several for the joint forms), ``min_sizes``
    the number of distinct sizes below which the form has no unique fit, ``simpler`` the form to offer then.
    ``bounds`` holds a (low, high) pair for each shape parameter.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]] = ("x",)
    min_sizes: ClassVar[int]
    simpler: ClassVar[str | None] = None
    dimensions: ClassVar[int] = 0  # coordinates of ``plausible``; 0: takes no part in the predictive distribution
    floor: ClassVar[int | None] = None  # which of the linear parts is the floor: it stays below the smallest y
    bounds: ClassVar[tuple[tuple[float, float], ...]]

    @abstractmethod
    def features(self, x: Array, shape: Array) -> Array:
        """The linear parts at x, (n,) or (n, columns), for shapes (..., S): (..., n, L)."""

    def scale(self, x: Array) -> Array:
        """What x is divided by, (columns,): its last value."""
        largest: Array = x.reshape(len(x), -1).max(axis=0)
        return largest

    @abstractmethod
    def starts(self) -> Array:
        """Shapes from which a search starts, (starts, S)."""

    @abstractmethod
    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        """The published parameters, in the units of the user, of a linear (L,) and a shape (S,) in scaled units."""

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        """The form's prior as a map of the unit cube, (count, dimensions), where it is even: linear (count, L) and
        shape (count, S) in scaled units."""
        raise NotImplementedError(f"form {self.name} has no prior")

    def value(self, x: Array, linear: Array, shape: Array) -> Array:
        """y at x for linear (..., L) and shape (..., S): (..., n)."""
        parts: Array = np.einsum("...nl,...l->...n", self.features(x, shape), linear)
        return parts


def grid(*axes: ArrayLike) -> Array:
    """Every combination of the values of the axes, a row each."""
    return np.stack([part.ravel() for part in np.meshgrid(*map(np.asarray, axes), indexing="ij")], axis=-1).astype(
        float
    )


def exponents(share: Array) -> Array:
    """Exponents of published curves run from .02 (tokens of language models) to 1.5 (small data): even in the log from
    .01 to 2."""
    drawn: Array = np.exp(np.log(0.01) + share * (np.log(2.0) - np.log(0.01)))
    return drawn


def floors(share: Array) -> Array:
    """The floor as a share of the last y: even in the share."""
    return np.asarray(share)
