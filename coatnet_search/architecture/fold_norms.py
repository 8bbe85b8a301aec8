"""BatchNorm folded into the convolution beside it: fewer passes over memory, the same answers, inference alone."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of the network in eval mode without those BatchNorms that a convolution can take over exactly.

    In a stem each BatchNorm goes into the convolution before it; a block names its pairs as ``folds`` (attributes, in
    the order of the forward pass). A norm before a convolution that pads stays: the padding is not normalised. Outputs
    are equal up to rounding; the copy must not be trained.
    """
    folded = copy.deepcopy(model).eval()
    for parent, first, second in list(_pairs(folded)):
        one, two = getattr(parent, first), getattr(parent, second)
        if isinstance(one, nn.Conv2d) and isinstance(two, nn.BatchNorm2d):
            setattr(parent, first, fuse_conv_bn_eval(one, two))
            setattr(parent, second, nn.Identity())
        elif (
            isinstance(one, nn.BatchNorm2d) and isinstance(two, nn.Conv2d) and not any(two.padding) and two.groups == 1
        ):
            setattr(parent, second, _fuse_before(one, two))
            setattr(parent, first, nn.Identity())
    return folded.requires_grad_(False)


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    for module in model.modules():
        for first, second in getattr(module, "folds", ()):
            yield module, first, second


@torch.no_grad()
def _fuse_before(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """convolution(norm(x)) as one convolution: W (s x + t) = (W s) x + W t."""
    scale, shift = _scale_and_shift(norm)
    fused = copy.deepcopy(convolution)
    fused.weight.mul_(scale[:, None, None])
    bias = (convolution.weight * shift[:, None, None]).sum((1, 2, 3))
    fused.bias = nn.Parameter(bias if convolution.bias is None else convolution.bias + bias)
    return fused


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
