"""How much noise two curves share where their runs carry the same labels: the same seed and the same draw of data."""

from collections.abc import Sequence

import numpy as np

from coatnet_search.curves.summary import Summary

PRIOR_CELLS = 8.0  # shared cells of which the estimate is worth a half: below that it is drawn towards no sharing


def paired_share(summaries: Sequence[Summary]) -> float:
    """The correlation of two curves' log errors around their means of a size, over runs of one label at one size; drawn
    towards 0 where few such runs exist, and 0 where there are no labels."""
    tables = [_deviations(summary) for summary in summaries]
    products, squares, count = 0.0, 0.0, 0
    for i, one in enumerate(tables):
        for other in tables[i + 1 :]:
            for cell in one.keys() & other.keys():
                products += one[cell] * other[cell]
                squares += (one[cell] ** 2 + other[cell] ** 2) / 2
                count += 1
    if squares <= 0:
        return 0.0
    return float(max(products / squares, 0.0) * count / (count + PRIOR_CELLS))


def _deviations(summary: Summary) -> dict[tuple[float, str], float]:
    points = summary.points
    if points.runs is None:
        return {}
    z = np.log(points.y)
    _, place, counts = np.unique(points.x, return_inverse=True, return_counts=True)
    rest = z - (np.bincount(place, z) / counts)[place]
    keys = zip(points.x.tolist(), points.runs, strict=True)
    return {key: float(rest[i]) for i, key in enumerate(keys) if counts[place[i]] > 1}
