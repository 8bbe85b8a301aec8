"""The paper's family at other sizes: the grid of depths and widths in which ``C-C-T-T@4.2e9`` finds its network.

Widths keep the family's proportions: w, 2w, 4w (or 5w, as coatnet-5) and 8w after a stem of w or three quarters of it;
depths lie around those of coatnet-0 to -5 and of the paper's block splits (arXiv 2106.04803, tables 3 and 12).
"""

from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.family import LAYOUTS, patch_size
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.space.file import SpaceFile
from coatnet_search.space.match import VIT_REL, Match, match
from coatnet_search.space.space import Space

LARGE = 128  # pixels from which strides and head size are the paper's
MIN_SIDE = 4  # of the last map in pixels: attention has at least 16 tokens
DEPTHS = ((1, 2, 3), (1, 2, 3, 4, 6, 8, 12), (2, 3, 4, 5, 6, 8, 10, 12, 14, 18, 24, 28), (1, 2, 3))
WIDTHS = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of the first stage
SMALL_WIDTHS = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64)
VIT_DEPTHS = tuple(range(2, 49))
AT = "@"


def family_spaces(layout: str, *, image_size: int = 224, in_channels: int = 3, num_classes: int = 1000) -> list[Space]:
    """The paper's family in one layout of four stages, or ViT_REL (``vit-rel``), as spaces for ``match``: one a width,
    since a family's widths go together. Below 128 pixels heads have 8 channels, and only the last stages have strides.

    Raises InputError for another layout, or an image size that the strides do not divide.
    """
    plain = layout.strip().lower().replace("_", "-")
    ends = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
    head_size = 32 if image_size >= LARGE else 8
    if plain == VIT_REL:
        return [_vit_rel(width, head_size, ends) for width in range(2 * head_size, 44 * head_size + 1, head_size)]
    letters = plain.upper().split("-")
    if len(letters) != len(DEPTHS) or not set(letters) <= {block.letter for block in menu().values()}:
        raise InputError(unknown("layout", layout, [*LAYOUTS, VIT_REL]))
    strides = _strides(image_size)
    return [_staged(letters, width, strides, head_size, ends)
            for width in (WIDTHS if image_size >= LARGE else SMALL_WIDTHS)]  # fmt: skip


def resized(text: str, *, image_size: int = 224, in_channels: int = 3, num_classes: int = 1000) -> Match:
    """The network of the family that ``LAYOUT@MACS`` means: the closest in multiply-adds. Raises InputError."""
    layout, _, wanted = text.rpartition(AT)
    try:
        macs = float(wanted)
    except ValueError:
        raise InputError(f"{text}: expected LAYOUT@MACS such as C-C-T-T@4.2e9, got {wanted!r} as macs") from None
    spaces = family_spaces(layout, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
    return match(spaces, layout, macs=macs)[0]


def _staged(letters: list[str], width: int, strides: tuple[int, ...], head_size: int, ends: dict[str, int]) -> Space:
    widths = ((width,), (2 * width,), (4 * width, 5 * width), (8 * width,))
    step = head_size // 2
    stems = tuple(sorted({max(step, width * 3 // 4 // step * step), width}))
    stages = tuple(
        {"block": letter, "depth": depths, "width": choice, "stride": stride}
        for letter, depths, choice, stride in zip(letters, DEPTHS, widths, strides[1:], strict=True)
    )
    stem = {"kind": "conv", "depth": 2, "width": stems, "stride": strides[0]}
    return Space(SpaceFile(stem=stem, stages=stages, head_size=head_size, **ends), "family")  # type: ignore[arg-type]


def _vit_rel(width: int, head_size: int, ends: dict[str, int]) -> Space:
    stem = {"kind": "patch", "width": width, "stride": patch_size(ends["image_size"])}
    stage = {"block": "T", "depth": VIT_DEPTHS, "width": (width,), "stride": 1}
    return Space(SpaceFile(stem=stem, stages=(stage,), head_size=head_size, **ends), VIT_REL)  # type: ignore[arg-type]


def _strides(image_size: int) -> tuple[int, ...]:
    """Of stem and stages: as many of the last ones halve the map as leave ``MIN_SIDE`` pixels, all from 128 on."""
    halvings = min(5, max(0, (image_size // MIN_SIDE).bit_length() - 1))
    if image_size % 2**halvings:
        nearest = max(1, round(image_size / 2**halvings)) * 2**halvings
        raise InputError(
            f"image_size {image_size} is not a multiple of the strides' product {2**halvings}; try {nearest}"
        )
    return (1,) * (5 - halvings) + (2,) * halvings
