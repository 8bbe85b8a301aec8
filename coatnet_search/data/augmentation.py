"""Geometric augmentation of a whole batch at once, on the device that holds the images.

Shapes: B images of a batch, C channels, F stored side, S wanted side. All random numbers of an epoch are drawn at its
start, on the CPU, from one generator: a step then only slices them, and CPU and GPU see the same choices.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

STORED_OVER_SHOWN = 256 / 224  # stored side over shown side of images that were resized for storage


class Augmentation(Protocol):
    """The part of a recipe that data sets look at."""

    @property
    def flip(self) -> bool: ...
    @property
    def shift(self) -> int: ...  # largest shift in pixels of the wanted size, in both directions
    @property
    def min_crop_area(self) -> float: ...  # random resized crops of this share of the area or more; 1: none
    @property
    def randaugment_layers(self) -> int: ...
    @property
    def randaugment_magnitude(self) -> int: ...  # 0..30


def generator(*seeds: int) -> torch.Generator:
    """A CPU generator that depends on all of ``seeds``, in order."""
    state = np.random.SeedSequence(seeds).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@dataclass(frozen=True)
class Choices:
    """One epoch's random numbers for n images, one row an image; None where a recipe has no use for them."""

    flip: Tensor | None  # (n,) bool
    shift: Tensor | None  # (n, 2) int64: rows, columns
    crop: Tensor | None  # (n, 4) float: height, width, top, left as shares of the stored side

    def part(self, begin: int, end: int) -> "Choices":
        parts = (None if t is None else t[begin:end] for t in (self.flip, self.shift, self.crop))
        return Choices(*parts)


def draw_choices(recipe: Augmentation, count: int, device: torch.device, random: torch.Generator) -> Choices:
    """Draws everything that one epoch of ``count`` images needs."""
    flip = torch.rand(count, generator=random) < 0.5 if recipe.flip else None
    crop = _draw_crops(recipe.min_crop_area, count, random) if recipe.min_crop_area < 1 else None
    shift = None
    if recipe.shift and crop is None:
        shift = torch.randint(-recipe.shift, recipe.shift + 1, (count, 2), generator=random)
    return Choices(*(None if t is None else t.to(device) for t in (flip, shift, crop)))


def _draw_crops(min_area: float, count: int, random: torch.Generator) -> Tensor:
    """Area uniform in [min_area, 1], aspect ratio log-uniform in [3/4, 4/3] (Inception crops), cut to the image."""
    area = min_area + (1 - min_area) * torch.rand(count, generator=random)
    ratio = torch.exp((2 * torch.rand(count, generator=random) - 1) * math.log(4 / 3))
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    place = torch.rand(count, 2, generator=random)
    return torch.stack([height, width, (1 - height) * place[:, 0], (1 - width) * place[:, 1]], dim=1)


def centre(images: Tensor, shown: int, side: int) -> Tensor:
    """The central ``shown`` x ``shown`` pixels of (B, C, F, F), resized to (B, C, side, side); uint8 in, float out."""
    margin = (images.shape[-1] - shown) // 2
    return resize(images[..., margin : margin + shown, margin : margin + shown], side)


def resize(images: Tensor, side: int) -> Tensor:
    """(B, C, H, H) -> float (B, C, side, side), anti-aliased."""
    images = images.float()
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def augment(images: Tensor, choices: Choices, shown: int, side: int) -> Tensor:
    """uint8 (B, C, F, F) -> float (B, C, side, side), each image cropped or shifted and flipped by its own choices."""
    if choices.crop is not None:
        return _resized_crop(images, choices.crop, choices.flip, side)
    if shown != side:
        images = centre(images, shown, side)
        shown = side
    if choices.shift is None and choices.flip is None:
        return centre(images, shown, side)
    return _shift_and_flip(images, choices, side).float()


def _shift_and_flip(images: Tensor, choices: Choices, side: int) -> Tensor:
    """The window of ``side`` pixels around the shifted centre; beyond the border the image is mirrored."""
    batch, channels, stored, _ = images.shape
    place = torch.arange(side, device=images.device) + (stored - side) // 2
    rows = cols = place.expand(batch, side)
    if choices.flip is not None:
        cols = torch.where(choices.flip[:, None], cols.flip(1), cols)
    if choices.shift is not None:
        rows, cols = rows + choices.shift[:, :1], cols + choices.shift[:, 1:]
        rows, cols = (_mirrored(p, stored) for p in (rows, cols))
    flat = (rows[:, :, None] * stored + cols[:, None, :]).view(batch, 1, side * side)  # one gather does it all
    return (
        images.reshape(batch, channels, -1).gather(2, flat.expand(-1, channels, -1)).view(batch, channels, side, side)
    )


def _mirrored(place: Tensor, stored: int) -> Tensor:
    return (stored - 1) - ((stored - 1) - place.abs()).abs()


def _resized_crop(images: Tensor, crop: Tensor, flip: Tensor | None, side: int) -> Tensor:
    height, width, top, left = crop.unbind(1)
    sign = torch.ones_like(width) if flip is None else 1 - 2 * flip.to(width.dtype)
    zero = torch.zeros_like(width)
    theta = torch.stack([width * sign, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1], dim=1).view(
        -1, 2, 3
    )  # output coordinates in [-1, 1] -> input coordinates
    grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
