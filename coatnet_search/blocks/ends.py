"""Stem and head: how images become a map, and a map becomes class scores. B batch, C channels, W width."""

import torch
from torch import Tensor, nn

from coatnet_search.blocks.common import ACTIVATIONS


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


class PatchStem(nn.Conv2d):
    """One convolution whose kernel is its stride: (B, C, G, G) -> (B, W, G/stride, G/stride), as in ViT."""

    def __init__(self, in_channels: int, width: int, *, stride: int, bias: bool) -> None:
        super().__init__(in_channels, width, stride, stride, bias=bias)


class Classifier(nn.Module):
    """Global average pool -> LayerNorm -> [Dense W->W, tanh] -> Dense. (B, W, G, G) -> (B, num_classes).

    The published parameter counts need the hidden layer.
    """

    def __init__(self, width: int, num_classes: int, *, hidden: bool, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.hidden = nn.Linear(width, width) if hidden else None
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.norm(x.mean((2, 3)))  # (B, W)
        if self.hidden is not None:
            x = torch.tanh(self.hidden(x))
        return x if pre_logits else self.fc(x)
