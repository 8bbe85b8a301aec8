"""Arch -> nn.Module. The only file that builds a network; B batch, C channels, S image size, W width."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from coatnet_search.arch import Arch, Stage, Stem
from coatnet_search.blocks import menu
from coatnet_search.blocks.ends import Classifier, ConvStem, PatchStem
from coatnet_search.errors import InputError

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
    return block


def block_places(arch: Arch) -> Iterator[tuple[int, Stage, int, int, int]]:
    """Each block of a network in order, as (stage index, stage, in_width, stride, side of the incoming map)."""
    in_width, grid = arch.stem.width, arch.grids[0]
    for index, stage in enumerate(arch.stages):
        for place in range(stage.depth):
            stride = stage.stride if place == 0 else 1
            yield index, stage, in_width, stride, grid
            in_width, grid = stage.width, grid // stride


class CoAtNet(nn.Module):
    """stem -> stages -> head, as its ``arch`` says. (B, C, S, S) float -> (B, num_classes)."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        self.num_classes = arch.num_classes
        self.num_features = arch.out_width
        self.stem = build_stem(arch.stem, arch.in_channels)
        stages: list[list[nn.Module]] = [[] for _ in arch.stages]
        for index, stage, in_width, stride, grid in block_places(arch):
            stages[index].append(build_block(stage, in_width, stride, grid))
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head = Classifier(arch.out_width, arch.num_classes, hidden=arch.head.hidden, norm_eps=arch.head.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, W, S/strides, S/strides)."""
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, W, G, G) -> (B, num_classes), or the (B, W) features before the classifier."""
        return self.head(x, pre_logits=pre_logits)

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
    if reasons := arch.problems():
        raise InputError(f"architecture {arch.id}: {reasons[0]}")
    model = CoAtNet(arch)
    initialise(model, init)
    model.set_drop_path(drop_path)
    if weights is not None:
        _load(model, weights)
    return model


def _load(model: CoAtNet, weights: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    fitted = {name: resize_table(value, own[name].shape[-1]) if _is_table(name, value) and name in own else value
              for name, value in weights.items()}  # fmt: skip
    wrong = [f"{name}: missing" for name in own if name not in fitted]
    wrong += [f"{name}: not in this network" for name in fitted if name not in own]
    wrong += [f"{name}: {tuple(fitted[name].shape)} for {tuple(own[name].shape)}"
              for name in own if name in fitted and fitted[name].shape != own[name].shape]  # fmt: skip
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"weights of another network: {'; '.join(wrong[:3])}{more}; nothing was loaded")
    model.load_state_dict(fitted, assign=any(value.is_meta for value in own.values()))


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
