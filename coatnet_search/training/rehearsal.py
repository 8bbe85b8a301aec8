"""Times a few real training steps on made-up images -> images a second on the device that is here."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import seeded_build
from coatnet_search.core.errors import SetupError
from coatnet_search.core.quantities import TRAINING
from coatnet_search.data.batches import Data
from coatnet_search.data.memory import InMemory
from coatnet_search.training.budget import Budget
from coatnet_search.training.loop import TrainingFailed, train
from coatnet_search.training.recipe import Recipe

NUM_CLASSES = 2  # of the made-up images: the size of the classifier hardly counts, and few images are enough
# multiply-adds of one step and of the steps together: some seconds on one core, less on a GPU
STEP_MACS = {"cpu": 2e10, "cuda": 2e13}
ALL_MACS = {"cpu": 6e10, "cuda": 1e14}
LARGEST_BATCH = {"cpu": 256, "cuda": 128}  # a GPU is busy with that, and it fits a small one
STEPS = (1, 10)


def training_speed(arch: Arch, macs: int, recipe: Recipe, device: str, threads: int) -> float:
    """Images a second in training on ``device``, augmentation included, on ``threads`` CPU threads.

    The batch is the recipe's, smaller where a step would take long; one epoch of a few steps warms up, one counts.
    Raises SetupError where the network does not fit the device.
    """
    kind = torch.device(device).type
    batch = int(STEP_MACS[kind] / (TRAINING * macs))
    batch = max(2, min(batch, recipe.batch_size, LARGEST_BATCH[kind]))
    steps = int(min(max(ALL_MACS[kind] / (TRAINING * macs * batch), STEPS[0]), STEPS[1]))
    tried = dataclasses.replace(recipe, batch_size=batch, epochs=2, warmup=0.0)
    small = dataclasses.replace(arch, num_classes=NUM_CLASSES)
    model = seeded_build(small, 0, drop_path=recipe.drop_path, init=recipe.init).to(device)
    try:
        with _threads(threads):
            rates = [row["train_images_per_s"] for row in train(
                model, _images(small, batch * steps), tried, Budget(epochs=2), device)]  # fmt: skip
    except TrainingFailed as error:
        raise SetupError(f"a network of {macs:.3g} multiply-adds does not train here: {error}") from None
    return rates[-1]


def _images(arch: Arch, count: int) -> Data:
    rng = np.random.default_rng(0)
    shape = (count + NUM_CLASSES, arch.in_channels, arch.image_size, arch.image_size)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = torch.arange(len(pixels)) % NUM_CLASSES
    return Data(
        class_names=tuple(str(label) for label in range(NUM_CLASSES)),
        in_channels=arch.in_channels,
        digest="rehearsal",
        note=None,
        num_broken=0,
        image_size=arch.image_size,
        seed=0,
        mean=(127.5,) * arch.in_channels,
        std=(73.9,) * arch.in_channels,
        images=InMemory(pixels, arch.image_size),
        labels=labels,
        hashes=rng.integers(0, 256, (len(pixels), 16), dtype=np.uint8),
        train_numbers=np.arange(count),
        val_numbers=np.arange(count, len(pixels)),
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
