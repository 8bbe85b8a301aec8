"""Stem and head: how images become a map, and a map becomes class scores. B batch, C channels, W width."""

import torch
from torch import Tensor, nn

from coatnet_search.architecture.blocks.common import ACTIVATIONS
from coatnet_search.core.errors import InputError


class ConvStem(nn.Sequential):
    """conv3x3 (stride) [-> BatchNorm -> GELU -> conv3x3] x (depth - 1); no norm or activation at the end.

    (B, C, G, G) -> (B, W, G/stride, G/stride). CoAtNet, appendix A.1.
    """

    def __init__(self, in_channels: int, width: int, *, depth: int, stride: int, bias: bool, norm_eps: float,
                 activation: str) -> None:  # fmt: skip
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, stride, 1, bias=bias)]
        for _ in range(depth - 1):
            parts += [nn.BatchNorm2d(width, eps=norm_eps), ACTIVATIONS[activation]()]
            parts.append(nn.Conv2d(width, width, 3, 1, 1, bias=bias))
        super().__init__(*parts)
        self.folds = [(str(place), str(place + 1)) for place in range(0, 3 * (depth - 1), 3)]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:  # as nn.Sequential does, but in a file that torch.compile looks into
            x = layer(x)
        return x


class PatchStem(nn.Conv2d):
    """One convolution whose kernel is its stride: (B, C, G, G) -> (B, W, G/stride, G/stride), as in ViT."""

    def __init__(self, in_channels: int, width: int, *, stride: int, bias: bool) -> None:
        super().__init__(in_channels, width, stride, stride, bias=bias)


class Classifier(nn.Module):
    """Global average pool -> LayerNorm -> [Dense W->W, tanh] -> Dense. (B, W, G, G) -> (B, num_classes).

    The published parameter counts need the hidden layer. Without the pool (``reset(num_classes, "")``) the same layers
    see each position: (B, num_classes, G, G).
    """

    def __init__(self, width: int, num_classes: int, *, hidden: bool, norm_eps: float) -> None:
        super().__init__()
        self.pooled = True
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.hidden = nn.Linear(width, width) if hidden else None
        self.drop: nn.Module = nn.Identity()
        self.fc: nn.Module = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.norm(x.mean((2, 3)) if self.pooled else x.permute(0, 2, 3, 1))  # (B, W), or (B, G, G, W)
        if self.hidden is not None:
            x = torch.tanh(self.hidden(x))
        x = self.drop(x)
        x = x if pre_logits else self.fc(x)
        return x if self.pooled else x.permute(0, 3, 1, 2)

    def reset(self, num_classes: int, global_pool: str | None) -> None:
        """A new last layer, none for 0 classes. Raises InputError for a pool other than None, avg and ""."""
        if global_pool not in (None, "avg", ""):
            raise InputError(f'global_pool: expected avg or "", got {global_pool!r}')
        if global_pool is not None:
            self.pooled = global_pool == "avg"
        like = self.norm.weight
        with torch.device(like.device):
            self.fc = nn.Linear(like.shape[0], num_classes, dtype=like.dtype) if num_classes else nn.Identity()


class Headless(nn.Module):
    """In place of a classifier: the map as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x

    def reset(self, num_classes: int, global_pool: str | None) -> None:
        if num_classes:
            raise InputError("a network without its last stages has no classifier; build a whole one")
