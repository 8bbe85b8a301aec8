"""The log-log line through the last octave: a member of the default predictor that knows no form.

On published curves it beats every single form near the last x, and its errors there have the other sign than those of
forms with a floor, so that a part of it in the average of log predictions helps. Farther out it forgets that curves
level off, and through noisy points it is worth little: its share falls with distance and with its own noise.
"""

import numpy as np

from coatnet_search.curves.form import Array
from coatnet_search.curves.summary import Summary

SHARE = 0.5  # of a line without noise within an octave of the last x
OCTAVE = np.log(2.0)


def blend(summary: Summary, noise_sd: float, drawn: Array, u: Array) -> Array:
    """Draws of log error (draws, k) at u (k,), moved towards the line by its share; inside the points they stay."""
    if len(summary.u) < 2:
        return drawn
    use = summary.u >= -1.001 * OCTAVE
    use[-2:] = True
    at = np.stack([np.ones(use.sum()), summary.u[use]], axis=1)
    coefficients = np.stack([np.ones_like(u), u], axis=1) @ np.linalg.pinv(at)  # (k, points of the line)
    line = coefficients @ summary.z[use]
    noise = noise_sd**2 * np.einsum("ki,ij,kj->k", coefficients, summary.noise[np.ix_(use, use)], coefficients)
    variance = drawn.var(axis=0)
    share = SHARE * np.minimum(1.0, OCTAVE / np.maximum(u, 1e-9)) * variance / np.maximum(variance + noise, 1e-300)
    share = np.where(u > 0, share, 0.0)
    moved: Array = drawn + share * (line - np.median(drawn, axis=0))
    return moved
