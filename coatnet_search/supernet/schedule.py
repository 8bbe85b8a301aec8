"""Draws the networks of each training step of a supernet, so that no layout is a favourite.

A step is one layout's. Each run of as many steps as there are layouts (a cycle) has every layout once, in a seeded
order, so that at no time two layouts differ by more than one update. Branches, (stage, block type), are used by the
layouts that have them: where every combination of types is legal, this makes their updates equal too; where legality
forces a type (convolution first: the first stages are C in most layouts), updates of layouts are equal and those of
branches follow, as the counts in each epoch's row show.
"""

from collections.abc import Mapping

import numpy as np

from coatnet_search.space.layout_networks import Candidate, LayoutNetworks
from coatnet_search.space.space import Space
from coatnet_search.supernet.spec import SupernetSpec

RANDOM_NETWORKS = 2  # of a sandwich step, where a study says nothing
_ORDER, _NETWORKS = 4, 5  # what a generator is for, beside those of training


class Schedule:
    """Everything is a function of the step (from 0, over all epochs) and of ``spec.seed``."""

    def __init__(self, layouts: Mapping[str, LayoutNetworks], spec: SupernetSpec) -> None:
        self.layouts, self.spec = dict(layouts), spec
        self.names = tuple(self.layouts)

    @property
    def cycle(self) -> int:
        """Steps in which every layout comes once."""
        return len(self.names)

    def layout(self, step: int) -> str:
        cycle, place = divmod(step, self.cycle)
        order = np.random.default_rng((self.spec.seed, cycle, _ORDER)).permutation(self.cycle)
        return self.names[int(order[place])]

    def networks(self, step: int) -> list[Candidate]:
        """The candidates of a step, each once: of a sandwich the largest, the smallest, random ones; or one."""
        known, rng = self.layouts[self.layout(step)], np.random.default_rng((self.spec.seed, step, _NETWORKS))
        if self.spec.mode == "single-path":
            return [known.sample(rng, self.spec.sampling)]
        count = RANDOM_NETWORKS if self.spec.random_networks is None else self.spec.random_networks
        drawn = [known.sample(rng, self.spec.sampling) for _ in range(count)]
        found: list[Candidate] = []
        for candidate in [known.largest, known.smallest, *drawn]:
            if candidate not in found:
                found.append(candidate)
        return found

    def is_largest(self, layout: str, candidate: Candidate) -> bool:
        return candidate == self.layouts[layout].largest

    def probes(self) -> dict[tuple[str, str], Candidate]:
        """Fixed networks by (layout, size): its smallest and largest, and one of middling cost."""
        found: dict[tuple[str, str], Candidate] = {}
        for name, known in self.layouts.items():
            low, high = known.range
            middle = known.near((low * high) ** 0.5, np.random.default_rng((self.spec.seed, 0, _NETWORKS)))
            for size, candidate in (("smallest", known.smallest), ("middle", middle), ("largest", known.largest)):
                if candidate not in found.values():
                    found[name, size] = candidate
        return found


def neighbours(space: Space, layouts: Mapping[str, LayoutNetworks]) -> dict[int, list[tuple[str, str]]]:
    """By stage (from 1), the pairs of layouts that differ in the block type of this stage alone."""
    types = {name: {place: stage.letter for place, stage in enumerate(space.stages_of(known.largest), 1) if stage}
             for name, known in layouts.items()}  # fmt: skip
    found: dict[int, list[tuple[str, str]]] = {}
    names = list(types)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            if types[one].keys() == types[other].keys():
                different = [place for place in types[one] if types[one][place] != types[other][place]]
                if len(different) == 1:
                    found.setdefault(different[0], []).append((one, other))
    return dict(sorted(found.items()))
