"""Arch -> nn.Module. The only file that builds a network; B batch, C channels, S image size, W width."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coatnet_search.architecture.arch import Arch, Stage, Stem, check_legal
from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.blocks.common import sampled_first
from coatnet_search.architecture.blocks.ends import Classifier, ConvStem, Headless, PatchStem
from coatnet_search.core.errors import InputError

Init = Literal["normal", "fan_in"]
INIT_STD = 0.02  # of weights and bias tables, as in the authors' later code for the same blocks
_TABLE = "relative_bias.table"


def build_stem(stem: Stem, in_channels: int) -> nn.Module:
    """(B, C, S, S) -> (B, W, S/stride, S/stride)."""
    if stem.kind == "patch":
        return PatchStem(in_channels, stem.width, stride=stem.stride, bias=stem.bias)
    return ConvStem(in_channels, stem.width, depth=stem.depth, stride=stem.stride, bias=stem.bias,
                    norm_eps=stem.norm_eps, activation=stem.activation)  # fmt: skip


def build_block(stage: Stage, in_width: int, stride: int, grid: int) -> nn.Module:
    """One block of a stage; ``grid``: side in pixels of its incoming map."""
    block: nn.Module = menu()[stage.block].load()(in_width, stage.width, stride, grid, drop_path=0.0, **stage.options)
    return sampled_first(block)


def block_places(arch: Arch) -> Iterator[tuple[int, Stage, int, int, int]]:
    """Each block of a network in order, as (stage index, stage, in_width, stride, side of the incoming map)."""
    in_width, grid = arch.stem.width, arch.grids[0]
    for index, stage in enumerate(arch.stages):
        for place in range(stage.depth):
            stride = stage.stride if place == 0 else 1
            yield index, stage, in_width, stride, grid
            in_width, grid = stage.width, grid // stride


class CoAtNet(nn.Module):
    """stem -> stages -> head, as its ``arch`` says. (B, C, S, S) float -> (B, num_classes).

    The methods below ``set_drop_path`` are those that timm's tools look for in a network.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        self.num_classes = arch.num_classes
        self.num_features = self.head_hidden_size = arch.out_width
        self.grad_checkpointing = False
        self.stem = build_stem(arch.stem, arch.in_channels)
        stages: list[list[nn.Module]] = [[] for _ in arch.stages]
        for index, stage, in_width, stride, grid in block_places(arch):
            stages[index].append(build_block(stage, in_width, stride, grid))
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head: Classifier | Headless = Classifier(
            arch.out_width, arch.num_classes, hidden=arch.head.hidden, norm_eps=arch.head.norm_eps
        )
        self.feature_info = feature_info(arch)
        self.pretrained_cfg = self.default_cfg = timm_cfg(arch)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, W, S/strides, S/strides)."""
        x = self.stem(x)
        for stage in self.stages.children():
            x = self._through(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, W, G, G) -> (B, num_classes), or the (B, W) features before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def _through(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage.children():
            x = recomputed(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return x

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth: the rate grows linearly over the blocks from 0 to ``rate``."""
        blocks = [block for stage in self.stages.children() for block in stage.children()]
        for place, block in enumerate(blocks):
            for module in block.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = rate * place / max(1, len(blocks) - 1)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are not decayed besides biases and norms: the bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith(_TABLE)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for layer-wise learning rates: the stem, each block (``coarse``: stage), the head."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None), (r"^head\.(?:norm|hidden)", (99999,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the input of each block alone for the backward pass and compute the rest of it again."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A freshly initialised last layer, or none for 0 classes; ``global_pool``: avg, "" for maps instead of class
        scores, None for what it was. Raises InputError for other pools."""
        self.head.reset(num_classes, global_pool)
        initialise(self.head.fc)
        self.num_classes = num_classes
        if num_classes:
            self.arch = dataclasses.replace(self.arch, num_classes=num_classes)

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:  # fmt: skip
        """The maps after the stem (index 0) and after each stage, all or those of ``indices`` (a number: the last so
        many), and unless ``intermediates_only`` what ``forward_features`` returns before them.

        The norm of this network follows the pooling, so that ``norm`` changes no map.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt: maps are NCHW, got {output_fmt!r}")
        wanted, last = _taken(len(self.stages) + 1, indices)
        x, maps = self.stem(x), []
        for place in range(len(self.stages) + 1):
            if place and (place <= last or not stop_early):
                x = self._through(self.stages[place - 1], x)
            if place in wanted:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last of ``indices``, and with ``prune_head`` the whole head."""
        wanted, last = _taken(len(self.stages) + 1, indices)
        if prune_head or last < len(self.stages):
            self.stages = nn.Sequential(*list(self.stages)[:last])
            self.arch = dataclasses.replace(self.arch, stages=self.arch.stages[:last])
            self.num_features = self.head_hidden_size = self.arch.out_width
            self.head, self.num_classes = Headless(), 0
        return list(wanted)


def _taken(count: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Places among ``count`` maps and the last of them; a number means the last so many, negative ones count back."""
    if isinstance(indices, int):
        indices = range(count - indices, count) if 0 < indices <= count else [count]
    wanted = [place + count if place < 0 else place for place in (range(count) if indices is None else indices)]
    if not wanted or min(wanted) < 0 or max(wanted) >= count:
        raise InputError(f"indices: this network has the maps 0 to {count - 1}, got {indices}")
    return wanted, max(wanted)


def feature_info(arch: Arch) -> list[dict[str, Any]]:
    """Width, reduction (pixels of the image a pixel of the map) and module of each map, in timm's form."""
    last = f"stem.{3 * (arch.stem.depth - 1)}" if arch.stem.kind == "conv" else "stem"
    reduction = arch.stem.stride
    found = [{"num_chs": arch.stem.width, "reduction": reduction, "module": last}]
    for place, stage in enumerate(arch.stages):
        reduction *= stage.stride
        found.append({"num_chs": stage.width, "reduction": reduction, "module": f"stages.{place}"})
    return found


def timm_cfg(arch: Arch) -> dict[str, Any]:
    """What timm's data pipeline and weight loader want to know: no weights, images of this size, in -1..1."""
    side = arch.image_size
    return {
        "architecture": "coatnet_search", "num_classes": arch.num_classes, "fixed_input_size": True,
        "input_size": (arch.in_channels, side, side), "pool_size": (arch.grids[-1], arch.grids[-1]),
        "crop_pct": 0.95, "interpolation": "bicubic", "mean": (0.5,) * arch.in_channels,
        "std": (0.5,) * arch.in_channels, "first_conv": "stem.0" if arch.stem.kind == "conv" else "stem",
        "classifier": "head.fc",
    }  # fmt: skip


def recomputed(
    block: nn.Module, x: Tensor, within: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
) -> Tensor:
    """The block's output; only ``x`` is kept for the backward pass, which runs the block again, ``within`` the same.

    The second run leaves the running statistics of BatchNorm alone: a step counts once.
    """
    if torch.compiler.is_compiling():  # the compiler does not repeat the updates
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (within(), _untracked(block, within())))


@contextlib.contextmanager
def _untracked(block: nn.Module, within: AbstractContextManager[Any]) -> Iterator[None]:
    with within:
        norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, steps) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, steps


def initialise(model: nn.Module, init: Init = "normal") -> None:
    """Zero biases, unit norms, normal bias tables; weights as ``init`` says.

    ``normal``: standard deviation 0.02, as in the authors' later code. ``fan_in``: fan-in^-0.5, for networks of some
    dozen channels, whose signal 0.02 all but extinguishes.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, std=INIT_STD if init == "normal" else module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(table := getattr(module, "table", None), nn.Parameter):
            nn.init.normal_(table, std=INIT_STD)


def build(
    arch: Arch, weights: Mapping[str, Tensor] | None = None, *, drop_path: float = 0.0, init: Init = "normal"
) -> CoAtNet:
    """The network of an architecture, (B, C, H, W) -> (B, num_classes); freshly initialised, or with ``weights``.

    Relative-bias tables of another image size are resized bilinearly. Works under ``torch.device("meta")``.
    Raises InputError where the architecture is not legal or the weights are another network's.
    """
    check_legal(arch)
    model = CoAtNet(arch)
    initialise(model, init)
    model.set_drop_path(drop_path)
    if weights is not None:
        _load(model, weights)
    return model


def _load(model: CoAtNet, weights: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    fitted = fit_tables(weights, own)
    if wrong := mismatches(fitted, own):
        raise InputError(f"weights of another network: {wrong}; nothing was loaded")
    model.load_state_dict(fitted, assign=any(value.is_meta for value in own.values()))


def mismatches(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The first differences in names and shapes between weights and a network's own state dict; empty: they fit."""
    wrong = [f"{name}: missing" for name in own if name not in weights]
    wrong += [f"{name}: not in this network" for name in weights if name not in own]
    wrong += [f"{name}: {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
              for name in own if name in weights and weights[name].shape != own[name].shape]  # fmt: skip
    return "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def fit_tables(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with relative-bias tables resized to those of a network whose state dict is ``own``."""
    return {name: resize_table(value, own[name].shape[-1]) if _is_table(name, value) and name in own else value
            for name, value in weights.items()}  # fmt: skip


def _is_table(name: str, value: Tensor) -> bool:
    return name.endswith(_TABLE) and value.ndim == 3 and value.shape[-1] == value.shape[-2]


def resize_table(table: Tensor, side: int) -> Tensor:
    """A relative-bias table (H, 2G-1, 2G-1) at another grid, (H, side, side), bilinear in offsets."""
    if table.shape[-1] == side:
        return table
    resized = F.interpolate(table[None].float(), size=(side, side), mode="bilinear", align_corners=True)
    return resized[0].to(table.dtype)


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in a module, each counted once."""
    return sum(math.prod(parameter.shape) for parameter in model.parameters())


def seeded_build(arch: Arch, seed: int, *, drop_path: float = 0.0, init: Init = "normal") -> CoAtNet:
    """``build`` with initial weights that follow from ``seed`` alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(arch, drop_path=drop_path, init=init)
