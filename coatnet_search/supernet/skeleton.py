"""A block's module without weights (on the meta device) that runs with given tensors for one call."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coatnet_search.architecture.blocks.attention import RelativeBias
from coatnet_search.supernet.parts import Part


class Needed(NamedTuple):
    """A tensor that a part needs: a parameter, or a buffer that state dicts hold; ``centred``: see ``centred_from``."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    centred: int | None


class Skeleton:
    """``module`` is what ``build`` would make of the part; ``tensors`` are what it needs to run.

    It holds no weights and belongs to no place: equal parts of a space share one.
    """

    def __init__(self, part: Part) -> None:
        self.module = _bare(part)
        self.tensors: list[Needed] = []
        self._slots: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        self._constants: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        self._drop_paths = [module for module in self.module.modules() if isinstance(module, DropPath)]
        for prefix, module in self.module.named_modules():
            for key, value in module._parameters.items():
                self._add(module, prefix, key, value, True)
            for key, value in module._buffers.items():
                if key not in module._non_persistent_buffers_set:
                    self._add(module, prefix, key, value, False)
                elif value is not None:
                    self._constants.append((module._buffers, key, value))

    def _add(self, module: nn.Module, prefix: str, key: str, value: Tensor | None, is_parameter: bool) -> None:
        if value is None:
            return
        name = f"{prefix}.{key}" if prefix else key
        self.tensors.append(Needed(name, tuple(value.shape), value.dtype, is_parameter, centred_from(module, key)))
        holder: dict[str, Tensor | None] = module._parameters if is_parameter else module._buffers  # type: ignore[assignment]
        self._slots.append((holder, key, value))

    @contextlib.contextmanager
    def with_tensors(self, tensors: Sequence[Tensor], *, training: bool, drop_path: float = 0.0) -> Iterator[None]:
        """The module with these tensors, in the order of ``self.tensors``, until the context ends."""
        if self.module.training != training:
            self.module.train(training)
        for module in self._drop_paths:
            module.drop_prob = drop_path
        for (holder, key, _), tensor in zip(self._slots, tensors, strict=True):
            holder[key] = tensor
        try:
            yield
        finally:
            for holder, key, bare in self._slots:
                holder[key] = bare

    def move(self, device: torch.device) -> None:
        """Brings what is no weight, such as the index of a bias table, to a device."""
        for holder, key, value in self._constants:
            holder[key] = value if device.type == "meta" else value.to(device)


def _bare(part: Part) -> nn.Module:
    """The part's module on the meta device. Buffers that no state dict holds keep their values: a block that computes
    them on the default device is built for once."""
    with torch.device("meta"):
        module = part.make()
    if any(value.is_meta for value in _constants(module)):
        with torch.device("cpu"):
            module = part.make()
        kept = {id(value) for value in _constants(module)}
        module._apply(lambda value: value if id(value) in kept else value.to("meta"))  # type: ignore[no-untyped-call]
    return module


def _constants(module: nn.Module) -> Iterator[Tensor]:
    for inner in module.modules():
        for key in inner._non_persistent_buffers_set:
            if (value := inner._buffers[key]) is not None:
                yield value


def centred_from(module: nn.Module, key: str) -> int | None:
    """From which dimension on smaller sizes are the centre of larger ones: the pixels of a convolution's kernel, the
    offsets of a table of relative biases. Everything else is cut to its leading entries."""
    if isinstance(module, _ConvNd) and key == "weight":
        return 2
    return 1 if isinstance(module, RelativeBias) and key == "table" else None
