"""Large data sets: images are decoded, cropped and augmented by worker processes while the device trains."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from coatnet_search.data.augmentation import STORED_OVER_SHOWN, Augmentation, generator
from coatnet_search.data.batches import ALL, Part, share
from coatnet_search.data.decode import Reading, open_image, open_pixels, pixels_of, square
from coatnet_search.data.source import Encoded

CHUNK = 64  # images that a worker decodes and hands over at once, whatever the batch
PREFETCH = 4  # chunks that each worker prepares ahead
BUDGET_BYTES = 1 << 30  # of /dev/shm, where chunks wait: all workers' of one training process


def chunk_images(image_bytes: int, workers: int) -> int:
    """Images of a chunk: ``CHUNK``, or fewer where those that wait would take more than the budget."""
    return max(1, min(CHUNK, BUDGET_BYTES // (max(1, workers) * (PREFETCH + 1) * image_bytes)))


@dataclass(frozen=True)
class _Chunk:
    """What a worker is asked for: some images of the source, and how they shall be."""

    numbers: NDArray[np.int64]
    side: int
    recipe: Augmentation | None = None  # how they are changed; None: as they are
    seeds: tuple[int, int] = (0, 0)
    whole: bool = False  # without a recipe: all of the image instead of its centre


@dataclass(frozen=True)
class _Images(Dataset[Tensor]):
    """A chunk of images as uint8 (n, C, side, side), channels last in memory as a network wants it; each is augmented
    by its own seed, whoever decodes it."""

    images: Encoded
    reading: Reading

    def __getitem__(self, chunk: _Chunk) -> Tensor:
        shape = (len(chunk.numbers), chunk.side, chunk.side, self.reading.channels)
        found = torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
        change = transform(chunk.recipe, chunk.side) if chunk.recipe else None
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            for row, number in zip(found, chunk.numbers.tolist(), strict=True):
                row.copy_(self._changed(number, change, chunk.seeds) if change else self._plain(number, chunk))
        return found

    def _changed(self, number: int, change: Any, seeds: tuple[int, int]) -> Tensor:
        # not torch.manual_seed: it asks after GPUs, for each image, with a stack trace where none is in use
        torch.default_generator.manual_seed(generator(*seeds, number).initial_seed())
        changed: Tensor = change(open_pixels(self.images.read(number), self.reading))
        return changed

    def _plain(self, number: int, chunk: _Chunk) -> Tensor:
        image = open_image(self.images.read(number), self.reading)
        shown = square(image, chunk.side if chunk.whole else round(chunk.side * STORED_OVER_SHOWN))
        margin = (shown.width - chunk.side) // 2
        return pixels_of(shown.crop((margin, margin, margin + chunk.side, margin + chunk.side)))


def _as_it_is(batch: Any) -> Any:
    return batch


def transform(recipe: Augmentation, side: int) -> Any:
    """Random resized crop (or resize, random shift), flip and RandAugment of torchvision, on uint8 (C, H, W)."""
    if recipe.min_crop_area < 1:
        steps: list[Any] = [v2.RandomResizedCrop(side, scale=(recipe.min_crop_area, 1.0), antialias=True)]
    else:
        steps = [v2.Resize(side, antialias=True), v2.CenterCrop(side)]
        if recipe.shift:
            steps.append(v2.RandomCrop(side, padding=recipe.shift, padding_mode="reflect"))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.randaugment_layers:
        steps.append(v2.RandAugment(recipe.randaugment_layers, recipe.randaugment_magnitude))
    return v2.Compose(steps)


class Streamed:
    """The iterators of ``InMemory`` for images that stay encoded. ``numbers`` maps positions to the source's.

    Workers are started once and stay for the next epoch; an iterator beside one that has not ended has its own.
    """

    def __init__(self, images: Encoded, numbers: NDArray[np.int64], reading: Reading, workers: int) -> None:
        self.images, self.numbers, self.reading, self.workers = images, numbers, reading, workers
        self._kept: dict[str, _Loader] = {}  # by type of device

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # a copy starts workers of its own

    @property
    def streamed(self) -> bool:
        return True

    def sides(self, side: int) -> tuple[int, int]:
        return round(side * STORED_OVER_SHOWN), side

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
        chosen = self.numbers[numbers[share(len(numbers), batch_size, part)].numpy()]
        return self._batches(_Chunk(chosen, side, recipe, seeds), batch_size // part[1], device)

    def plain(
        self, numbers: Tensor, batch_size: int, side: int, device: torch.device, whole: bool = False
    ) -> Iterator[Tensor]:
        return self._batches(_Chunk(self.numbers[numbers.numpy()], side, whole=whole), batch_size, device)

    def _batches(self, asked: _Chunk, batch_size: int, device: torch.device) -> Iterator[Tensor]:
        """What is asked for in batches, put together on the device from chunks."""
        most = chunk_images(self.reading.channels * asked.side**2, self.workers)
        count = len(asked.numbers)
        ends = [*range(batch_size, count, batch_size), count] if count else []
        batches = [[slice(begin, min(begin + most, end)) for begin in range(first, end, most)]
                   for first, end in zip([0, *ends], ends, strict=False)]  # fmt: skip
        chunks = [replace(asked, numbers=asked.numbers[place]) for batch in batches for place in batch]
        arriving = self._loader(device).chunks(chunks)
        for batch in batches:
            there = [next(arriving).to(device, non_blocking=True) for _ in batch]
            images = there[0] if len(there) == 1 else torch.cat(there)
            yield images.float()

    def _loader(self, device: torch.device) -> "_Loader":
        kept = self._kept.get(device.type)
        if kept is None or kept.busy:
            kept = self._kept[device.type] = _Loader(_Images(self.images, self.reading), self.workers, device)
        return kept


class _Loader:
    """Worker processes that hand over chunks. ``busy`` from the first chunk that is asked for to the last: workers that
    fail, or are left before it, are not asked again."""

    def __init__(self, images: _Images, workers: int, device: torch.device) -> None:
        self.busy = False
        self._asked: list[_Chunk] = []
        self._loader: DataLoader[Tensor] = DataLoader(
            images,
            batch_size=None,
            sampler=self._asked,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator().manual_seed(0),  # else each loader takes a number from the global one
        )

    def chunks(self, asked: list[_Chunk]) -> Iterator[Tensor]:
        self.busy, self._asked[:] = True, asked
        arriving = iter(self._loader)
        for place in range(len(asked)):
            chunk = next(arriving)
            self.busy = place + 1 < len(asked)
            yield chunk
