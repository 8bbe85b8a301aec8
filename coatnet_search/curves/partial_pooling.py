"""Partial pooling: curves of one group shrink towards each other's shapes, as far as their points let them.

Members of the library are placed in bins by what matters for extrapolation: the slope at the last x (the exponent), and
the share of it that holds over the next 16-fold (the shape). Exponents of a group are alike: a curve's prior on them is
a mixture of what all curves were given and of what the others of its group say. Shapes of a group are nearly the same,
and six noisy points hardly show one: there the others' evidence is multiplied. Well measured curves overrule both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from coatnet_search.curves.form import Array
from coatnet_search.curves.prior_library import Library

Places = NDArray[np.intp]

SHARED_EXPONENT, SHARED_SHAPE = 0.95, 0.95  # weight of the group; the rest stays, should a curve be unlike the others
BINS = 24  # of each of the two
BLUR = 1.5  # bins by which curves of a group differ


def bins(library: Library) -> Places:
    """The bins (K, 2) of each member: log slope at the last x, log of how much of it holds over the next 16-fold."""
    at = library.log_value(np.array([-0.05, 0.0, np.log(16.0)]))
    slope = np.maximum(at[:, 0] - at[:, 1], 1e-5) / 0.05
    held = np.maximum(at[:, 1] - at[:, 2], 1e-6) / np.log(16.0) / slope
    axes = [(np.log(slope), np.log(0.005), np.log(2.0)), (np.log(held), np.log(0.03), np.log(3.0))]
    places = [np.clip((BINS * (v - low) / (high - low)).astype(np.intp), 0, BINS - 1) for v, low, high in axes]
    return np.stack(places, axis=1)


def pooled_priors(library: Library, weights: Sequence[Array], groups: Sequence[object]) -> list[Array]:
    """Log prior (K,) of each curve's members from the member weights (K,) of the others of its group."""
    place = bins(library)
    base = _densities(place, np.full(len(place), 1 / len(place)))
    ratios = [_densities(place, each) / base for each in weights]  # (2, bins): what a curve's points say of each bin
    priors = []
    for i, group in enumerate(groups):
        others = np.stack(
            [ratio for j, ratio in enumerate(ratios) if j != i and groups[j] == group] or [np.ones_like(base)]
        )
        exponent = others[:, 0].mean(axis=0)
        evidence = np.log(others[:, 1]).sum(axis=0)
        shape = np.exp(evidence - evidence.max())
        shape /= base[1] @ shape / base[1].sum()
        priors.append(
            np.log(1 - SHARED_EXPONENT + SHARED_EXPONENT * exponent)[place[:, 0]]
            + np.log(1 - SHARED_SHAPE + SHARED_SHAPE * shape)[place[:, 1]]
        )
    return priors


def _densities(place: Places, weights: Array) -> Array:
    """Blurred sums of weights in the bins of exponent and shape, (2, bins), nowhere zero."""
    tables = np.stack([np.bincount(place[:, axis], weights, BINS) for axis in range(2)])
    blurred: Array = gaussian_filter1d(tables, BLUR, axis=1, mode="nearest")
    return blurred + 1e-6
