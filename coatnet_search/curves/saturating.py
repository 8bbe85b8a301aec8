"""Double saturation: y = a (x + d)^-b + c [Zhai 2021]: level before x reaches d, and level again at the floor c."""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, exponents, floors, grid


class Saturating(Form):
    """a (x + d)^-b + c; linear (c, a), shape (log b, log d)."""

    name = "saturating"
    parameters = ("a", "b", "c", "d")
    min_sizes = 4
    dimensions = 3
    simpler = "floor"
    floor = 0
    bounds = ((-5.0, 3.0), (-14.0, 5.0))

    def features(self, x: Array, shape: Array) -> Array:
        b, d = np.exp(shape[..., 0, None]), np.exp(shape[..., 1, None])
        fall = ((x + d) / (1 + d)) ** -b
        return np.stack([np.ones_like(fall), fall], axis=-1)

    def starts(self) -> Array:
        return grid(np.log([0.1, 0.4, 1.2]), np.log([0.001, 0.03, 0.3, 3.0]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        b, d = (float(part) for part in np.exp(shape))
        a = float(linear[1] * y_scale * ((1 + d) * x_scale[0]) ** b)
        return {"a": a, "b": b, "c": float(linear[0] * y_scale), "d": d * float(x_scale[0])}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        shape = np.stack([np.log(exponents(cube[:, 0])), -5.0 + 7.5 * cube[:, 1]], axis=1)
        floor = floors(np.maximum(2 * cube[:, 2] - 1, 0.0))  # none for one half of the curves
        return np.stack([floor, 1 - floor], axis=1), shape
