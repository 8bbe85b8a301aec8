"""Small data sets: images decoded once per machine into a memory-mapped array, then kept on the device as uint8."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coatnet_search.core.errors import InputError
from coatnet_search.data.augmentation import STORED_OVER_SHOWN, Augmentation, augment, centre, draw_choices, generator
from coatnet_search.data.batches import ALL, Part
from coatnet_search.data.cache import cached
from coatnet_search.data.decode import Reading, open_image, square, to_array
from coatnet_search.data.index import Index, parallel
from coatnet_search.data.randaugment import RandAugment
from coatnet_search.data.source import Encoded, Pixels, Source
from coatnet_search.data.value_range import special_values

LIMIT_BYTES = 2 << 30
KEPT_SHARE = 1 / 8  # of a GPU's free memory: images beyond it stay in the machine's, and batches are copied
SMALL_SIDE = 96  # equal squares up to this side are kept as they are, whatever size is trained at


def stored_side(index: Index, image_size: int | None) -> tuple[int, int]:
    """(stored side, shown side) in pixels: equal small squares as they are, everything else a little over image_size.

    Raises InputError where images differ in size and no size is given.
    """
    side = index.uniform_side
    if side is not None and (image_size is None or side <= max(SMALL_SIDE, round(image_size * STORED_OVER_SHOWN))):
        return side, side
    if image_size is None:
        raise InputError("the images differ in size: an image_size is needed to load them")
    return round(image_size * STORED_OVER_SHOWN), image_size


def fits(index: Index, channels: int, image_size: int | None) -> bool:
    side, _ = stored_side(index, image_size)
    return len(index.numbers) * channels * side * side <= LIMIT_BYTES


def _decode_all(images: Encoded, index: Index, reading: Reading, side: int, out: NDArray[np.uint8]) -> None:
    def one(place: int) -> None:
        image = open_image(images.read(int(index.numbers[place])), reading)
        out[place] = to_array(square(image, side))

    parallel(one, len(index.numbers))


def _resize_all(images: Pixels, index: Index, side: int, out: NDArray[np.uint8]) -> None:
    for begin in range(0, len(index.numbers), 1024):
        part = torch.from_numpy(images.pixels[index.numbers[begin : begin + 1024]])
        shown = min(part.shape[-2:])
        part = part if shown == side else centre(part, shown, side).round().clamp(0, 255).to(torch.uint8)
        out[begin : begin + len(part)] = part.numpy()


def decoded(source: Source, index: Index, reading: Reading, side: int) -> NDArray[np.uint8]:
    """(N, C, side, side) in the index's order, memory-mapped: processes of a machine share one copy."""

    def write(path: Path) -> None:
        shape = (len(index.numbers), reading.channels, side, side)
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        images = source.load()
        if isinstance(images, Pixels):
            _resize_all(images, index, side, out)
        else:
            _decode_all(images, index, reading, side, out)
        out.flush()

    values = "".join(f"-{part}" for part in special_values(index, reading).values())
    name = f"squares-{index.content_digest()}-{reading.channels}x{side}{values}.npy"
    pixels: NDArray[np.uint8] = np.load(cached(name, write), mmap_mode="c")  # copy-on-write: torch wants it writable
    return pixels


def holds(device: torch.device, count: int) -> bool:
    """Whether a device is to hold so many bytes of images beside what trains on it."""
    return device.type != "cuda" or count <= KEPT_SHARE * torch.cuda.mem_get_info(device)[0]


class InMemory:
    """Batches of images that all lie on the device, or in the machine's memory where a GPU has little. Numbers are
    positions in the index."""

    def __init__(self, pixels: NDArray[np.uint8], shown: int) -> None:
        self.pixels, self.shown = torch.from_numpy(pixels), shown
        self._there: dict[torch.device, Tensor] = {torch.device("cpu"): self.pixels}

    @property
    def streamed(self) -> bool:
        return False

    def sides(self, side: int) -> tuple[int, int]:
        return int(self.pixels.shape[-1]), self.shown

    def on(self, device: torch.device) -> Tensor:
        """(N, C, F, F) uint8 on ``device``, copied there once; on the CPU where they are too many for it."""
        if device not in self._there:
            self._there[device] = self.pixels.to(device) if holds(device, self.pixels.nbytes) else self.pixels
        return self._there[device]

    def train(
        self,
        numbers: Tensor,
        batch_size: int,
        side: int,
        recipe: Augmentation,
        seeds: tuple[int, int],
        device: torch.device,
        part: Part = ALL,
    ) -> Iterator[Tensor]:
        """Augmented float batches (B, C, side, side) in 0..255, in the given order; each has ``batch_size`` images, or
        one worker's ``part`` of them."""
        pixels = self.on(device)
        numbers = numbers.to(pixels.device)
        random = generator(*seeds, 1)
        choices = draw_choices(recipe, len(numbers), device, random)
        layers, magnitude, own = recipe.randaugment_layers, recipe.randaugment_magnitude, batch_size // part[1]
        change = RandAugment(layers, magnitude, len(numbers), random, batch=own, device=device) if layers else None
        for begin in range(part[0] * own, len(numbers), batch_size):
            end = begin + own
            images = pixels.index_select(0, numbers[begin:end]).to(device)
            images = augment(images, choices.part(begin, end), self.shown, side)
            yield change(images, begin, end) if change else images

    def plain(
        self, numbers: Tensor, batch_size: int, side: int, device: torch.device, whole: bool = False
    ) -> Iterator[Tensor]:
        """Float batches (B, C, side, side) in 0..255 without augmentation."""
        pixels = self.on(device)
        numbers = numbers.to(pixels.device)
        shown = int(pixels.shape[-1]) if whole else self.shown
        for begin in range(0, len(numbers), batch_size):
            yield centre(pixels.index_select(0, numbers[begin : begin + batch_size]).to(device), shown, side)
