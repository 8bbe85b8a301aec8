"""The networks of one layout by cost: the smallest, the largest, the nearest, a random one.

Random networks are uniform in cost, not in choices: most combinations of a space cost about as much as its middle, so
that its ends would hardly ever be drawn.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from coatnet_search.architecture.cost import cost
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError
from coatnet_search.core.limits import limit_pair
from coatnet_search.space.layout_costs import Joint, joints
from coatnet_search.space.space import Space

NEAR = 1.02  # networks within this factor of a wanted cost count as alike
TRIES = 64  # draws near one cost before the neighbourhood grows

Scale = Literal["log", "linear"]
Candidate = dict[str, Scalar]
Range = tuple[float, float]  # least and most multiply-adds


class LayoutNetworks:
    """``smallest`` and ``largest``: the legal candidates with the fewest and the most multiply-adds; ``range``: these.

    Raises InputError where the space has no legal network of the layout.
    """

    def __init__(self, space: Space, layout: str) -> None:
        self.space, self.layout = space, layout
        self._joints = joints(space, layout)
        ends = [(float(joint.first.path.costs[:, 1].min() + joint.last_costs[0, 1]),
                 float(joint.first.path.costs[:, 1].max() + joint.last_costs[-1, 1]))
                for joint in self._joints]  # fmt: skip
        low, high = limit_pair(space.limits.get("macs", (None, None)))
        self._whole = (max(low or 0.0, min((a for a, _ in ends), default=1.0)),
                       min(high or math.inf, max((b for _, b in ends), default=1.0)))  # fmt: skip
        self.smallest, self.largest = self._end(smallest=True), self._end(smallest=False)
        self.range: Range = (self.macs(self.smallest), self.macs(self.largest))

    def macs(self, candidate: Mapping[str, Scalar]) -> float:
        return float(cost(self.space.decode(candidate)).macs)

    def _end(self, smallest: bool) -> Candidate:
        """The first legal network from one end, looked for in bands of cost."""
        low, high = self._whole
        edges = np.geomspace(low, max(high, low), 2 + math.ceil(math.log(max(high / low, 1.0)) / math.log(NEAR)))
        bands = list(itertools.pairwise(edges))
        for band in bands if smallest else reversed(bands):
            found = sorted(self._listed(band), key=lambda one: one[0] if smallest else -one[0])
            for _, joint, picks in found:
                candidate = self._candidate(joint, picks)
                if not self.space.problems(candidate):
                    return candidate
        raise InputError(f"space {self.space.name} has no legal network of layout {self.layout}")

    def _listed(self, band: Range) -> Iterator[tuple[float, Joint, np.ndarray]]:
        """Every network within a band of multiply-adds, with these."""
        low, high = np.array([0.0, math.floor(band[0])]), np.array([math.inf, math.ceil(band[1])])
        for joint in self._joints:
            for picks, costs in joint.within(low, high):
                yield from zip(costs[:, 1].tolist(), itertools.repeat(joint), picks, strict=False)

    def _candidate(self, joint: Joint, picks: np.ndarray) -> Candidate:
        return self.space.spelling(joint.root.image_size, joint.root.stem, joint.chosen(picks))

    def sample(self, rng: np.random.Generator, scale: Scale = "log") -> Candidate:
        """A legal network whose cost is uniform, on a linear or a logarithmic scale, between smallest and largest."""
        low, high = self.range
        wanted = math.exp(rng.uniform(math.log(low), math.log(high))) if scale == "log" else rng.uniform(low, high)
        return self.near(wanted, rng)

    def near(self, macs: float, rng: np.random.Generator) -> Candidate:
        """A random legal network of about so many multiply-adds: within 2 %, or the smallest distance that has some."""
        factor = NEAR
        while True:
            drawn = (self._draw((macs / factor, macs * factor), rng) for _ in range(TRIES))
            legal = (one for one in drawn if one is not None and not self.space.problems(one))
            if (found := next(legal, None)) is not None:
                return found
            factor *= factor  # smallest and largest are legal: it ends

    def _draw(self, band: Range, rng: np.random.Generator) -> Candidate | None:
        """One of all networks within a band, each as likely, without listing them; None: there are none."""
        spans = [_span(joint, band) for joint in self._joints]
        counts = [int(lengths.sum()) for _, lengths in spans]
        if not sum(counts):
            return None
        number = int(rng.integers(sum(counts)))
        for joint, (starts, lengths), count in zip(self._joints, spans, counts, strict=True):
            if number < count:
                ends = np.cumsum(lengths)
                row = int(np.searchsorted(ends, number, side="right"))
                last = int(starts[row] + number - (ends[row] - lengths[row]))
                return self._candidate(joint, np.concatenate([joint.first.picks[row], joint.last_picks[last]]))
            number -= count
        raise AssertionError("a number within the sum of counts is in one of them")


def _span(joint: Joint, band: Range) -> tuple[np.ndarray, np.ndarray]:
    """Where, for each row of the first half, the last halves begin that fall into the band, and how many they are."""
    head, tail = joint.first.path.costs[:, 1], joint.last_costs[:, 1]
    starts = np.searchsorted(tail, band[0] - head, side="left")
    return starts, np.maximum(np.searchsorted(tail, band[1] - head, side="right") - starts, 0)


def networks_by_layout(space: Space) -> dict[str, LayoutNetworks]:
    """Every layout of a space, in order of name. Raises InputError where the space has none."""
    return {layout: LayoutNetworks(space, layout) for layout in sorted(space.survey.layouts)}
