"""Computes, from draws of what networks may be worth, who is on the front with which probability, and how large it is.

The draws are those of ``networks``: what each network's runs, its cost and its choices say of it, so that the luck of
the best of many is taken off before a front is drawn.
"""

from collections.abc import Mapping

import moocore
import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import Floats, numbers
from coatnet_search.analysis.networks import Networks, networks
from coatnet_search.core.quantities import Sense

REFERENCE = 1.1  # of the range of each objective, from its best value
LEVEL = 0.9  # of the hypervolume's interval


def on_front(losses: Floats) -> Floats:
    """(networks,): the probability that no other network is better in one objective and as good in all; ``losses``:
    (draws, networks, objectives)."""
    if not losses.shape[1]:
        return np.zeros(0)
    found = np.array([moocore.is_nondominated(draw, keep_weakly=True) for draw in losses])
    return np.asarray(found.mean(axis=0))


def hypervolume(losses: Floats) -> tuple[float, float, float]:
    """The share of a box that the true front fills: the median, and the 90 % interval. The box reaches from the best to
    10 % beyond the worst mean; what is better than it counts as its edge, what is worse is left out."""
    means = losses.mean(axis=0)
    shares = shares_of_box(losses, means)
    low, middle, high = np.quantile(shares, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
    return float(middle), float(low), float(high)


def shares_of_box(losses: Floats, box: Floats) -> Floats:
    """(draws,): the share that each draw's front fills of the box of these points, (points, objectives)."""
    low, span = box.min(axis=0), np.ptp(box, axis=0)
    unit = np.where(span > 0, span, 1.0) * REFERENCE
    indicator = moocore.Hypervolume(ref=np.ones(box.shape[1]))

    def share(draw: Floats) -> float:
        inside = np.maximum((draw - low) / unit, 0.0)
        inside = inside[(inside < 1).all(axis=1)]
        return float(indicator(inside)) if len(inside) else 0.0

    return np.array([share(draw) for draw in losses])


def noise_is_known(found: Networks, num_val: int | None) -> bool:
    """Whether anything but a prior says how noisy a run is: a second run of some network, or the number of images."""
    return bool(num_val) or bool((found.table["runs"] > 1).any())


def near_front(rows: pd.DataFrame, objectives: Mapping[str, Sense], least: float) -> dict[int, bool]:
    """Of each comparable trial, by number, whether its network is on the front with a probability of at least
    ``least``; the front of the measured values itself where no network was trained twice."""
    if rows.empty:
        return {}
    found = networks(rows, objectives)
    if (found.table["runs"] > 1).any():
        near = on_front(found.losses()) >= max(least, 1e-9)
    else:
        signs = [1.0 if sense == "min" else -1.0 for sense in objectives.values()]
        seen = np.stack([sign * numbers(rows, name) for sign, name in zip(signs, objectives, strict=True)], axis=1)
        near = moocore.is_nondominated(seen, keep_weakly=True)[np.argsort(found.place)]
    return {int(number): bool(near[place]) for number, place in zip(rows["number"], found.place, strict=True)}
