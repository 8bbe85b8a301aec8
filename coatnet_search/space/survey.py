"""Counts a space stage by stage without listing it: how many networks, of which layouts, at what cost."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.cost import cost, head_count, stage_count, stem_count
from coatnet_search.core.limits import Limit, limit_pair

COLUMNS = ("params", "macs")


@dataclass(frozen=True)
class Survey:
    """``size`` distinct legal networks (``exact`` or an estimate), how many of each layout, and the least and largest
    params and macs."""

    size: int
    exact: bool
    layouts: Mapping[str, int]
    params: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Root:
    """What the networks of a space begin with, and the distinct stages that may follow at each place (None: left out).

    Each stage comes with whether it is this root's own: networks without such a stage are another root's.
    """

    image_size: int
    stem: Stem
    in_channels: int
    stages: Sequence[Mapping[Stage | None, bool]]


@dataclass(frozen=True)
class Path:
    """All partial networks that look alike to what may follow: their number, and their costs (params, macs) as an array
    (count, 2), or, without costs, as the two rows least and most."""

    layout: str
    width: int
    grid: int
    attention: bool
    own: bool
    count: int
    costs: np.ndarray

    @property
    def state(self) -> tuple[object, ...]:
        return self.layout, self.width, self.grid, self.attention, self.own

    def then(self, stage: Stage | None, own: bool, convolution_first: bool) -> "Path | None":
        """One stage on, or None where that is not legal."""
        if stage is None:
            return self
        kind = menu()[stage.block]
        if not may_follow(stage, self.width, self.grid, convolution_first and self.attention):
            return None
        count = stage_count(stage, self.width, self.grid)
        return Path(
            layout=f"{self.layout}-{kind.letter}" if self.layout else kind.letter,
            width=stage.width,
            grid=self.grid // stage.stride,
            attention=self.attention or kind.kind == "attention",
            own=self.own or own,
            count=self.count,
            costs=self.costs + np.array([count.params, count.macs]),
        )


def may_follow(stage: Stage, width: int, grid: int, attention_only: bool) -> bool:
    """Whether a stage is legal on a map of this width and side."""
    kind = menu()[stage.block]
    if grid % stage.stride or (attention_only and kind.kind == "convolution"):
        return False
    return not kind.load().problems(width, stage.width, grid // stage.stride, **stage.options)


def paths(roots: Iterable[Root], num_classes: int, hidden: bool, convolution_first: bool,
          with_costs: bool) -> list[Path]:  # fmt: skip
    """All complete networks from all roots, grouped by what they end with."""
    finished = []
    for root in roots:
        if root.image_size % root.stem.stride:
            continue
        found = [_start(root, with_costs)]
        for stages in root.stages:
            longer = (path.then(stage, own, convolution_first) for path in found for stage, own in stages.items())
            found = _joined([path for path in longer if path], with_costs)
        whole = (path for path in found if path.layout and path.own)
        finished += [_end(path, num_classes, hidden) for path in whole]
    return finished


def within(path: Path, limits: Mapping[str, Limit]) -> Path:
    """The networks of a path (with costs) that keep the limits on params and macs."""
    inside = np.ones(len(path.costs), dtype=bool)
    for column, name in enumerate(COLUMNS):
        low, high = limit_pair(limits[name]) if name in limits else (None, None)
        inside &= path.costs[:, column] >= (-np.inf if low is None else low)
        inside &= path.costs[:, column] <= (np.inf if high is None else high)
    return dataclasses.replace(path, count=int(inside.sum()), costs=path.costs[inside])


def surveyed(found: Sequence[Path], exact: bool) -> Survey:
    """A survey of complete paths."""
    filled = [path for path in found if path.count]
    layouts = {path.layout: 0 for path in filled}
    for path in filled:
        layouts[path.layout] += path.count
    costs = np.concatenate([path.costs for path in filled]) if filled else np.zeros((1, 2), dtype=int)
    (low_params, low_macs), (high_params, high_macs) = costs.min(axis=0).tolist(), costs.max(axis=0).tolist()
    return Survey(sum(layouts.values()), exact, layouts, (low_params, high_params), (low_macs, high_macs))


def listed(archs: Iterable[Arch]) -> Survey:
    """A survey of networks that are listed one by one."""
    layouts: dict[str, int] = {}
    rows = []
    for arch in archs:
        layouts[arch.layout] = layouts.get(arch.layout, 0) + 1
        found = cost(arch)
        rows.append((found.params, found.macs))
    params, macs = zip(*rows, strict=True) if rows else ((0,), (0,))
    return Survey(len(rows), True, layouts, (min(params), max(params)), (min(macs), max(macs)))


def _start(root: Root, with_costs: bool) -> Path:
    count = stem_count(root.stem, root.in_channels, root.image_size)
    row = np.array([[count.params, count.macs]])
    costs = row if with_costs else np.repeat(row, 2, axis=0)
    return Path("", root.stem.width, root.image_size // root.stem.stride, False, False, 1, costs)


def _end(path: Path, num_classes: int, hidden: bool) -> Path:
    count = head_count(path.width, num_classes, hidden, path.grid)
    return dataclasses.replace(path, costs=path.costs + np.array([count.params, count.macs]))


def _joined(found: Sequence[Path], with_costs: bool) -> list[Path]:
    ordered = sorted(found, key=lambda path: [str(part) for part in path.state])
    joined = []
    for _, group in itertools.groupby(ordered, key=lambda path: path.state):
        alike = list(group)
        costs = np.concatenate([path.costs for path in alike])
        if not with_costs:
            costs = np.stack([costs.min(axis=0), costs.max(axis=0)])
        joined.append(dataclasses.replace(alike[0], count=sum(path.count for path in alike), costs=costs))
    return joined
