"""F: the fused inverted bottleneck (Fused-MBConv), pre-activation as our MBConv.

Shapes: B batch, D in_width, W width, E = expand x W inner width, G side of the incoming map, S stride.
"""

from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from coatnet_search.architecture.blocks.common import (
    ACTIVATIONS,
    Pointwise,
    Shortcut,
    convolution_problems,
    norm2d,
    squeeze_excite,
)


class FusedMBConv(nn.Module):
    """shortcut(x) + project(se(gelu(norm(expand(norm(x)))))): one full convolution in place of 1x1 and depthwise.

    EfficientNetV2, arXiv 2104.00298, figure 2; there without squeeze-and-excitation, hence off by default. The inner
    width follows the outgoing width, as in this network's MBConv.
    """

    folds = (("norm1", "expand"), ("expand", "norm2"))

    def __init__(self, in_width: int, width: int, stride: int, grid: int, *, drop_path: float = 0.0, expand: float,
                 kernel: int, se_ratio: float, pool: str, norm: str, norm_eps: float,
                 activation: str) -> None:  # fmt: skip
        super().__init__()
        inner = int(expand * width)
        self.shortcut = Shortcut(in_width, width, stride, pool)
        self.norm1 = norm2d(norm, in_width, norm_eps)
        self.expand = nn.Conv2d(in_width, inner, kernel, stride, kernel // 2, bias=False)
        self.norm2 = norm2d(norm, inner, norm_eps)
        self.act2 = ACTIVATIONS[activation]()
        self.se = squeeze_excite(inner, width, se_ratio)
        self.project = Pointwise(inner, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act2(self.norm2(self.expand(self.norm1(x))))  # (B, E, G/S, G/S)
        return self.shortcut(x) + self.drop_path(self.project(self.se(y)))  # (B, W, G/S, G/S)

    @staticmethod
    def problems(in_width: int, width: int, grid: int, *, expand: float, kernel: int, se_ratio: float,
                 **others: Any) -> list[str]:  # fmt: skip
        """Why such a block cannot be built; ``grid``: side of the outgoing map."""
        return convolution_problems(width, grid, expand, kernel, se_ratio)
