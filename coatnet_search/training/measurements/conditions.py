"""The conditions of a measurement (batch, precision, threads, ...), and a network made ready for them.

A copy of the network is measured, so that the network itself keeps its mode, its layout in memory and its weights.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.fold_norms import fold_norms
from coatnet_search.core.errors import SetupError
from coatnet_search.training.compilation import Mode, Network, Replayed, check_compiler, compiled_whole
from coatnet_search.training.device import DTYPES, Precision, exact_float32
from coatnet_search.training.heap import keep_memory
from coatnet_search.training.memory import is_out_of_memory

BATCH_SIZE = {"cpu": 32, "cuda": 256}  # where none is asked for


class MeasurementFailed(SetupError):
    """A network that cannot be measured as asked: ``kind`` is out_of_memory or compilation."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which conditions a number was measured.

    ``batch_size``: images at once; None for the device's ``BATCH_SIZE``, ``best`` for the one of most images a second.
    ``precision`` of weights and activations in inference; in training of the activations alone (autocast). ``fold``:
    BatchNorms folded into convolutions, in inference alone. ``threads``: of the process on the CPU.
    """

    device: str = "cpu"
    batch_size: int | Literal["best"] | None = None
    precision: Precision = "float32"
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    compile: Mode = False
    fold: bool = False
    threads: int = 1

    @property
    def place(self) -> torch.device:
        return torch.device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    @property
    def size(self) -> int:
        """The batch size, where it is no search's result."""
        given = self.batch_size
        return given if isinstance(given, int) else BATCH_SIZE[self.place.type]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Numbers with their spreads, the conditions that held, and how often the first number was taken."""

    metrics: Mapping[str, float]
    conditions: Conditions
    repeats: int

    @property
    def spread(self) -> float:
        """The spread of the first number as a fraction of it."""
        first = next(iter(self.metrics))
        return self.metrics[f"{first}_spread"] / self.metrics[first]


def images_of(arch: Arch, conditions: Conditions, batch_size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Noise, always the same, (B, C, S, S): a GPU that multiplies zeros draws less power and clocks higher."""
    shape = (batch_size, arch.in_channels, arch.image_size, arch.image_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return noise.to(conditions.place, dtype or conditions.dtype).contiguous(memory_format=conditions.layout)


@contextlib.contextmanager
def inference(model: nn.Module, conditions: Conditions) -> Iterator[tuple[nn.Module, Network]]:
    """A copy of the model in eval mode as the conditions have it, and what is called to run it; gradients are off."""
    exact_float32(conditions.place)
    keep_memory(conditions.place)  # as training has it, and whatever was measured before
    ready = fold_norms(model) if conditions.fold else copy.deepcopy(model)
    ready = ready.eval().to(dtype=conditions.dtype, memory_format=conditions.layout)  # type: ignore[call-overload]
    with threads(conditions.threads), torch.inference_mode():
        yield ready, compiled(ready, conditions)


def compiled(model: nn.Module, conditions: Conditions) -> Network:
    """The model, compiled where the conditions say so. Raises SetupError where there is no compiler."""
    if not conditions.compile:
        return model
    check_compiler(conditions.place, conditions.compile)
    whole = compiled_whole(model)
    return Replayed(whole) if conditions.compile == "graphs" else whole


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def named_failures(arch: Arch, conditions: Conditions, batch_size: int) -> Iterator[None]:
    """Out of memory and a failed compilation as MeasurementFailed, one line; all else goes through."""
    try:
        yield
    except Exception as error:
        what = f"batch size {batch_size} ({arch.image_size} pixels, {conditions.precision}, {conditions.device})"
        if is_out_of_memory(error):
            raise MeasurementFailed("out_of_memory", f"out of memory at {what}") from None
        if conditions.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise MeasurementFailed("compilation", f"compilation failed at {what}: {first.strip()[:200]}") from None
        raise
