"""PLUGIN what a stage is made of: one file and one line in ``BLOCKS`` each.

The menu is free of torch, so that an architecture (a plain value) can be checked, named and hashed without it; the
module behind a line is imported when a block is first built. A block's module defines one class::

    class MyBlock(nn.Module):
        def __init__(self, in_width, width, stride, grid, *, drop_path, **options): ...   # grid: input side, pixels
        def forward(self, x): ...                   # (B, in_width, grid, grid) -> (B, width, grid/stride, grid/stride)
        @staticmethod
        def problems(in_width, width, grid, **options) -> list[str]: ...                  # grid: output side, pixels
        folds = (("conv", "norm"), ...)             # optional: pairs of attributes of which `fold_norms` makes one

A supernet cuts smaller blocks out of larger ones' parameters: leading entries of every dimension, of convolution
kernels the centre. A block whose parameters mean the same when cut so (heads first, then what is one's) can be in one.

Third parties add lines by the entry point group ``coatnet_search.blocks`` (name = block name, object = ``BlockType``).
"""

import functools
import importlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, SetupError, unknown


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """One line of the menu: the letter in layout strings, the family it counts as, the class, its options' defaults."""

    letter: str
    kind: Literal["convolution", "attention"]
    cls: str  # "package.module:Class"
    options: Mapping[str, Scalar]
    values: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)  # the closed sets among the options
    striding: tuple[str, ...] = ()  # the options that only a block with a stride of 2 looks at
    effective: Callable[[int, dict[str, Scalar]], dict[str, Scalar]] = lambda width, options: options
    """(width, options) -> the options in the one spelling of those that build the same block at that width."""

    def load(self) -> Any:
        module, _, name = self.cls.partition(":")
        return getattr(importlib.import_module(module), name)


def squeezed(width: int, ratio: float) -> int:
    """Channels of a squeeze-and-excitation in a block of ``width``: at least one; 0 where there is none."""
    return max(1, int(ratio * width)) if ratio else 0


def _one_ratio(default: float) -> Callable[[int, dict[str, Scalar]], dict[str, Scalar]]:
    """Ratios that squeeze to equally many channels are one: the default, or the least that gives so many."""

    def effective(width: int, options: dict[str, Scalar]) -> dict[str, Scalar]:
        given = options["se_ratio"]
        assert isinstance(given, (int, float))
        if not 0 <= given <= 1:  # no block has it; its own check says so
            return options
        count = squeezed(width, given)
        ratio = default if squeezed(width, default) == count else count / width
        while squeezed(width, ratio) < count:  # count / width x width may round below count
            ratio = math.nextafter(ratio, 1.0)
        return {**options, "se_ratio": int(ratio) if float(ratio).is_integer() else ratio}

    return effective


_POOL, _ACTIVATION = ("max", "avg"), ("gelu", "gelu_tanh")

BLOCKS: dict[str, BlockType] = {
    "mbconv": BlockType(
        letter="C",
        kind="convolution",
        cls="coatnet_search.architecture.blocks.mbconv:MBConv",
        options={"expand": 4, "kernel": 3, "se_ratio": 0.25, "stride_at": "expand", "pool": "max",
                 "norm": "batch", "norm_eps": 1e-3, "activation": "gelu"},
        values={"stride_at": ("expand", "depthwise"), "pool": _POOL, "norm": ("batch", "layer"),
                "activation": _ACTIVATION},
        striding=("stride_at", "pool"),
        effective=_one_ratio(0.25),
    ),
    "fused_mbconv": BlockType(
        letter="F",
        kind="convolution",
        cls="coatnet_search.architecture.blocks.fused_mbconv:FusedMBConv",
        options={"expand": 4, "kernel": 3, "se_ratio": 0, "pool": "max", "norm": "batch", "norm_eps": 1e-3,
                 "activation": "gelu"},
        values={"pool": _POOL, "norm": ("batch", "layer"), "activation": _ACTIVATION},
        striding=("pool",),
        effective=_one_ratio(0),
    ),
    "attention": BlockType(
        letter="T",
        kind="attention",
        cls="coatnet_search.architecture.blocks.attention:Attention",
        options={"expand": 4, "head_size": 32, "relative": True, "pool": "max", "norm_eps": 1e-5,
                 "activation": "gelu"},
        values={"pool": _POOL, "activation": _ACTIVATION},
        striding=("pool",),
    ),
}  # fmt: skip


@functools.cache
def menu() -> dict[str, BlockType]:
    """The built-in blocks and those that installed packages add. Raises SetupError where a name or letter is taken."""
    found = dict(BLOCKS)
    for point in importlib.metadata.entry_points(group="coatnet_search.blocks"):
        block: BlockType = point.load()
        taken = {*found, *(other.letter for other in found.values())}
        for name in (point.name, block.letter):
            if name in taken:
                raise SetupError(f"block {point.name} of {point.value}: the name {name!r} is taken; rename it")
        found[point.name] = block
    return found


@functools.cache
def block_name(name: str) -> str:
    """The full name of a block given by name or letter (``C`` -> ``mbconv``). Raises InputError with the known ones."""
    if name in menu():
        return name
    for full, block in menu().items():
        if block.letter == name:
            return full
    raise InputError(unknown("block", name, [*menu(), *(b.letter for b in menu().values())]))
