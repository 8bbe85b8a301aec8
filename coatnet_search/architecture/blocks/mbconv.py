"""C: the pre-activation inverted bottleneck with squeeze-and-excitation (MBConv).

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


class MBConv(nn.Module):
    """shortcut(x) + project(se(gelu(norm(depthwise(gelu(norm(expand(norm(x)))))))).

    The inner width follows the OUTPUT width, and the stride sits in the first 1x1 convolution: CoAtNet, appendix A.1.
    """

    folds = (("norm1", "expand"), ("expand", "norm2"), ("depthwise", "norm3"))

    def __init__(self, in_width: int, width: int, stride: int, grid: int, *, drop_path: float = 0.0, expand: float,
                 kernel: int, se_ratio: float, stride_at: str, pool: str, norm: str, norm_eps: float,
                 activation: str) -> None:  # fmt: skip
        super().__init__()
        inner = int(expand * width)
        first, second = (stride, 1) if stride_at == "expand" else (1, stride)
        act = ACTIVATIONS[activation]
        self.shortcut = Shortcut(in_width, width, stride, pool)
        self.norm1 = norm2d(norm, in_width, norm_eps)
        self.expand = Pointwise(in_width, inner, stride=first, bias=False)
        self.norm2 = norm2d(norm, inner, norm_eps)
        self.act2 = act()
        self.depthwise = nn.Conv2d(inner, inner, kernel, second, kernel // 2, groups=inner, bias=False)
        self.norm3 = norm2d(norm, inner, norm_eps)
        self.act3 = act()
        self.se = squeeze_excite(inner, width, se_ratio)
        self.project = Pointwise(inner, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act2(self.norm2(self.expand(self.norm1(x))))  # (B, E, G/S, G/S), or (B, E, G, G) if depthwise strides
        y = self.act3(self.norm3(self.depthwise(y)))  # (B, E, G/S, G/S)
        return self.shortcut(x) + self.drop_path(self.project(self.se(y)))  # (B, W, G/S, G/S)

    @staticmethod
    def problems(in_width: int, width: int, grid: int, *, expand: float, kernel: int, se_ratio: float,
                 **others: Any) -> list[str]:  # fmt: skip
        """Why such a block cannot be built; ``grid``: side of the outgoing map."""
        return convolution_problems(width, grid, expand, kernel, se_ratio)
