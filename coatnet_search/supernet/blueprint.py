"""Space -> what its supernet consists of: positions, the parts at each, the size of every tensor."""

import functools
from collections.abc import Iterator, Sequence

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.space.space import Space
from coatnet_search.supernet.memory import Memory
from coatnet_search.supernet.parts import Branch, Entry, HeadPart, Part, StemPart, inventory, label
from coatnet_search.supernet.shared_weights import largest_tensors, num_bytes
from coatnet_search.supernet.skeleton import Needed, Skeleton

Place = tuple[str, ...]  # path of a module of the supernet: ("stages", "s2", "mbconv", "0")


class Blueprint:
    """``parts``: at each place, in the order of the network, the parts that networks have there. Makes every skeleton,
    allocates nothing. Raises InputError where a space has no supernet."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._inventory = inventory(space)
        found: dict[Place, dict[Part, None]] = {}
        for place, part in self._all():
            found.setdefault(place, {})[part] = None
        self.parts = {place: list(parts) for place, parts in found.items()}
        self.skeletons = {part: Skeleton(part) for parts in found.values() for part in parts}
        self.tensors: dict[Place, dict[str, Needed]] = {
            place: largest_tensors(".".join(place), [self.skeletons[part] for part in parts])
            for place, parts in self.parts.items()
        }

    @functools.cached_property
    def branches(self) -> tuple[Branch, ...]:
        """All (stage, block type) branches, in the order of the network."""
        branches = (self._inventory.branch(index, entry.stage)
                    for index, entries in enumerate(self._inventory.places) for entry in entries)  # fmt: skip
        return tuple(dict.fromkeys(branches))

    @property
    def memory(self) -> Memory:
        everything = [needed for tensors in self.tensors.values() for needed in tensors.values()]
        parameters = num_bytes([needed for needed in everything if needed.is_parameter])
        return Memory(parameters, num_bytes(everything) - parameters)

    def _all(self) -> Iterator[tuple[Place, Part]]:
        for stem in self._inventory.stems:
            yield self._stem(stem)
        branched: dict[Place, dict[Part, None]] = {}
        for index, entries in enumerate(self._inventory.places):
            for entry in entries:
                for place, part in self._stage(index, entry):
                    branched.setdefault(place, {})[part] = None
        for place in sorted(branched, key=self._in_order):
            yield from ((place, part) for part in branched[place])
        for width in self._inventory.out_widths:
            yield self._head(width)

    def _in_order(self, place: Place) -> tuple[int, str, int]:
        return int(place[1][1:]), place[2], int(place[3])

    def _stem(self, stem: Stem) -> tuple[Place, Part]:
        keys = self._inventory.open_stem
        kind = label(stem.kind, [(key, getattr(stem, key)) for key in keys])
        return ("stem", kind), StemPart(stem, self.space.file.in_channels)

    def _stage(self, index: int, entry: Entry) -> Iterator[tuple[Place, Part]]:
        branch = self._inventory.branch(index, entry.stage)
        for number, part in enumerate(entry.parts()):
            yield (*branch.path, str(number)), part

    def _head(self, width: int) -> tuple[Place, Part]:
        return ("head",), HeadPart(width, self.space.file.num_classes, self.space.head)

    def network(self, arch: Arch, stages: Sequence[Stage | None]) -> list[tuple[str, Place, Part]]:
        """The parts of a network of the space in order: name in the network alone, place here, part."""
        found = [("stem", *self._stem(arch.stem))]
        width, grid, number = arch.stem.width, arch.grids[0], 0
        for index, stage in enumerate(stages):
            if stage is None:
                continue
            for position, (place, part) in enumerate(self._stage(index, Entry(stage, width, grid))):
                found.append((f"stages.{number}.{position}", place, part))
            width, grid, number = stage.width, grid // stage.stride, number + 1
        return [*found, ("head", *self._head(width))]

    def branches_of(self, stages: Sequence[Stage | None]) -> tuple[Branch, ...]:
        """The branches that a network with these stages goes through."""
        return tuple(self._inventory.branch(index, stage) for index, stage in enumerate(stages) if stage is not None)


def memory_needed(space: Space) -> Memory:
    """What ``Supernet(space)`` takes; nothing is allocated. Raises InputError as ``Supernet`` does."""
    return Blueprint(space).memory
