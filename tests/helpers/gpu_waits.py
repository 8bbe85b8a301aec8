"""Counts how often a training step waits for the GPU: ``python gpu_waits.py`` prints JSON, a number a guarded step.

On a real GPU torch's own check tells of each wait; on a made-up one (a library that stands for the driver and counts,
named by ``NULL_GPU_LIBRARY``) its counters do.
"""

import contextlib
import ctypes
import json
import os
import sys
import warnings
from collections.abc import Iterator

import torch

COUNTERS = ("n_sync", "n_devsync", "n_evsync")
STEPS = 6


class Waits:
    """A step guard; ``found`` has the number of waits of each step that it guarded."""

    def __init__(self) -> None:
        name = os.environ.get("NULL_GPU_LIBRARY")
        self.library = ctypes.CDLL(name) if name else None
        self.found: list[int] = []

    def _counted(self) -> int:
        return sum(ctypes.c_long.in_dll(self.library, name).value for name in COUNTERS) if self.library else 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        before = self._counted()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            yield
            torch.cuda.set_sync_debug_mode("default")
        told_of = sum("synchronizing CUDA operation" in str(one.message) for one in told)
        self.found.append(max(told_of, self._counted() - before))


def of_training(**recipe: object) -> list[int]:
    """Of the steps of one epoch on small images, without those of its evaluation."""
    from archs import small

    from coatnet_search.architecture.build import seeded_build
    from coatnet_search.data.load import load_data
    from coatnet_search.data.spec import DataSpec
    from coatnet_search.training.budget import Budget
    from coatnet_search.training.loop import Run
    from coatnet_search.training.process_group import SINGLE_PROCESS
    from coatnet_search.training.recipe import make_recipe

    data = load_data(DataSpec(name="digits"))
    waits = Waits()
    made = make_recipe({"name": "digits", "batch_size": 64, "warmup": 0, **recipe})
    arch = small(in_channels=data.in_channels, num_classes=data.num_classes, image_size=16)
    budget = Budget(epochs=1, num_images=64 * STEPS, image_size=16)
    run = Run(seeded_build(arch, 0), data, made, budget, torch.device("cuda"), waits, SINGLE_PROCESS)
    run._steps(1)
    return waits.found


if __name__ == "__main__":
    plain = of_training()
    augmented = of_training(randaugment_layers=2, randaugment_magnitude=15, mixup=0.2, ema=0.9)
    sys.stdout.write(json.dumps({"plain": plain, "augmented": augmented}) + "\n")
