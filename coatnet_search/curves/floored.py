"""Power law with a floor: y = e + b x^-c; M2 in Alabdulmohsin 2022."""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, exponents, floors


class Floored(Form):
    """e + b x^-c; linear (e, b), shape (log c,)."""

    name = "floor"
    parameters = ("e", "b", "c")
    min_sizes = 3
    dimensions = 2
    simpler = "power"
    floor = 0
    bounds = ((-5.0, 2.0),)

    def features(self, x: Array, shape: Array) -> Array:
        fall = np.exp(-np.exp(shape[..., 0, None]) * np.log(x))
        return np.stack([np.ones_like(fall), fall], axis=-1)

    def starts(self) -> Array:
        return np.log([[0.05], [0.15], [0.4], [1.0], [2.0]])

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        c = float(np.exp(shape[0]))
        return {"e": float(linear[0] * y_scale), "b": float(linear[1] * y_scale * x_scale[0] ** c), "c": c}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        floor = floors(cube[:, 1])
        return np.stack([floor, 1 - floor], axis=1), np.log(exponents(cube[:, 0]))[:, None]
