"""Pieces that several blocks share: activation, norms, shortcut."""

from collections.abc import Callable
from functools import partial

from timm.layers import LayerNorm2d, SqueezeExcite
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh")}
POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def norm2d(kind: str, width: int, eps: float) -> nn.Module:
    """BatchNorm, or LayerNorm over the channels of each position; (B, C, H, W) -> (B, C, H, W)."""
    return nn.BatchNorm2d(width, eps=eps) if kind == "batch" else LayerNorm2d(width, eps=eps)


def squeeze_excite(inner: int, width: int, ratio: float) -> nn.Module:
    """Squeeze-and-excitation of ``inner`` channels through ratio x ``width`` of them; nothing at a ratio of 0."""
    squeezed = max(1, int(ratio * width))
    return SqueezeExcite(inner, rd_channels=squeezed, act_layer=nn.SiLU) if ratio else nn.Identity()


class Shortcut(nn.Module):
    """pool (where the block strides), then a biased 1x1 projection (where the width changes).

    (B, in_width, H, W) -> (B, width, H/stride, W/stride). CoAtNet, appendix A.1.
    """

    def __init__(self, in_width: int, width: int, stride: int, pool: str) -> None:
        super().__init__()
        self.pool = POOLS[pool](stride) if stride > 1 else nn.Identity()
        self.proj = nn.Conv2d(in_width, width, 1) if in_width != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.pool(x))


def convolution_problems(width: int, grid: int, expand: float, kernel: int, se_ratio: float) -> list[str]:
    """What an inverted bottleneck of any kind cannot have."""
    reasons = []
    if grid < 1:
        reasons.append("nothing is left of the feature map")
    if expand < 1 or not float(expand * width).is_integer():
        reasons.append(f"expand must be at least 1 and give a whole inner width, got {expand} x {width}")
    if kernel < 1 or kernel % 2 != 1:
        reasons.append(f"kernel must be an odd whole number, got {kernel}")
    if not 0 <= se_ratio <= 1:
        reasons.append(f"se_ratio must be between 0 and 1, got {se_ratio}")
    return reasons
