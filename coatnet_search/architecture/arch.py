"""One network as a value: Arch, with its Stem, Stages and Head. Plain frozen data, checked and hashed."""

import dataclasses
import functools
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from coatnet_search.architecture.blocks import block_name, menu
from coatnet_search.core.canonical import Scalar, digest
from coatnet_search.core.errors import InputError, unknown

Candidate = Mapping[str, Scalar]
_EMPTY: Mapping[str, Any] = MappingProxyType({})


MOST = 1 << 20  # of widths, depths, pixels, classes: nothing that is larger can be built or counted


def _whole(name: str, value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    if value > MOST:
        raise InputError(f"{name}: expected at most {MOST:,}, got {value:.6g}")
    return value


def _option(block: str, name: str, value: object) -> Scalar:
    """A block option checked against its default's type and its closed set."""
    kind = menu()[block]
    if name not in kind.options:
        raise InputError(f"block {block}: {unknown('option', name, kind.options)}")
    default = kind.options[name]
    if name in kind.values:
        if value not in kind.values[name]:
            raise InputError(f"block {block}: {name}: expected one of {list(kind.values[name])}, got {value!r}")
    elif isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            raise InputError(f"block {block}: {name}: expected {type(default).__name__}, got {value!r}")
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"block {block}: {name}: expected text, got {value!r}")
    elif name == "norm_eps":
        _epsilon(f"block {block}: {name}", value)
        return _number(name, value)
    else:
        return _number(f"block {block}: {name}", value)
    return value


def _number(name: str, value: object) -> int | float:
    """A finite number, 4.0 as 4: a kernel of 3.0 is a kernel of 3."""
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name}: expected a number, got {value!r}")
    return _whole(name, value, -MOST)


def _switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false, got {value!r}")


def _epsilon(name: str, value: object) -> None:
    if _number(name, value) <= 0:
        raise InputError(f"{name}: expected a number above 0, got {value!r}")


@dataclass(frozen=True, init=False)
class Stage:
    """``depth`` blocks of one type at one width; the first has the stride (1 or 2).

    ``Stage(block="C", depth=2, width=96, stride=2, kernel=5)``: options that are left out, or that have no effect
    without a stride, take the block's defaults, so that ``options`` is always complete and equal stages are equal
    values. Raises InputError for what no block knows.
    """

    block: str
    depth: int
    width: int
    stride: int
    options: Mapping[str, Scalar]

    def __init__(
        self,
        *,
        block: str,
        depth: int,
        width: int,
        stride: int = 1,
        options: Mapping[str, Scalar] = _EMPTY,
        **more: Scalar,
    ) -> None:
        name = block_name(block)
        given = {key: _option(name, key, value) for key, value in {**options, **more}.items()}
        if stride not in (1, 2) or isinstance(stride, bool):
            raise InputError(f"stride of a stage: expected 1 or 2, got {stride!r}")
        object.__setattr__(self, "block", name)
        object.__setattr__(self, "depth", _whole("depth", depth))
        object.__setattr__(self, "width", _whole("width", width))
        object.__setattr__(self, "stride", stride)
        if stride == 1:
            given = {key: value for key, value in given.items() if key not in menu()[name].striding}
        object.__setattr__(self, "options", menu()[name].effective(width, {**menu()[name].options, **given}))

    def __hash__(self) -> int:
        return hash((self.block, self.depth, self.width, self.stride, *self.options.values()))

    @property
    def letter(self) -> str:
        return menu()[self.block].letter

    def continues(self, last: "Stage") -> bool:
        """Whether this stage is only more of the blocks of the one before it."""
        return self.stride == 1 and self.inner_blocks == last.inner_blocks

    @property
    def inner_blocks(self) -> tuple[object, ...]:
        """What all its blocks but the first are."""
        kind = menu()[self.block]
        return self.block, self.width, *(value for key, value in self.options.items() if key not in kind.striding)

    def to_dict(self) -> dict[str, Any]:
        """The flat form of YAML files; options that stand at their default are left out."""
        defaults = menu()[self.block].options
        special = {key: value for key, value in self.options.items() if value != defaults[key]}
        return {"block": self.block, "depth": self.depth, "width": self.width, "stride": self.stride, **special}


@dataclass(frozen=True, kw_only=True)
class Stem:
    """``conv``: ``depth`` 3x3 convolutions, the first with the stride; ``patch``: one convolution, kernel = stride."""

    kind: Literal["conv", "patch"] = "conv"
    depth: int = 2
    width: int = 64
    stride: int = 2
    bias: bool = True
    norm_eps: float = 1e-3
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.kind not in ("conv", "patch"):
            raise InputError(f"stem kind: expected conv or patch, got {self.kind!r}")
        _whole("stem depth", self.depth)
        _whole("stem width", self.width)
        _whole("stem stride", self.stride)
        if self.kind == "conv" and self.stride not in (1, 2):
            raise InputError(f"stride of a conv stem: expected 1 or 2, got {self.stride!r}")
        _switch("stem bias", self.bias)
        _epsilon("stem norm_eps", self.norm_eps)
        if self.activation not in ("gelu", "gelu_tanh"):
            raise InputError(f"stem activation: expected gelu or gelu_tanh, got {self.activation!r}")
        if self.kind == "patch" or self.depth == 1:  # nothing is normalised: one spelling for one network
            object.__setattr__(self, "norm_eps", Stem.norm_eps)
            object.__setattr__(self, "activation", Stem.activation)
        if self.kind == "patch":
            object.__setattr__(self, "depth", 1)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Global average pool, LayerNorm, with ``hidden`` a dense layer of the same width and tanh, then the classifier."""

    hidden: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _switch("head hidden", self.hidden)
        _epsilon("head norm_eps", self.norm_eps)


@dataclass(frozen=True, kw_only=True)
class Arch:
    """One network as a value. ``image_size`` is the side in pixels that defines its cost.

    Source of the parts: CoAtNet, arXiv 2106.04803, section 2 and appendix A.1.
    """

    image_size: int
    in_channels: int = 3
    num_classes: int = 1000
    stem: Stem = field(default_factory=Stem)
    stages: tuple[Stage, ...] = ()
    head: Head = field(default_factory=Head)

    def __post_init__(self) -> None:
        _whole("image_size", self.image_size)
        _whole("in_channels", self.in_channels)
        _whole("num_classes", self.num_classes)
        object.__setattr__(self, "stages", tuple(self.stages))

    @functools.cached_property
    def id(self) -> str:
        """Ten hex digits; equal for equal networks, on every machine, however their stages are written down."""
        value = dataclasses.asdict(dataclasses.replace(self, stages=()))
        value["stages"] = [
            {"block": s.block, "depth": s.depth, "width": s.width, "stride": s.stride, "options": s.options}
            for s in _merged(self.stages)
        ]
        return digest(value)

    @property
    def layout(self) -> str:
        """The letters of the stages, as in ``C-C-T-T``."""
        return "-".join(stage.letter for stage in self.stages)

    @property
    def grids(self) -> tuple[int, ...]:
        """The side of the feature map in pixels after the stem and after each stage."""
        sides = [self.image_size // self.stem.stride]
        for stage in self.stages:
            sides.append(sides[-1] // stage.stride)
        return tuple(sides)

    def _repr_html_(self) -> str:
        """A notebook's view: a line a stage."""
        stem = ("stem", self.stem.kind, self.stem.depth, self.stem.width, self.grids[0])
        rows = [stem, *((f"s{place}", stage.block, stage.depth, stage.width, side) for place, (stage, side) in
                        enumerate(zip(self.stages, self.grids[1:], strict=True), 1))]  # fmt: skip
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
        )
        heads = "".join(f"<th>{name}</th>" for name in ("stage", "type", "depth", "width (channels)", "map (pixels)"))
        return (f"<p><b>{html.escape(self.layout)}</b> {self.id}, {self.image_size} pixels, {self.num_classes} "
                f"classes</p><table><tr>{heads}</tr>{cells}</table>")  # fmt: skip

    @property
    def out_width(self) -> int:
        return self.stages[-1].width if self.stages else self.stem.width

    def problems(self) -> list[str]:
        """Why this network cannot be built, as sentences; empty means that it can."""
        total = self.stem.stride * math.prod(stage.stride for stage in self.stages)
        if self.image_size % total:
            nearest = max(total, round(self.image_size / total) * total)
            return [f"image_size {self.image_size} is not a multiple of the strides' product {total}; try {nearest}"]
        reasons, in_width = [], self.stem.width
        for place, (stage, grid) in enumerate(zip(self.stages, self.grids[1:], strict=True), 1):
            found = _stage_problems(stage, in_width, grid)
            reasons += [f"stage {place} ({stage.letter}): {reason}" for reason in found]
            in_width = stage.width
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """The form of YAML and JSON files; ``Arch.from_dict`` reads it back."""
        flat = dataclasses.asdict(dataclasses.replace(self, stages=()))
        return {**flat, "stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Arch":
        """Inverse of ``to_dict``. Raises InputError that names the unknown or wrong key."""
        parts = _keys("an architecture", value, cls)
        stem = Stem(**_keys("a stem", parts.pop("stem", {}), Stem))
        head = Head(**_keys("a head", parts.pop("head", {}), Head))
        stages = parts.pop("stages", ())
        if not isinstance(stages, (list, tuple)):
            raise InputError(f"stages: expected a list, got {stages!r}")
        try:
            found = tuple(Stage(**_keys("a stage", stage)) for stage in stages)
            return cls(stem=stem, head=head, stages=found, **parts)
        except TypeError as error:  # a key is missing; the message names it
            raise InputError(f"not an architecture: {error}") from None


def check_legal(arch: Arch) -> None:
    """Raises InputError with the reasons where a network cannot be built, and for what is no architecture."""
    if not isinstance(arch, Arch):
        raise InputError(f"expected an Arch, such as load_arch gives; got {type(arch).__name__} {arch!r:.60}")
    if reasons := arch.problems():
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise InputError(f"architecture {arch.id}: {'; '.join(reasons[:3])}{more}")


@functools.lru_cache(maxsize=1 << 14)
def _stage_problems(stage: Stage, in_width: int, grid: int) -> tuple[str, ...]:
    """Why its blocks cannot be built; ``grid``: side of its last map. A search asks the same of thousands."""
    return tuple(menu()[stage.block].load().problems(in_width, stage.width, grid, **stage.options))


def _keys(what: str, value: object, cls: Any = None) -> dict[str, Any]:
    """A mapping's items, all of them fields of ``cls`` where one is given."""
    if not isinstance(value, Mapping):
        raise InputError(f"{what}: expected a mapping (key: value), got {value!r}")
    for key in value if cls else ():
        if key not in cls.__dataclass_fields__:
            raise InputError(unknown(f"key of {what}", key, cls.__dataclass_fields__))
    return dict(value)


def _merged(stages: Sequence[Stage]) -> list[Stage]:
    """Stages joined where the next one only goes on with the same blocks: (2, 1) and (1, 2) are one network."""
    joined: list[Stage] = []
    for stage in stages:
        last = joined[-1] if joined else None
        if last and stage.continues(last):
            joined[-1] = dataclasses.replace(last, depth=last.depth + stage.depth)
        else:
            joined.append(stage)
    return joined
