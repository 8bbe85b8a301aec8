"""What runs of one label share: the same seed and the same draw of data, at one size, in several curves."""

from collections.abc import Sequence

import numpy as np

from coatnet_search.curves.form import Array
from coatnet_search.curves.points import Points

PRIOR_CELLS = 8.0  # shared cells of which the estimate is worth a half: below that it is drawn towards no sharing

Cells = dict[tuple[float, str], float]


def paired_share(curves: Sequence[Points]) -> float:
    """The correlation of two curves' log errors around their means of a size, over runs of one label at one size; drawn
    towards 0 where few such runs exist, and 0 where there are no labels."""
    tables = [_deviations(points) for points in curves]
    products, squares, count = 0.0, 0.0, 0
    for i, one in enumerate(tables):
        for other in tables[i + 1 :]:
            for cell in one.keys() & other.keys():
                products += one[cell] * other[cell]
                squares += (one[cell] ** 2 + other[cell] ** 2) / 2
                count += 1
    if squares <= 0:
        return 0.0
    return float(np.clip(products / squares, 0.0, 1.0) * count / (count + PRIOR_CELLS))


def shared_part(curves: Sequence[Points], paired: float) -> list[Array]:
    """For each point the log error that its label explains, as the other curves saw it, (n,) a curve. Taking it off
    makes curves comparable that were not all measured with the same seeds; where they were, it cancels in the means."""
    tables = [_deviations(points) for points in curves]
    parts = []
    for i, points in enumerate(curves):
        part = np.zeros(len(points.y))
        for j, cell in enumerate(_cells(points)):
            seen = [table[cell] for k, table in enumerate(tables) if k != i and cell in table]
            part[j] = paired * np.mean(seen) if seen else 0.0
        parts.append(part)
    return parts


def _deviations(points: Points) -> Cells:
    z = np.log(points.y)
    _, place, counts = np.unique(points.x, return_inverse=True, return_counts=True)
    rest = z - (np.bincount(place, z) / counts)[place]
    return {cell: float(rest[i]) for i, cell in enumerate(_cells(points)) if counts[place[i]] > 1}


def _cells(points: Points) -> list[tuple[float, str]]:
    return [] if points.runs is None else list(zip(points.x.tolist(), points.runs, strict=True))
