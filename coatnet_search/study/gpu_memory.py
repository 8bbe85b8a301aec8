"""Estimates what training a study's largest network holds on a trial's GPU, before it is run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.cost import cost
from coatnet_search.study.study import Study
from coatnet_search.training.device import chosen_precision
from coatnet_search.training.memory import SPARE, training_bytes
from coatnet_search.training.recipe import AUTO

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What training of one network holds on a GPU, an estimate: bytes whatever is taken at once, and for each image;
    ``images``: at once, as the recipe says, or as many as the GPU here will hold (None: there is none here)."""

    held: int
    image: int
    images: int | None


def training_memory(study: Study, archs: Sequence[Arch], warnings: list[str]) -> Memory | None:
    """What the largest of these networks holds on a trial's GPU; where that is more than the GPU has, a warning."""
    recipe, resources = study.recipe, study.file.resources
    trained = study.budget.epochs and study.evaluator is None and not recipe.grad_checkpointing
    if not resources.gpus or not trained:
        return None
    largest = max(archs, key=lambda arch: cost(arch).activations)
    here = torch.cuda.is_available()
    precision = chosen_precision(recipe.precision, torch.device("cuda")) if here else recipe.precision
    held, image = training_bytes(largest, cost(largest).params, recipe, precision)
    share = -(-recipe.batch_size // resources.workers)
    asked = share if recipe.micro_batch in (0, AUTO) else int(recipe.micro_batch)
    if not here:
        return Memory(held=held, image=image, images=None if recipe.micro_batch == AUTO else asked)
    have = torch.cuda.get_device_properties(0).total_memory * min(resources.gpus, 1.0) * (1 - SPARE)
    fits = int((have - held) / image)
    images = asked
    while recipe.micro_batch == AUTO and images > max(1, fits):
        images = -(-images // 2)
    if images > fits:
        warnings.append(f"training holds about {(held + images * image) / GIB:,.1f} GiB with {images} images at once, "
                        f"and a trial has {have / GIB:,.1f} GiB of a GPU; set recipe.micro_batch to "
                        f"{'auto' if fits >= 1 else '1 and recipe.batch_size to fewer'}")  # fmt: skip
    return Memory(held=held, image=image, images=images)
