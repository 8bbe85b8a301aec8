"""Large data sets: images are decoded, cropped and augmented by worker processes while the device trains."""

from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Images(Dataset[Tensor]):
    """Item i is image ``numbers[i]`` as uint8 (C, side, side); augmented by its own seed, whoever decodes it.

    A batch is asked for at once and comes as (B, C, side, side), channels last in memory as a network wants it."""

    images: Encoded
    numbers: NDArray[np.int64]
    reading: Reading
    side: int
    change: Any = None  # a torchvision transform
    seeds: tuple[int, int] = (0, 0)
    whole: bool = False  # without a transform: all of the image instead of its centre

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, places: list[int]) -> Tensor:
        shape = (len(places), self.side, self.side, self.reading.channels)
        batch = torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            for row, place in zip(batch, places, strict=True):
                number = int(self.numbers[place])
                row.copy_(self._changed(number) if self.change else self._plain(number))
        return batch

    def _changed(self, number: int) -> Tensor:
        # not torch.manual_seed: it asks after GPUs, for each image, with a stack trace where none is in use
        torch.default_generator.manual_seed(generator(*self.seeds, number).initial_seed())
        changed: Tensor = self.change(open_pixels(self.images.read(number), self.reading))
        return changed

    def _plain(self, number: int) -> Tensor:
        image = open_image(self.images.read(number), self.reading)
        shown = square(image, self.side if self.whole else round(self.side * STORED_OVER_SHOWN))
        margin = (shown.width - self.side) // 2
        return pixels_of(shown.crop((margin, margin, margin + self.side, margin + self.side)))


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
    """The iterators of ``InMemory`` for images that stay encoded. ``numbers`` maps positions to the source's."""

    def __init__(self, images: Encoded, numbers: NDArray[np.int64], reading: Reading, workers: int) -> None:
        self.images, self.numbers, self.reading, self.workers = images, numbers, reading, workers

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
        items = _Images(self.images, chosen, self.reading, side, transform(recipe, side), seeds)
        return self._batches(items, batch_size // part[1], device)

    def plain(
        self, numbers: Tensor, batch_size: int, side: int, device: torch.device, whole: bool = False
    ) -> Iterator[Tensor]:
        items = _Images(self.images, self.numbers[numbers.numpy()], self.reading, side, whole=whole)
        return self._batches(items, batch_size, device)

    def _batches(self, items: _Images, batch_size: int, device: torch.device) -> Iterator[Tensor]:
        order = [list(range(begin, min(begin + batch_size, len(items)))) for begin in range(0, len(items), batch_size)]
        loader: DataLoader[Tensor] = DataLoader(
            items,
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator().manual_seed(0),  # else each loader takes a number from the global one
        )
        for images in loader:
            yield images.to(device, non_blocking=True).float()
