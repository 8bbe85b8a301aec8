"""Compiles a network for training and measurements, block by block, and replays it as CUDA graphs where asked to.

Nothing falls back to eager in silence: a part that torch cannot compile whole, or compiles too often, is an error.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch._dynamo  # for its limits
from torch import Tensor, nn

from coatnet_search.architecture.build import CoAtNet
from coatnet_search.core.errors import InputError, SetupError

# of recipe and conditions: false is off, true is default, as records have had them; graphs replays what is compiled
Mode = bool | Literal["graphs"]
Network = Callable[[Tensor], Tensor]
VARIANTS = 8  # graphs of one part: in training and evaluation, each for whole batches and a last smaller one, and spare


def check_compiler(device: torch.device, mode: Mode = True) -> None:
    """Raises SetupError where torch.compile has no compiler for this device, or graphs are asked of a CPU."""
    if mode == "graphs" and device.type != "cuda":
        raise SetupError(f"compile: graphs asks for CUDA graphs, and {device} has none; write default or off")
    names = [os.environ.get("CXX") or "g++"] if device.type == "cpu" else [os.environ.get("CC") or "gcc", "cc", "clang"]
    if not any(shutil.which(name) for name in names):
        raise SetupError(f"compilation is asked for and there is no compiler here (looked for {', '.join(names)}); "
                         "install one or set conditions.compile to false")  # fmt: skip


def compiled_whole(model: nn.Module) -> nn.Module:
    """The model as one graph, for a measurement; whatever was compiled before is forgotten."""
    _fresh_limits(1)
    whole: Any = torch.compile(model, dynamic=False)
    compiled: nn.Module = whole
    return compiled


def compiled_by_block(model: nn.Module) -> nn.Module:
    """The model with each block compiled by itself, so that equal blocks are compiled once; a copy of it is not
    compiled. Networks without our blocks are compiled whole. Whatever was compiled before is forgotten."""
    if not isinstance(model, CoAtNet):
        return compiled_whole(model)
    parts = list(_parts(model))
    _fresh_limits(len(parts))
    for part in parts:
        part.compile(dynamic=False, fullgraph=True)
    return model


def _parts(model: CoAtNet) -> Iterator[nn.Module]:
    """Stem, blocks and head, but for a stem that is a single layer of torch: there is nothing to fuse."""
    for part in (model.stem, *(block for stage in model.stages.children() for block in stage.children()), model.head):
        if not type(part).forward.__module__.startswith("torch."):
            yield part


def _fresh_limits(parts: int) -> None:
    """Forgets all graphs, which count against a limit over the life of a process, and sets it for one network."""
    torch.compiler.reset()
    settings = torch._dynamo.config
    settings.recompile_limit = settings.accumulated_recompile_limit = VARIANTS * parts
    settings.fail_on_recompile_limit_hit = True


class GraphedSteps(nn.Module):
    """A network whose forward and backward pass in training are replayed as CUDA graphs: (B, C, S, S) -> (B, K).

    They are captured at the first images, whose shape then holds; evaluation calls the network itself.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._graphed: Network | None = None
        self._shape = torch.Size()

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            logits: Tensor = self.module(images)
            return logits
        if self._graphed is None:
            self._graphed, self._shape = self._captured(images), images.shape
        if images.shape != self._shape:
            raise InputError(f"compile: graphs holds for one shape, {tuple(self._shape)}; got {tuple(images.shape)}; "
                             "write default")  # fmt: skip
        return self._graphed(images)

    def _captured(self, images: Tensor) -> Network:
        """Graphs of a module that shares the network's parameters; its warm-up leaves no trace in buffers."""
        before = [buffer.clone() for buffer in self.module.buffers()]
        caches = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # casts that are kept from one call to the next cannot be captured
        try:
            shell = _Shell(self.module).train()
            graphed: Any = torch.cuda.make_graphed_callables(shell, (images.clone(),))
        finally:
            torch.set_autocast_cache_enabled(caches)
        with torch.no_grad():
            for buffer, value in zip(self.module.buffers(), before, strict=True):
                buffer.copy_(value)
        found: Network = graphed
        return found


class _Shell(nn.Module):
    """What is captured, in place of the network: capturing replaces a module's ``forward``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits


class Replayed:
    """A network in inference, replayed as a CUDA graph: one launch a call. What it returns lasts until the next call;
    images of another shape are captured anew."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._shape = torch.Size()

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape != self._shape:
            self._capture(images)
        self._images.copy_(images)
        self._graph.replay()
        return self._result

    def _capture(self, images: Tensor) -> None:
        self._images, self._shape = images.clone(), images.shape
        side = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(side):
            for _ in range(3):  # compiles, and lets libraries take their workspaces
                self._network(self._images)
        torch.cuda.current_stream(images.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self._network(self._images)
