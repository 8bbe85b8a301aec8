"""M4: (y - e) / (e0 - y)^a = b x^-c, a > 0 [Alabdulmohsin 2022]: from the error of no learning, e0, to the floor e.

With y = e + (e0 - e) t the equation is t / (1 - t)^a = k x^-c for t in (0, 1), so that e and e0 - e are linear. e0 is
free: fixing it at the error of chance extrapolates worse.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from coatnet_search.curves.form import Array, Form, exponents, floors, grid

STEPS = 40  # of Newton's method on a function of bounded slope: exact long before


def transition(log_right: Array, a: Array) -> Array:
    """t in (0, 1) with log t - a log(1 - t) = log_right, by Newton's method in the logit of t."""
    logit = np.minimum(log_right, log_right / np.maximum(a, 1.0))
    for _ in range(STEPS):
        missing = log_right + np.logaddexp(0, -logit) - a * np.logaddexp(0, logit)
        step = missing / (expit(-logit) + a * expit(logit))
        logit = logit + step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    t: Array = expit(logit)
    return t


class M4(Form):
    """Linear (e, e0 - e), shape (log a, log k, log c)."""

    name = "m4"
    parameters = ("e", "e0", "a", "b", "c")
    min_sizes = 5
    dimensions = 4
    simpler = "floor"
    floor = 0
    bounds = ((-4.0, 2.0), (-9.0, 9.0), (-5.0, 2.0))

    def features(self, x: Array, shape: Array) -> Array:
        a, log_k, c = np.exp(shape[..., 0, None]), shape[..., 1, None], np.exp(shape[..., 2, None])
        t = transition(log_k - c * np.log(x), np.broadcast_to(a, np.broadcast_shapes(a.shape, x.shape)))
        return np.stack([np.ones_like(t), t], axis=-1)

    def starts(self) -> Array:
        return grid(np.log([0.2, 1.0, 3.0]), [-3.0, 0.0, 3.0], np.log([0.1, 0.4, 1.2]))

    def published(self, linear: Array, shape: Array, x_scale: Array, y_scale: float) -> Mapping[str, float]:
        a, k, c = (float(part) for part in np.exp(shape))
        height = float(linear[1] * y_scale)
        e = float(linear[0] * y_scale)
        return {"e": e, "e0": e + height, "a": a, "b": k * height ** (1 - a) * float(x_scale[0]) ** c, "c": c}

    def plausible(self, cube: Array) -> tuple[Array, Array]:
        shape = np.stack(
            [np.log(0.1 + 2.9 * cube[:, 2]), -6.0 + 11.0 * cube[:, 3], np.log(exponents(cube[:, 0]))], axis=1
        )
        at_last = self.features(np.ones(1), shape)[:, 0, 1]
        floor = floors(cube[:, 1])
        return np.stack([floor, (1 - floor) / at_last], axis=1), shape
