"""RandAugment (Cubuk et al., arXiv 1909.13719) on batches: each image has its own operations and signs.

Operations, ranges and the 31 magnitudes are torchvision's. Its transform would give a whole batch one operation, so
images are grouped by operation here: the five geometric ones become one affine warp, the others torchvision's kernels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

MAGNITUDES = 30
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDED = ("brightness", "color", "contrast", "sharpness")
LOOKED_UP = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDED, *LOOKED_UP)


class RandAugment:
    """Draws the operations of ``count`` images at once (epoch start), then applies the slice of a batch."""

    def __init__(self, layers: int, magnitude: int, count: int, random: torch.Generator) -> None:
        self.strength = magnitude / MAGNITUDES
        self.operations = torch.randint(len(OPERATIONS), (layers, count), generator=random)
        self.signs = torch.randint(0, 2, (layers, count), generator=random) * 2 - 1

    def __call__(self, images: Tensor, begin: int, end: int) -> Tensor:
        """Float (B, C, S, S) in 0..255 -> the same; operations stay on the CPU, so that no step waits for a GPU."""
        for operations, signs in zip(self.operations[:, begin:end], self.signs[:, begin:end], strict=True):
            images = self._layer(images, operations, signs)
        return images

    def _layer(self, images: Tensor, operations: Tensor, signs: Tensor) -> Tensor:
        result = images.clone()
        last = len(GEOMETRIC)
        groups: list[tuple[str, Tensor]] = [("warp", (operations >= 1) & (operations <= last))]
        groups += [(name, operations == place) for place, name in enumerate(OPERATIONS) if place > last]
        for name, mask in groups:
            chosen = mask.nonzero()[:, 0]
            if len(chosen):
                there = chosen.to(images.device, non_blocking=True)
                part = images.index_select(0, there)
                result.index_copy_(0, there, self._apply(name, part, operations[chosen], signs[chosen]))
        return result

    def _apply(self, name: str, images: Tensor, operations: Tensor, signs: Tensor) -> Tensor:
        if name == "warp":
            return _warp(images, operations, signs * self.strength)
        if name in BLENDED:
            factor = (1 + 0.9 * self.strength * signs).to(images.device, torch.float32).view(-1, 1, 1, 1)
            base = _blend_base(name, images)
            return base.lerp(images, factor).clamp_(0, 255)
        return _looked_up(name, images.to(torch.uint8), self.strength).float()


def _warp(images: Tensor, operations: Tensor, amount: Tensor) -> Tensor:
    """One affine warp for all geometric operations; ``amount`` is signed, -1..1; what comes from outside is black."""
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    amount = amount.to(torch.float32)

    def chosen(name: str) -> Tensor:
        return operations == OPERATIONS.index(name)

    theta[:, 0, 1] += torch.where(chosen("shear_x"), 0.3 * amount, 0)
    theta[:, 1, 0] += torch.where(chosen("shear_y"), 0.3 * amount, 0)
    reach = 2 * 150 / 331  # torchvision's share of the side, in coordinates that run from -1 to 1
    theta[:, 0, 2] += torch.where(chosen("translate_x"), reach * amount, 0)
    theta[:, 1, 2] += torch.where(chosen("translate_y"), reach * amount, 0)
    angle = torch.where(chosen("rotate"), math.radians(30) * amount, 0)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    theta[:, :, :2] = turn @ theta[:, :, :2]
    grid = F.affine_grid(theta.to(images.device, non_blocking=True), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _gray(images: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else tv.rgb_to_grayscale(images)


def _blend_base(name: str, images: Tensor) -> Tensor:
    """What an image is blended with: black, its grey version, its mean grey, or its smoothed version."""
    if name == "brightness":
        return torch.zeros_like(images)
    if name == "color":
        return _gray(images).expand_as(images)
    if name == "contrast":
        return _gray(images).mean(dim=(1, 2, 3), keepdim=True).expand_as(images)
    kernel = torch.full((3, 3), 1 / 13, device=images.device)
    kernel[1, 1] = 5 / 13  # Pillow's SMOOTH filter, borders untouched
    channels = images.shape[1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    return smooth


def _looked_up(name: str, images: Tensor, strength: float) -> Tensor:
    if name == "posterize":
        return tv.posterize(images, 8 - round(4 * strength))
    if name == "solarize":
        return tv.solarize(images, 255 * (1 - strength))
    return tv.autocontrast(images) if name == "autocontrast" else tv.equalize(images)
