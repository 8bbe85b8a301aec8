"""Shifted power law: y = b (1/x + g)^c [Bansal 2022]; M3 in Alabdulmohsin 2022. It levels off without a floor."""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, exponents, grid


class Shifted(Form):
    """b (1/x + g)^c; linear (b,), shape (log c, log g)."""

    name = "shifted"
    parameters = ("b", "c", "g")
    min_sizes = 3
    dimensions = 2
    simpler = "power"
    bounds = ((-9.0, 3.0), (-16.0, 8.0))

    def features(self, x: Array, shape: Array) -> Array:
        c, g = np.exp(shape[..., 0, None]), np.exp(shape[..., 1, None])
        parts: Array = (((1 / x + g) / (1 + g)) ** c)[..., None]
        return parts

    def starts(self) -> Array:
        return grid(np.log([0.05, 0.3, 1.0]), np.log([0.001, 0.1, 2.0]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        c, g = (float(part) for part in np.exp(shape))
        b = float(linear[0] * y_scale * x_scale[0] ** c / (1 + g) ** c)
        return {"b": b, "c": c, "g": g / float(x_scale[0])}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        offset = -6.0 + 8.0 * cube[:, 1]
        return np.ones((len(cube), 1)), np.stack([np.log(exponents(cube[:, 0])), offset], axis=1)
