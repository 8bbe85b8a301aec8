"""Logits of timm's CoAtNets against ours with the same weights: largest difference, relative to the largest logit.

    python scripts/check_timm_parity.py                 # sizes 0 to 4 at 224 pixels, 0 and 1 at 384; minutes, 2 GB
    python scripts/check_timm_parity.py 5               # one size alone at 224

Weights and BatchNorm statistics are random and all of them matter; eval mode, float32, one image.
"""

import sys
from collections.abc import Sequence

import timm
import torch
from torch import nn

from coatnet_search.architecture.build import build
from coatnet_search.architecture.fold_norms import fold_norms
from coatnet_search.architecture.timm_bridge import from_timm

TOLERANCE = 1e-4
CASES = [*((size, 224) for size in range(5)), (0, 384), (1, 384)]


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Every norm, bias, table and statistic away from where an initialisation leaves it."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        with torch.no_grad():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=draw)
            elif name.endswith(("running_mean", "table")):
                value.normal_(0.0, 0.5, generator=draw)
            elif name.endswith("norm.weight") or (value.ndim == 1 and name.endswith("weight")):
                value.normal_(1.0, 0.2, generator=draw)
            elif name.endswith("bias"):
                value.normal_(0.0, 0.2, generator=draw)
            elif value.ndim > 1 and value.is_floating_point():
                value.normal_(0.0, value[0].numel() ** -0.5, generator=draw)
    return model.eval()


@torch.inference_mode()
def difference(size: int, side: int) -> tuple[float, float]:
    """Of the logits, plain and with norms folded, relative to the largest."""
    theirs = randomised(timm.create_model(f"coatnet_{size}_224", img_size=side), seed=size)
    ours = build(*from_timm(theirs)).eval()
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected, folded = theirs(image), fold_norms(ours)
    scale = expected.abs().max()
    return tuple(float((model(image) - expected).abs().max() / scale) for model in (ours, folded))  # type: ignore[return-value]


def main(arguments: Sequence[str]) -> int:
    cases, worst = [(int(size), 224) for size in arguments] or CASES, 0.0
    for size, side in cases:
        plain, folded = difference(size, side)
        print(f"coatnet_{size} at {side}: {plain:.1e}, folded {folded:.1e}", flush=True)
        worst = max(worst, plain, folded)
    print(f"largest {worst:.1e}, tolerance {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
