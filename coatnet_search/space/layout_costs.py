"""Indexes all networks of one layout by cost without listing them: two halves, joined where costs fit.

Each half is priced stage by stage (as a survey is) and every partial network is kept with its cost. Only pairs that
fall into a range of multiply-adds are looked at, so that a space of 10^9 networks takes seconds.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.architecture.arch import Stage
from coatnet_search.architecture.cost import head_count, stem_count
from coatnet_search.space.space import Space
from coatnet_search.space.survey import Path, Root

PAIRS = 1 << 20  # pairs of halves that are priced at once
Table = Mapping[Stage | None, bool]  # of a Root: the stages of a place, and whether each is the root's own


@dataclass(frozen=True, eq=False)
class Traced:
    """Partial networks that look alike to what may follow: the path with their costs, and ``picks`` (count, places):
    which of each place's stages they took."""

    path: Path
    picks: np.ndarray

    def then(self, number: int, stage: Stage | None, own: bool, convolution_first: bool) -> "Traced | None":
        """One stage on, the one of this number at its place; None where that is not legal."""
        path = self.path.then(stage, own, convolution_first)
        if path is None:
            return None
        return Traced(path, np.hstack([self.picks, np.full((len(self.picks), 1), number, dtype=np.int16)]))


@dataclass(frozen=True, eq=False)
class Joint:
    """Networks that look alike in their middle: each row of ``first`` goes with each row of ``last``.

    ``stages`` holds the distinct stages of each place; costs are (rows, 2) params and macs, picks (rows, places).
    """

    space: Space
    layout: str
    root: Root
    stages: Sequence[Sequence[Stage | None]]
    first: Traced
    last_costs: np.ndarray  # in the order of macs
    last_picks: np.ndarray

    def within(self, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(picks, costs) of all networks whose params and macs lie within ``low`` and ``high``, (2,) each; in parts."""
        head, tail = self.first.path.costs, self.last_costs
        start = np.searchsorted(tail[:, 1], low[1] - head[:, 1], side="left")
        stop = np.searchsorted(tail[:, 1], high[1] - head[:, 1], side="right")
        lengths = np.maximum(stop - start, 0)
        for rows in _parts(lengths):
            left = np.repeat(rows, lengths[rows])
            steps = np.arange(len(left)) - np.repeat(np.cumsum(lengths[rows]) - lengths[rows], lengths[rows])
            right = np.repeat(start[rows], lengths[rows]) + steps
            params = head[left, 0] + tail[right, 0]
            inside = (params >= low[0]) & (params <= high[0])
            left, right = left[inside], right[inside]
            yield np.hstack([self.first.picks[left], self.last_picks[right]]), head[left] + tail[right]

    def chosen(self, row: np.ndarray) -> list[Stage | None]:
        """The stages of one network by its picks."""
        return [table[number] for table, number in zip(self.stages, row, strict=True)]

    def shapes(self, picks: np.ndarray) -> np.ndarray:
        """Log2 of depths and widths of stem and stages, (n, 2 + 2 x columns of picks); a stage that is left out has
        half a block, at the width before it."""
        stem = self.root.stem
        widths = [np.full(len(picks), stem.width)]
        depths = [np.full(len(picks), float(stem.depth))]
        for place in range(picks.shape[1]):
            table = self.stages[place] if place < len(self.stages) else [None]
            width = np.array([stage.width if stage else 0 for stage in table])[picks[:, place]]
            widths.append(np.where(width > 0, width, widths[-1]))
            depths.append(np.array([stage.depth if stage else 0.5 for stage in table])[picks[:, place]])
        return np.log2(np.stack(depths + widths, axis=1))


def joints(space: Space, layout: str) -> list[Joint]:
    """All legal networks of a layout (as ``C-C-T-T``), whatever they cost; empty where the space has none."""
    letters = layout.split("-")
    found: list[Joint] = []
    for root in space.roots():
        if root.image_size % root.stem.stride:
            continue
        tables = [{stage: own for stage, own in table.items() if stage is None or stage.letter in letters}
                  for table in root.stages]  # fmt: skip
        middle = _middle([len(table) for table in tables])
        for first in _grown([_start(root)], tables[:middle], layout, space):
            last = _finished(first, tables[middle:], layout, space)
            if len(last.picks):
                order = np.argsort(last.path.costs[:, 1], kind="stable")
                found.append(Joint(space, layout, root, [list(table) for table in tables], first,
                                   last.path.costs[order], last.picks[order]))  # fmt: skip
    return found


def _start(root: Root) -> Traced:
    count = stem_count(root.stem, root.in_channels, root.image_size)
    costs = np.array([[count.params, count.macs]])
    path = Path("", root.stem.width, root.image_size // root.stem.stride, False, False, 1, costs)
    return Traced(path, _no_picks())


def _no_picks() -> np.ndarray:
    return np.zeros((1, 0), dtype=np.int16)


def _grown(found: list[Traced], tables: Sequence[Table], layout: str, space: Space) -> list[Traced]:
    """All that follows by one stage of each table, where the letters so far begin the layout."""
    for table in tables:
        alike: dict[tuple[object, ...], list[Traced]] = {}
        for one in found:
            for number, (stage, own) in enumerate(table.items()):
                if stage is None or _goes_on(one.path.layout, stage.letter, layout):
                    longer = one.then(number, stage, own, space.file.convolution_first)
                    if longer:
                        alike.setdefault(longer.path.state, []).append(longer)
        found = [_together(group) for group in alike.values()]
    return found


def _goes_on(begun: str, letter: str, layout: str) -> bool:
    letters = layout.split("-")
    place = len(begun.split("-")) if begun else 0
    return place < len(letters) and letters[place] == letter


def _finished(first: Traced, tables: Sequence[Table], layout: str, space: Space) -> Traced:
    """All ways on from a first half to a whole network of the layout, with the head's cost."""
    start = Traced(dataclasses.replace(first.path, count=1, costs=np.zeros((1, 2), dtype=np.int64)), _no_picks())
    whole = [one for one in _grown([start], tables, layout, space) if one.path.layout == layout and one.path.own]
    ended = []
    for one in whole:
        count = head_count(one.path.width, space.file.num_classes, bool(space.file.head.get("hidden", True)),
                           one.path.grid)  # fmt: skip
        costs = one.path.costs + np.array([count.params, count.macs])
        ended.append(Traced(dataclasses.replace(one.path, costs=costs), one.picks))
    return _together(ended) if ended else Traced(start.path, np.zeros((0, len(tables)), dtype=np.int16))


def _together(group: Sequence[Traced]) -> Traced:
    costs = np.concatenate([one.path.costs for one in group])
    path = dataclasses.replace(group[0].path, count=len(costs), costs=costs)
    return Traced(path, np.concatenate([one.picks for one in group]))


def _middle(sizes: Sequence[int]) -> int:
    """After how many places both halves have about as many networks."""
    return min(range(len(sizes) + 1), key=lambda at: max(math.prod(sizes[:at]), math.prod(sizes[at:])))


def _parts(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The rows that have pairs, in parts of about ``PAIRS``."""
    rows = np.flatnonzero(lengths)
    which = np.cumsum(lengths[rows]) // PAIRS
    yield from np.split(rows, np.flatnonzero(np.diff(which)) + 1) if len(rows) else ()
