"""Data: the two parts of a data set, train and val, as iterators of batches. What the trainer sees.

Shapes: B images a batch, C channels, S the side in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coatnet_search.core.errors import InputError
from coatnet_search.data.augmentation import Augmentation, generator
from coatnet_search.data.decode import Reading
from coatnet_search.data.splits_and_regimes import nested_order

Batch = tuple[Tensor, Tensor]  # float (B, C, S, S) normalised, channels last; int64 (B,)
Part = tuple[int, int]  # (which, of how many): the images of a batch that one of several workers takes
ALL: Part = (0, 1)
TRAIN_SAMPLE = 2048  # at most so many training images are looked at again, without augmentation, after an epoch


class Images(Protocol):
    """Where the pixels are: ``InMemory`` or ``Streamed``. Batches are float in 0..255, on the device; whoever gets one
    may change it."""

    @property
    def streamed(self) -> bool: ...  # whether images are decoded while the device trains

    def sides(self, side: int) -> tuple[int, int]:
        """(stored, shown) in pixels: images are resized to the first and cut to the second, then seen at ``side``."""

    def train(
        self,
        numbers: Tensor,
        batch_size: int,
        side: int,
        recipe: Augmentation,
        seeds: tuple[int, int],
        device: torch.device,
        part: Part = ALL,
    ) -> Iterator[Tensor]: ...

    def plain(
        self, numbers: Tensor, batch_size: int, side: int, device: torch.device, whole: bool = False
    ) -> Iterator[Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set that is ready to train on.

    ``digest`` (hex) stands for the bytes of all images, their labels and the split; it is equal on every machine.
    ``train_numbers`` and ``val_numbers`` are positions in ``labels`` and in ``images``.
    """

    class_names: tuple[str, ...]
    in_channels: int
    reading: Reading | None = None  # how files become these pixels; None where they are none of files
    digest: str
    note: str | None
    num_broken: int
    findings: tuple[str, ...] = ()  # see ``Source``
    image_size: int  # used where a batch is asked for without one
    seed: int  # of the split and of regimes
    per_class: int = 1  # least images of a class in a regime
    mean: tuple[float, ...]  # of a channel, in 0..255
    std: tuple[float, ...]
    images: Images = field(repr=False)
    labels: Tensor = field(repr=False)  # (N,) int64
    hashes: NDArray[np.uint8] = field(repr=False)  # (N, 16)
    train_numbers: NDArray[np.int64] = field(repr=False)
    val_numbers: NDArray[np.int64] = field(repr=False)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        return len(self.train_numbers)

    @property
    def num_val(self) -> int:
        return len(self.val_numbers)

    def to(self, device: torch.device | str) -> "Data":
        """Moves what is kept in memory to ``device`` now instead of at the first batch. Returns this object."""
        numbers = torch.from_numpy(self.val_numbers[:1])
        next(self.images.plain(numbers, 1, self.image_size, torch.device(device)))
        return self

    def regime(self, num_images: int | None = None, draw: int = 0) -> Tensor:
        """Numbers of the first ``num_images`` training images of a draw: stratified, smaller ones inside larger ones.

        Raises InputError for more images than there are, or fewer than classes.
        """
        count = self.num_train if num_images is None else num_images
        if not self.per_class * self.num_classes <= count <= self.num_train:
            raise InputError(
                f"num_images: expected {self.per_class * self.num_classes} ({self.per_class} a class) to "
                f"{self.num_train} (all), got {count}"
            )
        labels = self.labels.numpy()[self.train_numbers]
        order = nested_order(self.hashes[self.train_numbers], labels, seed=self.seed, draw=draw,
                             per_class=self.per_class)  # fmt: skip
        return torch.from_numpy(self.train_numbers[order[:count]])

    def num_steps(self, batch_size: int, num_images: int | None = None) -> int:
        """Steps of one epoch: whole batches only; what is left over comes in another epoch's order."""
        return max(1, (self.num_train if num_images is None else num_images) // batch_size)

    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        recipe: Augmentation,
        device: torch.device,
        regime: Tensor,
        image_size: int | None = None,
        part: Part = ALL,
        balanced: bool = False,
    ) -> Iterator[Batch]:
        """One epoch of augmented batches over the images of ``regime``, shuffled and changed by (seed, epoch) alone.

        Every batch has ``batch_size`` images, or all of them where there are fewer. Of each, ``part`` gives one of
        several workers its share: the same images, changed in the same way, whoever takes them. ``balanced``: equally
        many images of each class, in as many batches. Raises InputError where a batch does not divide among workers.
        """
        count = min(len(regime), batch_size * self.num_steps(batch_size, len(regime)))
        random = generator(seed, epoch, 0)
        if balanced:
            order = balanced_order(self.labels[regime], count, random)
        else:
            order = torch.randperm(len(regime), generator=random)
        numbers = regime[order[:count]]
        side = image_size or self.image_size
        size = min(count, batch_size)
        if size % part[1]:
            raise InputError(f"a batch of {size} images does not divide among {part[1]} workers")
        images = self.images.train(numbers, size, side, recipe, (seed, epoch), device, part)
        return self._batches(images, numbers[share(count, size, part)], size // part[1], device)

    def plain_batches(
        self,
        numbers: Tensor,
        *,
        batch_size: int,
        device: torch.device,
        image_size: int | None = None,
        whole: bool = False,
    ) -> Iterator[Batch]:
        """The images of ``numbers`` in this order, as they are; the last batch may be smaller. ``whole``: all of an
        image that was stored a little larger than it is shown, not its centre."""
        images = self.images.plain(numbers, batch_size, image_size or self.image_size, device, whole)
        return self._batches(images, numbers, batch_size, device)

    def val_batches(
        self,
        *,
        batch_size: int,
        device: torch.device,
        image_size: int | None = None,
        whole: bool = False,
        part: Part = ALL,
    ) -> Iterator[Batch]:
        """The whole val part, or one worker's share of it, without augmentation."""
        numbers = torch.from_numpy(self.val_numbers)[part[0] :: part[1]]
        return self.plain_batches(numbers, batch_size=batch_size, device=device, image_size=image_size, whole=whole)

    def _batches(
        self, images: Iterator[Tensor], numbers: Tensor, batch_size: int, device: torch.device
    ) -> Iterator[Batch]:
        labels = self.labels[numbers].to(device)
        scale = (1 / torch.tensor(self.std)).view(-1, 1, 1).to(device)
        offset = -torch.tensor(self.mean).view(-1, 1, 1).to(device) * scale
        for place, batch in enumerate(images):
            begin = place * batch_size
            values = batch.contiguous(memory_format=torch.channels_last)
            torch.addcmul(offset, values, scale, out=values)  # in place: a fresh large block costs more than the sum
            yield values, labels[begin : begin + batch_size]


def balanced_order(labels: Tensor, count: int, random: torch.Generator) -> Tensor:
    """``count`` places of ``labels`` in random order, equally many of each class to within one: images of small classes
    come again and again, those of large ones take turns over the epochs."""
    sizes = torch.bincount(labels)
    members = [part for part in torch.split(labels.argsort(stable=True), sizes.tolist()) if len(part)]
    wanted = torch.full((len(members),), count // len(members))
    wanted[torch.randperm(len(members), generator=random)[: count % len(members)]] += 1
    chosen = []
    for part, number in zip(members, wanted.tolist(), strict=True):
        rounds = -(-number // len(part))
        chosen.append(torch.cat([part[torch.randperm(len(part), generator=random)] for _ in range(rounds)])[:number])
    order = torch.cat(chosen)
    return order[torch.randperm(len(order), generator=random)]


def share(count: int, batch_size: int, part: Part) -> Tensor:
    """The places, among ``count`` in batches of ``batch_size``, of one worker's share of every batch."""
    places = torch.arange(count)
    if part == ALL:
        return places
    own = batch_size // part[1]
    return places[places % batch_size // own == part[0]]
