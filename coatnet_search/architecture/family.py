"""The published networks and layouts by name. Figures: CoAtNet, arXiv 2106.04803, tables 3 and 10, section 2.2."""

import dataclasses
from collections.abc import Sequence

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.blocks import block_name, menu
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, unknown

# size: stem width, (letter, depth, width, stride) of each stage, head size
_C, _T = "C", "T"
FAMILY: dict[str, tuple[int, tuple[tuple[str, int, int, int], ...], int]] = {
    "coatnet-0": (64, ((_C, 2, 96, 2), (_C, 3, 192, 2), (_T, 5, 384, 2), (_T, 2, 768, 2)), 32),
    "coatnet-1": (64, ((_C, 2, 96, 2), (_C, 6, 192, 2), (_T, 14, 384, 2), (_T, 2, 768, 2)), 32),
    "coatnet-2": (128, ((_C, 2, 128, 2), (_C, 6, 256, 2), (_T, 14, 512, 2), (_T, 2, 1024, 2)), 32),
    "coatnet-3": (192, ((_C, 2, 192, 2), (_C, 6, 384, 2), (_T, 14, 768, 2), (_T, 2, 1536, 2)), 32),
    "coatnet-4": (192, ((_C, 2, 192, 2), (_C, 12, 384, 2), (_T, 28, 768, 2), (_T, 2, 1536, 2)), 32),
    "coatnet-5": (192, ((_C, 2, 256, 2), (_C, 12, 512, 2), (_T, 28, 1280, 2), (_T, 2, 2048, 2)), 64),
    # 6 and 7 go on at 1/16 with attention after convolution; 6 as printed (last width 2048) has 1.348 B parameters,
    # the paper says 1.47 B, which is what a last width of 3072 counts to
    "coatnet-6": (192, ((_C, 2, 192, 2), (_C, 4, 384, 2), (_C, 8, 768, 2), (_T, 42, 1536, 1), (_T, 2, 3072, 2)), 128),
    "coatnet-6-printed": (
        192, ((_C, 2, 192, 2), (_C, 4, 384, 2), (_C, 8, 768, 2), (_T, 42, 1536, 1), (_T, 2, 2048, 2)), 128),
    "coatnet-7": (192, ((_C, 2, 256, 2), (_C, 4, 512, 2), (_C, 8, 1024, 2), (_T, 42, 2048, 1), (_T, 2, 3072, 2)), 128),
}  # fmt: skip

LAYOUTS = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T")
VIT_REL = {"vit-rel": (12, 384), "vit-rel-24x512": (24, 512)}  # depth, width: near coatnet-0's and coatnet-2's cost
DEPTHWISE = "-dw"  # the stride in the depthwise convolution: the paper's ablation, and timm's default


def known_names() -> list[str]:
    """Every name that ``named_arch`` takes, short of layout strings with other letters."""
    return [*FAMILY, *(name + DEPTHWISE for name in FAMILY), *LAYOUTS, *VIT_REL]


def named_arch(name: str, *, image_size: int = 224, in_channels: int = 3, num_classes: int = 1000) -> Arch:
    """A family member (``coatnet-0``, ``coatnet-0-dw``), a layout (``C-C-T-T``: coatnet-0's depths and widths) or
    ViT_REL (``vit-rel``), at an image size in pixels. Raises InputError that names the known ones."""
    ends = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
    plain = name.strip().lower().replace("_", "-")
    if plain in VIT_REL:
        depth, width = VIT_REL[plain]
        stem = Stem(kind="patch", width=width, stride=patch_size(image_size))
        return Arch(stem=stem, stages=(Stage(block="attention", depth=depth, width=width),), **ends)  # type: ignore[arg-type]
    size, depthwise = plain.removesuffix(DEPTHWISE), plain.endswith(DEPTHWISE)
    if size in FAMILY:
        width, stages, head_size = FAMILY[size]
        return Arch(stem=Stem(width=width), stages=tuple(_stage(*s, head_size, depthwise) for s in stages), **ends)  # type: ignore[arg-type]
    letters = layout_letters(name)
    if letters is None:
        raise InputError(unknown("architecture", name, known_names()))
    width, stages, head_size = FAMILY["coatnet-0"]
    lettered = [(letter, *stage[1:]) for letter, stage in zip(letters, stages, strict=True)]
    return Arch(stem=Stem(width=width), stages=tuple(_stage(*s, head_size, False) for s in lettered), **ends)  # type: ignore[arg-type]


def layout_letters(name: str) -> Sequence[str] | None:
    """The four letters of a layout string such as ``C-C-T-T``; None for anything else."""
    letters = name.strip().upper().split("-")
    known = {block.letter for block in menu().values()}
    return letters if len(letters) == 4 and set(letters) <= known else None


def patch_size(image_size: int) -> int:
    """ViT_REL's patch: 16 pixels at 224 and above, 4 at 32, so that 49 to 1024 tokens are left."""
    return 16 if image_size >= 128 else 8 if image_size >= 64 else 4 if image_size >= 32 else 2


def _stage(letter: str, depth: int, width: int, stride: int, head_size: int, depthwise: bool) -> Stage:
    options = menu()[block_name(letter)].options
    wanted: dict[str, Scalar] = {"head_size": head_size, **({"stride_at": "depthwise"} if depthwise else {})}
    return Stage(block=letter, depth=depth, width=width, stride=stride,
                 options={key: value for key, value in wanted.items() if key in options})  # fmt: skip


def resized(arch: Arch, image_size: int) -> Arch:
    """The same network at another image size."""
    return dataclasses.replace(arch, image_size=image_size)
