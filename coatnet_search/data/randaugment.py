"""RandAugment (Cubuk et al., arXiv 1909.13719) on batches: each image has its own operations and signs.

Operations, ranges and the 31 magnitudes are torchvision's. Its transform would give a whole batch one operation, so
images are grouped by operation here: the five geometric ones become one affine warp, the others torchvision's kernels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

MAGNITUDES = 30
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDED = ("brightness", "color", "contrast", "sharpness")
LOOKED_UP = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDED, *LOOKED_UP)
GROUPS = ("identity", "warp", *BLENDED, *LOOKED_UP)  # what runs as one operation on all its images of a batch


@dataclass(frozen=True)
class _Layer:
    """One layer's choices for an epoch, on the device; within each batch in the order of ``GROUPS``."""

    places: Tensor  # (n,) int64: which image of its batch
    factors: Tensor  # (n,) float: of a blend
    theta: Tensor  # (n, 2, 3) float: of a warp, from coordinates that come out to those that go in
    ends: Sequence[Sequence[int]]  # of each batch's groups, within the batch; on the CPU

    def groups(self, number: int) -> Iterator[tuple[str, int, int]]:
        """The groups of a batch that change images, with their first place and the one after their last."""
        ends = self.ends[number]
        for name, begin, end in zip(GROUPS[1:], ends, ends[1:], strict=False):
            if begin < end:
                yield name, begin, end


class RandAugment:
    """Draws the operations of ``count`` images at once (epoch start), then changes them a batch of ``batch`` at a time.

    Everything that a step needs is on ``device`` from the start but the sizes of groups, so no step waits for a GPU.
    """

    def __init__(
        self, layers: int, magnitude: int, count: int, random: torch.Generator, *, batch: int,
        device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.strength, self.batch, self.device = magnitude / MAGNITUDES, batch, device or torch.device("cpu")
        operations = torch.randint(len(OPERATIONS), (layers, count), generator=random)
        signs = torch.randint(0, 2, (layers, count), generator=random) * 2 - 1
        self.layers = [self.layer(*one) for one in zip(operations, signs, strict=True)]

    def layer(self, operations: Tensor, signs: Tensor) -> _Layer:
        """The choices of (n,) operations and their signs, -1 or 1, sorted by batch and group."""
        group = torch.where(operations == 0, 0, (operations - len(GEOMETRIC) + 1).clamp(min=1))
        key = torch.arange(len(group)) // self.batch * len(GROUPS) + group
        order = key.argsort(stable=True)
        sizes = key.bincount(minlength=(len(group) // self.batch + 1) * len(GROUPS)).view(-1, len(GROUPS))
        operations, signs = operations[order], signs[order]
        places, factors = order % self.batch, 1 + 0.9 * self.strength * signs
        theta = _thetas(operations, signs * self.strength)
        places, factors, theta = (part.to(self.device) for part in (places, factors, theta))
        return _Layer(places, factors, theta, sizes.cumsum(1).tolist())

    def __call__(self, images: Tensor, begin: int, end: int) -> Tensor:
        """Float (B, C, S, S) in 0..255 -> the same; ``begin`` is a multiple of ``batch``."""
        assert begin % self.batch == 0 and end - begin <= self.batch
        for layer in self.layers:
            images = self._changed(images, layer, begin)
        return images

    def _changed(self, images: Tensor, layer: _Layer, first: int) -> Tensor:
        result = images.clone()
        for name, begin, end in layer.groups(first // self.batch):
            chosen = slice(first + begin, first + end)
            there = layer.places[chosen]
            part = images.index_select(0, there)
            result.index_copy_(0, there, self._apply(name, part, layer.factors[chosen], layer.theta[chosen]))
        return result

    def _apply(self, name: str, images: Tensor, factors: Tensor, theta: Tensor) -> Tensor:
        if name == "warp":  # what comes from outside is black
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
            return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if name in BLENDED:
            return _blend_base(name, images).lerp(images, factors.view(-1, 1, 1, 1)).clamp_(0, 255)
        return _looked_up(name, images.to(torch.uint8), self.strength).float()


def _thetas(operations: Tensor, amount: Tensor) -> Tensor:
    """(n, 2, 3): the affine map of each geometric operation, of the others none; ``amount`` is signed, -1..1."""
    theta = torch.eye(2, 3).repeat(len(operations), 1, 1)
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
    return theta


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
    kernel[1, 1].fill_(
        5 / 13
    )  # Pillow's SMOOTH filter, borders untouched; an assigned number would be copied and waited for
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
