"""Broken power law with one break: y = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f) [Caballero 2023]."""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from coatnet_search.curves.form import Array, Form, exponents, grid


class Broken(Form):
    """The exponent is c0 before the break at d, c0 + c1 after it; linear (a, b), shape (log c0, c1, log d, log f)."""

    name = "broken"
    parameters = ("a", "b", "c0", "c1", "d", "f")
    min_sizes = 6
    dimensions = 4
    simpler = "m4"
    floor = 0
    bounds = ((-9.0, 1.5), (-4.0, 4.0), (-12.0, 4.0), (-3.0, 2.0))

    def features(self, x: Array, shape: Array) -> Array:
        c0, c1, log_d, f = (
            np.exp(shape[..., 0, None]),
            shape[..., 1, None],
            shape[..., 2, None],
            np.exp(shape[..., 3, None]),
        )
        log_x = np.log(x)
        bend = f * (np.logaddexp(0, (log_x - log_d) / f) - np.logaddexp(0, -log_d / f))  # none at the last x
        fall = np.exp(-c0 * log_x - c1 * bend)
        return np.stack([np.ones_like(fall), fall], axis=-1)

    def starts(self) -> Array:
        return grid(np.log([0.05, 0.3]), [-0.2, 0.2, 0.8], [-4.0, -2.0, -0.5], np.log([0.15, 0.6]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        c0, d, f = (float(np.exp(shape[i])) for i in (0, 2, 3))
        c1 = float(shape[1])
        b = float(linear[1] * y_scale * x_scale[0] ** c0) * (1 + d ** (-1 / f)) ** (c1 * f)
        return {"a": float(linear[0] * y_scale), "b": b, "c0": c0, "c1": c1, "d": d * float(x_scale[0]), "f": f}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        c0 = exponents(cube[:, 0])
        after = c0 * np.exp(ndtri(cube[:, 1]) - 0.3)  # breaks rather slow a curve down
        place, sharpness = -4.0 + 6.0 * cube[:, 2], np.log(0.1) + cube[:, 3] * np.log(10.0)
        floor = np.zeros(len(cube))
        return np.stack([floor, 1 - floor], axis=1), np.stack([np.log(c0), after - c0, place, sharpness], axis=1)
