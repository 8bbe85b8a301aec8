"""Computes fresh BatchNorm statistics for one network from a fixed list of training images.

The running statistics of shared weights are a mixture over all networks that were trained and fit none of them. A
network that was taken out (a copy) gets its own; the shared weights are not touched. Networks without BatchNorm have
no statistics and stay as they are.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coatnet_search.data.batches import Batch
from coatnet_search.training.scoring import Scorer

BATCH = 256  # images at once, everywhere, so that equal networks get equal bits


def calibration_numbers(regime: Tensor, count: int) -> Tensor:
    """The first ``count`` training images of a regime (all, where it has fewer), in ascending order of number: each
    class has its share, and the order in which they are listed does not matter."""
    return regime[:count].sort().values


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterator[Batch], scorer: Scorer) -> nn.Module:
    """Sets the statistics of every BatchNorm of ``model``, in place, to the mean over the images of ``batches`` (plain
    ones, without augmentation); every image counts alike. Returns the model, in eval mode."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return model
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    while True:
        with scorer.step_guard():
            batch = next(batches, None)
            if batch is None:
                break
            seen += len(batch[1])
            for norm in norms:
                norm.momentum = len(batch[1]) / seen
            with scorer.autocast():
                model(batch[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
