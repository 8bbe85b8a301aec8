"""Pieces that several blocks share: activations, norms, 1x1 convolutions, shortcut. B batch, H x W the map."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, SqueezeExcite
from torch import Tensor, nn

from coatnet_search.architecture.blocks import squeezed

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh")}
_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
_WORTH_IT = 1 << 24  # multiply-adds
_REGISTER = 16  # floats in a register of AVX-512
POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def norm2d(kind: str, width: int, eps: float) -> nn.Module:
    """BatchNorm, or LayerNorm over the channels of each position; (B, C, H, W) -> (B, C, H, W)."""
    return nn.BatchNorm2d(width, eps=eps) if kind == "batch" else LayerNorm2d(width, eps=eps)


def squeeze_excite(inner: int, width: int, ratio: float) -> nn.Module:
    """Squeeze-and-excitation of ``inner`` channels through ratio x ``width`` of them; nothing at a ratio of 0."""
    return SqueezeExcite(inner, rd_channels=squeezed(width, ratio), act_layer=nn.SiLU) if ratio else nn.Identity()


def onednn_pays(x: Tensor, width: int) -> bool:
    """Whether a 1x1 convolution of the map ``x`` to ``width`` channels is best left to oneDNN: on a CPU, for products
    of some size, where no operand must be reordered.

    torch hands it over for batches of 16 and more or for several threads only, but always where the kernel is dilated,
    which a kernel of one pixel does not notice. Measured on AMD EPYC with one thread: 1.2 to 2.2 times as fast as the
    matrix product that torch takes otherwise, forward and backward; slower below about ten million multiply-adds.
    """
    return (
        _may_choose(x)
        and x.dtype == torch.float32
        and x.numel() * width >= _WORTH_IT
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _may_choose(x: Tensor) -> bool:
    """Whether this is a CPU with oneDNN, and no graph is being exported: those have plain parts."""
    return (
        _ONEDNN
        and x.device.type == "cpu"
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.compiler.is_exporting()
    )


class Convolution(nn.Conv2d):
    """A convolution; where one of 1x1 strides in training, few channels are sampled before, not inside it.

    With AVX-512, oneDNN 3.12 (torch 2.13) writes past its buffer for the gradient of such a weight, in float32 and in
    bfloat16: of one group, channels last, fewer input channels than a register has floats, outgoing maps of about 28 x
    28 and more.
    Found by allocations that end at a protected page: no other kernel, stride or group, and nothing of the forward pass
    or of the input's gradient, writes there. A pool of one pixel samples as exactly as a slice, in one operator.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.samples_first(x):
            return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)
        return super().forward(x)

    def samples_first(self, x: Tensor) -> bool:
        return _samples(self) and _may_choose(x) and torch.is_grad_enabled() and x.shape[1] < _REGISTER


def _samples(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that does nothing to most pixels: 1x1 with a stride, without groups."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
    )


def sampled_first(model: nn.Module) -> nn.Module:
    """The model, with ``Convolution`` in place of torch's own where that may crash: other people's blocks and networks.
    Parameters, their names and hooks stay."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and _samples(layer):
            layer.__class__ = Convolution
    return model


class Pointwise(Convolution):
    """A 1x1 convolution; (B, in_width, H, W) -> (B, width, H/stride, W/stride)."""

    def __init__(self, in_width: int, width: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(in_width, width, 1, stride=stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1) and onednn_pays(x, self.out_channels):
            return F.conv2d(x, self.weight, self.bias, dilation=2)
        return super().forward(x)


class Dense(nn.Linear):
    """A linear layer at each position: (..., in_width) -> (..., width). Tokens (B, H, W, in_width) are a channels-last
    map."""

    def forward(self, y: Tensor) -> Tensor:
        if y.ndim == 4 and onednn_pays(x := y.permute(0, 3, 1, 2), self.out_features):
            return F.conv2d(x, self.weight[:, :, None, None], self.bias, dilation=2).permute(0, 2, 3, 1)
        return super().forward(y)


class Shortcut(nn.Module):
    """pool (where the block strides), then a biased 1x1 projection (where the width changes).

    (B, in_width, H, W) -> (B, width, H/stride, W/stride). CoAtNet, appendix A.1.
    """

    def __init__(self, in_width: int, width: int, stride: int, pool: str) -> None:
        super().__init__()
        self.pool = POOLS[pool](stride) if stride > 1 else nn.Identity()
        self.proj = Pointwise(in_width, width) if in_width != width else nn.Identity()

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
