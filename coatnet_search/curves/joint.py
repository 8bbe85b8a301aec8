"""Joint in size and data: y = E + A/N^alpha + B/D^beta [Hoffmann 2022]. N parameters, D images (or tokens)."""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, grid


class Joint(Form):
    """Inputs (N, D); linear (E, A, B), shape (log alpha, log beta)."""

    name = "joint"
    parameters = ("E", "A", "B", "alpha", "beta")
    columns = ("N", "D")
    min_sizes = 5
    floor = 0
    bounds = ((-4.0, 1.5), (-4.0, 1.5))

    def features(self, x: Array, shape: Array) -> Array:
        powers = [np.exp(-np.exp(shape[..., i, None]) * np.log(x[:, i])) for i in range(2)]
        return np.stack([np.ones_like(powers[0]), *powers], axis=-1)

    def starts(self) -> Array:
        return grid(np.log([0.1, 0.3, 0.9]), np.log([0.1, 0.3, 0.9]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        alpha, beta = (float(part) for part in np.exp(shape[:2]))
        size, data = (float(linear[i + 1] * y_scale * x_scale[i] ** c) for i, c in enumerate((alpha, beta)))
        return {"E": float(linear[0] * y_scale), "A": size, "B": data, "alpha": alpha, "beta": beta}
