"""Accuracies on so many images -> their intervals, and how far two must lie apart to differ."""

import math

import numpy as np

from coatnet_search.analysis.frame import Floats

Z95 = 1.959964  # two-sided 95 % of a normal distribution


def wilson(accuracy: Floats, num_val: int, z: float = Z95) -> tuple[Floats, Floats]:
    """The interval (low, high) of a proportion seen on ``num_val`` images (Wilson 1927); never empty at 0 or 1."""
    centre = (accuracy + z * z / (2 * num_val)) / (1 + z * z / num_val)
    half = z * np.sqrt(accuracy * (1 - accuracy) / num_val + z * z / (4 * num_val**2)) / (1 + z * z / num_val)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def difference_margin(first: float, second: float, num_val: int) -> float:
    """Two accuracies on ``num_val`` images that are nearer than this cannot be told apart at 95 %.

    Both are taken as independent binomials (Agresti and Caffo 2000, one success and one failure added to each), which
    is on the safe side for networks scored on the same images. The noise between seeds comes on top.
    """
    variance = 0.0
    for accuracy in (first, second):
        adjusted = (accuracy * num_val + 1) / (num_val + 2)
        variance += adjusted * (1 - adjusted) / (num_val + 2)
    return Z95 * math.sqrt(variance)
