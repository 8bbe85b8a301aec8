"""Power law: y = b x^-c [Hestness 2017, Kaplan 2020]; M1 in Alabdulmohsin 2022."""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, exponents


class PowerLaw(Form):
    """b x^-c; shape (log c,)."""

    name = "power"
    parameters = ("b", "c")
    min_sizes = 2
    dimensions = 1
    bounds = ((-9.0, 2.0),)

    def features(self, x: Array, shape: Array) -> Array:
        c = np.exp(shape[..., 0, None])
        parts: Array = np.exp(-c * np.log(x))[..., None]
        return parts

    def starts(self) -> Array:
        return np.log([[0.05], [0.3], [1.0]])

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        c = float(np.exp(shape[0]))
        return {"b": float(linear[0] * y_scale * x_scale[0] ** c), "c": c}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        return np.ones((len(cube), 1)), np.log(exponents(cube[:, 0]))[:, None]
