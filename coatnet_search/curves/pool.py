"""Partial pooling: curves of one group shrink towards each other's shapes, as far as their points let them.

Members of the library are placed in cells by what matters for extrapolation, the slope at the last x and the fall over
the next 16-fold. A curve's prior on a cell is a mixture: what all curves were given, and what the other curves of its
group, seen through their own points, say about the cell. Well measured curves overrule it, noisy ones borrow.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from coatnet_search.curves.form import Array
from coatnet_search.curves.library import Library

Places = NDArray[np.intp]

SHARED = 0.6  # weight of the group's mean in the prior; the rest stays what it was, should the curve be unlike the rest
CELLS = 24  # along each axis


def cells(library: Library) -> Places:
    """The cell (K, 2) of each member: log slope at the last x, log of how much of it holds over the next 16-fold."""
    at = library.log_value(np.array([-0.05, 0.0, np.log(16.0)]))
    slope = np.maximum(at[:, 0] - at[:, 1], 1e-5) / 0.05
    held = np.maximum(at[:, 1] - at[:, 2], 1e-6) / np.log(16.0) / slope
    axes = [(np.log(slope), np.log(0.005), np.log(2.0)), (np.log(held), np.log(0.03), np.log(3.0))]
    places = [np.clip((CELLS * (v - low) / (high - low)).astype(np.intp), 0, CELLS - 1) for v, low, high in axes]
    return np.stack(places, axis=1)


def pooled_priors(library: Library, place: Places, weights: Sequence[Array], groups: Sequence[object]) -> list[Array]:
    """Log prior (K,) of each curve's members from the member weights (K,) of the others of its group."""
    base = _density(place, np.full(len(place), 1 / len(place)))
    densities = [_density(place, each) for each in weights]
    priors = []
    for i, group in enumerate(groups):
        others = [density for j, density in enumerate(densities) if j != i and groups[j] == group]
        if not others:
            priors.append(np.zeros(len(place)))
            continue
        ratio = np.mean(others, axis=0) / np.maximum(base, 1e-12)
        priors.append(np.log(1 - SHARED + SHARED * ratio[place[:, 0], place[:, 1]]))
    return priors


def _density(place: Places, weights: Array) -> Array:
    table = np.zeros((CELLS, CELLS))
    np.add.at(table, (place[:, 0], place[:, 1]), weights)
    smooth: Array = gaussian_filter(table, sigma=1.5, mode="nearest")
    return smooth
