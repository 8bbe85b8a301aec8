"""Finds how many images a training step can take at once on a device, and what a step of a network will hold there."""

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import build
from coatnet_search.training.process_group import ProcessGroup
from coatnet_search.training.recipe import Recipe

SPARE = 0.05  # share of a device's memory that a probe leaves: holes between blocks, workspaces of later kernels
WEIGHT_COPIES = 4  # weights, gradients and two moments, float32
FLOAT_BYTES = 4


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU (its allocator, or a library's own), or of the machine: the CPU's has no exception of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or getattr(error, "kind", None) == "out_of_memory":
        return True
    marks = ("DefaultCPUAllocator", "can't allocate memory", "CUDA out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks)


def release(device: torch.device) -> None:
    """Gives memory that torch keeps for later back to the device, where other processes can have it."""
    if device.type == "cuda":
        gc.collect()  # a failed step's tensors may hang on its traceback, which points to itself
        torch.cuda.empty_cache()


def limit_share(device: torch.device, share: float) -> None:
    """Of a GPU that several trials share, this process takes no more than its part; a bound that it keeps by itself."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device.index or 0)


def images_at_once(share: int, attempt: Callable[[int], object], device: torch.device, group: ProcessGroup) -> int:
    """The largest of ``share``, its half, its quarter, ... at which ``attempt`` has the memory, the same for all
    workers; parts are equal but for rounding. Raises what ``attempt`` does, also where not one image fits."""
    parts = 1
    while True:
        images = -(-share // parts)
        failure = _failure(attempt, images)
        if failure is not None and (images == 1 or not is_out_of_memory(failure)):
            raise failure
        failed, failure = failure is not None, None
        release(device)
        if not float(group.sum(torch.tensor(float(failed), device=device))):
            return images
        parts *= 2


def _failure(attempt: Callable[[int], object], images: int) -> Exception | None:
    try:
        attempt(images)
    except Exception as error:
        return error.with_traceback(None)  # its frames hold the step's tensors
    return None


@contextlib.contextmanager
def probing(model: nn.Module, device: torch.device, held: int) -> Iterator[None]:
    """What a step tries here leaves no trace: statistics, gradients and random numbers are as before. ``held``: bytes
    that training will hold besides what the step allocates; they and some spare ones are taken meanwhile."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    spare = int(SPARE * allowed_bytes(device)) if device.type == "cuda" else 0
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            _ballast = torch.empty(held + spare, dtype=torch.uint8, device=device)
            yield
            del _ballast
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def allowed_bytes(device: torch.device) -> int:
    """Of a GPU's memory, what this process may take."""
    share = torch.cuda.get_per_process_memory_fraction(device.index or 0)
    return int(share * torch.cuda.get_device_properties(device).total_memory)


# --- an estimate without a device ------------------------------------------------------------------------------------


def activation_bytes(arch: Arch, precision: str) -> int:
    """Bytes an image that a forward pass keeps for the backward pass, counted by running it on shapes alone.

    An estimate: attention kernels of a GPU keep a little less than what runs here. ``precision``: float32, else half.
    """
    return _saved(arch, 4, precision) // 2 - _saved(arch, 2, precision) // 2


def _saved(arch: Arch, images: int, precision: str) -> int:
    """Bytes of all that is kept for a batch of so many images, each block of memory once, weights and their copies in
    half precision included."""
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that its number is not given to another
        return tensor

    with FakeTensorMode():
        model = build(arch).train()
        shown = torch.empty(images, arch.in_channels, arch.image_size, arch.image_size)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
            model(shown).float().logsumexp(1).sum()
        return sum(storage.nbytes() for storage in kept.values())


def training_bytes(arch: Arch, params: int, recipe: Recipe, precision: str) -> tuple[int, int]:
    """(bytes that a training holds whatever its batch is, bytes for each image at once). The whole batch itself, as
    float32, is in the first."""
    image = arch.in_channels * arch.image_size**2 * FLOAT_BYTES
    batch = recipe.batch_size * image * (2 if recipe.mixup else 1)
    return (WEIGHT_COPIES + bool(recipe.ema)) * FLOAT_BYTES * params + batch, activation_bytes(arch, precision) + image
