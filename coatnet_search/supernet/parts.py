"""Space -> the stems, blocks and heads of its networks in all their sizes, position by position."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from coatnet_search.architecture.arch import Head, Stage, Stem
from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.blocks.ends import Classifier
from coatnet_search.architecture.build import build_block, build_stem
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError
from coatnet_search.space.space import Space
from coatnet_search.space.survey import may_follow


@dataclass(frozen=True)
class StemPart:
    """A stem as some network of the space has it."""

    stem: Stem
    in_channels: int

    def make(self) -> nn.Module:
        return build_stem(self.stem, self.in_channels)


@dataclass(frozen=True)
class BlockPart:
    """A block as some network of the space has it; ``stage`` has a depth of 1, ``grid`` is the incoming map's side."""

    stage: Stage
    in_width: int
    grid: int

    def make(self) -> nn.Module:
        return build_block(self.stage, self.in_width, self.stage.stride, self.grid)


@dataclass(frozen=True)
class HeadPart:
    """A head as some network of the space has it."""

    width: int
    num_classes: int
    head: Head

    def make(self) -> nn.Module:
        return Classifier(self.width, self.num_classes, hidden=self.head.hidden, norm_eps=self.head.norm_eps)


Part = StemPart | BlockPart | HeadPart


@dataclass(frozen=True)
class Branch:
    """Weights that one stage (``place``: from 1, as in ``s2_width``) has for one block type.

    ``options``: the values that are text or a switch, where a space leaves them open. They make another function of the
    same numbers (another norm, another pooling, a bias or none), so that each value has weights of its own.
    """

    place: int
    block: str
    options: tuple[tuple[str, Scalar], ...] = ()

    @property
    def label(self) -> str:
        """``mbconv``, or ``mbconv norm=layer`` where that is open."""
        return label(self.block, self.options)

    @property
    def path(self) -> tuple[str, ...]:
        """Where its blocks are in the supernet."""
        return "stages", f"s{self.place}", self.label


def label(name: str, options: Iterable[tuple[str, Scalar]]) -> str:
    """A name for a module, hence without dots."""
    return " ".join([name, *(f"{key}={value}" for key, value in options)]).replace(".", "_")


@dataclass(frozen=True)
class Entry:
    """A stage and what comes into it: width and side of the map."""

    stage: Stage
    in_width: int
    grid: int

    def parts(self) -> list[BlockPart]:
        """Its blocks in order."""
        first = dataclasses.replace(self.stage, depth=1)
        rest = BlockPart(dataclasses.replace(first, stride=1), self.stage.width, self.grid // self.stage.stride)
        return [BlockPart(first, self.in_width, self.grid), *[rest] * (self.stage.depth - 1)]


@dataclass(frozen=True)
class Inventory:
    """Everything that some network of the space has: stems, for each place its entries, and widths before the head.

    Networks that only the space's ``limits`` exclude are counted in: these bound a sum that no part knows.
    """

    stems: tuple[Stem, ...]
    places: tuple[tuple[Entry, ...], ...]
    out_widths: tuple[int, ...]
    open: tuple[Mapping[str, tuple[str, ...]], ...]  # of each place: block type -> what makes branches of it
    open_stem: tuple[str, ...]

    def branch(self, place: int, stage: Stage) -> Branch:
        """The branch of a stage; ``place`` from 0."""
        keys = self.open[place].get(stage.block, ())
        return Branch(place + 1, stage.block, tuple((key, stage.options[key]) for key in keys))


@dataclass(frozen=True)
class _Map:
    """What a stage may find before it."""

    width: int
    grid: int
    attention: bool = False
    any_stage: bool = False

    def after(self, stage: Stage | None) -> "_Map":
        if stage is None:
            return self
        attends = self.attention or menu()[stage.block].kind == "attention"
        return _Map(stage.width, self.grid // stage.stride, attends, True)


def inventory(space: Space) -> Inventory:
    """All parts of a space's networks. Raises InputError where image or head sizes are open: a supernet has one."""
    stems: dict[Stem, None] = {}
    places: list[dict[Entry, None]] = [{} for _ in space.file.stages]
    out_widths: dict[int, None] = {}
    image_sizes: dict[int, None] = {}
    for narrowed in space.combinations():
        for root in narrowed.roots():
            image_sizes[root.image_size] = None
            if root.image_size % root.stem.stride:
                continue
            start = _Map(root.stem.width, root.image_size // root.stem.stride)
            ends = _collect(start, root.stages, space.file.convolution_first, places)
            if ends:
                stems[root.stem] = None
                out_widths.update(dict.fromkeys(ends))
    if len(image_sizes) > 1:
        raise _several(space, "image_size", image_sizes)
    if not stems:
        raise InputError(f"space {space.name}: none of its networks can be built")
    for place, entries in enumerate(places, 1):
        _check_head_sizes(space, place, entries)
    opened = tuple(_open_options(entries) for entries in places)
    return Inventory(tuple(stems), tuple(map(tuple, places)), tuple(out_widths), opened, _open_stem(stems))


def _collect(start: _Map, stages: Sequence[Mapping[Stage | None, bool]], convolution_first: bool,
             places: list[dict[Entry, None]]) -> list[int]:  # fmt: skip
    """Adds the entries of all networks that begin so to ``places``; the widths that they end with."""
    layers: list[dict[_Map, list[tuple[Stage | None, _Map]]]] = []
    reached = {start: None}
    for table in stages:
        layer = {here: list(_onward(here, table, convolution_first)) for here in reached}
        layers.append(layer)
        reached = dict.fromkeys(there for steps in layer.values() for _, there in steps)
    useful = {there for there in reached if there.any_stage}
    widths = list(dict.fromkeys(there.width for there in reached if there.any_stage))
    for layer, entries in zip(reversed(layers), reversed(places), strict=True):
        kept = {here: [step for step in steps if step[1] in useful] for here, steps in layer.items()}
        for here, steps in kept.items():
            entries.update({Entry(stage, here.width, here.grid): None for stage, _ in steps if stage})
        useful = {here for here, steps in kept.items() if steps}
    return widths


def _onward(here: _Map, stages: Mapping[Stage | None, bool],
            convolution_first: bool) -> Iterator[tuple[Stage | None, _Map]]:  # fmt: skip
    for stage in stages:
        if stage is None or may_follow(stage, here.width, here.grid, convolution_first and here.attention):
            yield stage, here.after(stage)


def _check_head_sizes(space: Space, place: int, entries: Mapping[Entry, None]) -> None:
    sizes: dict[str, dict[Scalar, None]] = {}
    for entry in entries:
        if "head_size" in entry.stage.options:
            sizes.setdefault(entry.stage.block, {})[entry.stage.options["head_size"]] = None
    for found in sizes.values():
        if len(found) > 1:
            raise _several(space, f"head_size of stage {place}", found)


def _several(space: Space, what: str, values: Mapping[Scalar, None] | Mapping[int, None]) -> InputError:
    return InputError(f"space {space.name}: a supernet has one {what}, this space has {list(values)}; "
                      "give it one value, or train a supernet for each")  # fmt: skip


def _open_options(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    """Of each block type, the options that are text or switches and have several values."""
    options: dict[str, list[Mapping[str, Scalar]]] = {}
    for entry in entries:
        options.setdefault(entry.stage.block, []).append(entry.stage.options)
    return {block: _differing(found) for block, found in options.items()}


def _open_stem(stems: Iterable[Stem]) -> tuple[str, ...]:
    return tuple(key for key in _differing([vars(stem) for stem in stems]) if key != "kind")  # its name says that


def _differing(rows: Sequence[Mapping[str, Scalar]]) -> tuple[str, ...]:
    kinds = [key for key, value in rows[0].items() if isinstance(value, (str, bool))]
    return tuple(key for key in kinds if len({row[key] for row in rows}) > 1)
