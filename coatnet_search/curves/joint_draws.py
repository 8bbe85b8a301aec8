"""Draws of several curves put in one order, so that draw d of each curve belongs to the same state of the group.

Each curve comes with draws of its own. What they share is of two kinds. Errors of the level at the last x are noise:
curves share them as far as their runs share seed and data. Errors of what happens beyond are errors of form: curves of
one group share them as far as published curves of one group do. Draws are therefore assigned to pairs of normal scores,
one of the level and one of the far end, that are correlated over curves; no draw changes, only its place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm, rankdata

from coatnet_search.curves.form import Array


def in_one_order(
    curves: Sequence[Array], groups: Sequence[object], near: int, far: int, paired: float, agreement: float, seed: int
) -> list[Array]:
    """The draws (draws, grid) of each curve, re-ordered. ``near`` and ``far`` are the places on the grid of the last x
    and of the end of the calibrated range, ``paired`` and ``agreement`` the correlations of the two kinds of error."""
    draws = len(curves[0])
    common = np.random.default_rng([seed, 1]).standard_normal((2, draws))
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    ordered = []
    for i, (drawn, group) in enumerate(zip(curves, groups, strict=True)):
        shared = np.random.default_rng([seed, 2, numbers[group]]).standard_normal(draws)
        own = np.random.default_rng([seed, 3, i]).standard_normal((2, draws))
        scores = np.stack([_scores(drawn[:, near]), _scores(drawn[:, far])])
        tie = float(np.clip(scores[0] @ scores[1] / (scores[0] @ scores[0]), -0.999, 0.999))  # their correlation
        level = np.sqrt(paired) * common[0] + np.sqrt(1 - paired) * own[0]
        change = np.sqrt(agreement) * shared + np.sqrt(1 - agreement) * own[1]
        wanted = np.stack([level, tie * level + np.sqrt(1 - tie**2) * change])
        ordered.append(drawn[_assign(scores, wanted)])
    return ordered


def _scores(values: Array) -> Array:
    scores: Array = norm.ppf((rankdata(values, method="ordinal") - 0.5) / len(values))
    return scores


def _assign(have: Array, wanted: Array) -> NDArray[np.intp]:
    """For each wanted pair of scores the draw that takes its place: the assignment with the least squared distance."""
    distance = sum((wanted[k][:, None] - have[k][None]) ** 2 for k in range(len(have)))
    columns: NDArray[np.intp] = linear_sum_assignment(distance)[1]
    return columns
