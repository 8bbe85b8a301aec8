"""The line that fades: a member of the default predictor that knows no form.

A log-log line through a curve's points says how fast it falls now; published curves fall ever slower from there on, as
``slope * FADE * (1 - exp(-u / FADE))`` at u = log(x / last x). Forms chosen by few points predict too low far out, and
differ between curves of a group more than the curves do: what bends them is mostly common. So each curve has a slope of
its own, and all curves of a group fade by their mean slope: their differences stay lines.

The slope at the last x is best seen near it, but a short line through noisy points shows mostly noise. A line through
the last octave or so and one through all points are averaged by how well the noise lets the near one be seen.
"""

from collections.abc import Sequence

import numpy as np

from coatnet_search.curves.form import Array
from coatnet_search.curves.summary import Summary

SHARE = 0.6  # of the line in the average of log predictions; the rest is the forms'. All five on published curves
FADE = 2.0  # e-folds of x over which the slope falls to 1 / e
NEAR, FAR = 4.0, 1.0  # points count by (x / last x) to these powers in the near line and in the far one
UNLIKE = 0.2  # by how much of its size the slope of the near line differs from the far one's, noise aside


def slope(summary: Summary, noise_sd: float) -> float:
    """The slope of log error in log x at the last x; 0 for a single size."""
    if len(summary.u) < 2:
        return 0.0
    near, far = (_line(summary, power) for power in (NEAR, FAR))
    value = float(far @ summary.z)
    seen, noise = (UNLIKE * value) ** 2, noise_sd**2 * float(near @ summary.noise @ near)
    return value + seen / max(seen + noise, 1e-300) * float((near - far) @ summary.z)


def _line(summary: Summary, power: float) -> Array:
    """Coefficients (m,) that make z the slope of a line where points count by (x / last x) to this power."""
    root = np.exp(power * summary.u / 2) / np.sqrt(np.diag(summary.noise))
    coefficients: Array = np.linalg.pinv(np.stack([root, root * summary.u], axis=1))[1] * root
    return coefficients


def group_means(values: Sequence[float], groups: Sequence[object]) -> list[float]:
    """For each value the mean of those of its group."""
    return [float(np.mean([other for other, name in zip(values, groups, strict=True) if name == group]))
            for group in groups]  # fmt: skip


def blend(drawn: Array, u: Array, own: float, common: float) -> Array:
    """Draws of log error (draws, k) at u (k,) moved towards the fading line from their own level at the last x, u = 0;
    inside the points they stay. ``own`` is the curve's slope, ``common`` its group's."""
    ahead = np.maximum(u, 0.0)
    fall = own * ahead + common * (FADE * -np.expm1(-ahead / FADE) - ahead)
    middle = np.median(drawn, axis=0)
    level = np.interp(0.0, u, middle)
    moved: Array = drawn + np.where(u > 0, SHARE * (level + fall - middle), 0.0)
    return moved
