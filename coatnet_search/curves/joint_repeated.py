"""Joint in size and repeated data: y = E + A/N^alpha + B/D'^beta, D' = U (1 + R* (1 - exp(-R/R*))) [Muennighoff 2023].

U unique images, seen R + 1 times each. Repeated images are worth less and less, R* passes' worth at most. The paper's
second correction, for parameters beyond what U can feed, is left out: it needs runs much larger than their data.
"""

from collections.abc import Mapping

import numpy as np

from coatnet_search.curves.form import Array, Form, grid


class JointRepeated(Form):
    """Inputs (N, U, seen), where seen = U (R + 1); linear (E, A, B), shape (log alpha, log beta, log R*)."""

    name = "joint_repeated"
    parameters = ("E", "A", "B", "alpha", "beta", "R_star")
    columns = ("N", "U", "seen")
    min_sizes = 6
    simpler = "joint"
    floor = 0
    bounds = ((-4.0, 1.5), (-4.0, 1.5), (-2.5, 6.0))

    def scale(self, x: Array) -> Array:
        size, unique, _ = super().scale(x)
        return np.array([size, unique, unique])  # the two counts of images keep their ratio

    def features(self, x: Array, shape: Array) -> Array:
        alpha, beta, worth = (np.exp(shape[..., i, None]) for i in range(3))
        data = effective(x[:, 1], x[:, 2], worth)
        powers = np.exp(-alpha * np.log(x[:, 0])), np.exp(-beta * np.log(data))
        return np.stack([np.ones_like(powers[0]), *powers], axis=-1)

    def starts(self) -> Array:
        return grid(np.log([0.15, 0.6]), np.log([0.15, 0.6]), np.log([1.0, 6.0, 40.0]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        alpha, beta, worth = (float(part) for part in np.exp(shape))
        size, data = (float(linear[i + 1] * y_scale * x_scale[i] ** c) for i, c in enumerate((alpha, beta)))
        return {"E": float(linear[0] * y_scale), "A": size, "B": data, "alpha": alpha, "beta": beta, "R_star": worth}


def effective(unique: Array, seen: Array, worth: Array) -> Array:
    """What ``seen`` images of which ``unique`` differ are worth in images that all differ."""
    repeats = np.maximum(seen / unique - 1, 0.0)
    value: Array = unique * (1 - worth * np.expm1(-repeats / worth))
    return value
