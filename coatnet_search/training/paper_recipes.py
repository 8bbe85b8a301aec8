"""The paper's recipes as data: a column a stage of training, and what each model size has of its own. No code.

Source: CoAtNet, arXiv 2106.04803, appendix A.2. What a column does not say (optimiser moments, random resized crops in
pre-training, BatchNorm's momentum 0.01, as in the authors' later code) is common to all, and so is how much of a batch
a device takes at once (``micro_batch``), which is a matter of its memory. ``centre_crop`` is read as:
images are evaluated on their centre, cut from slightly larger ones (yes), or as a whole (no).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """``values``: what all models have; ``models``: family name -> what it has of its own."""

    values: Values
    models: Mapping[str, Values]


def _depth(*rates: float, first: int) -> dict[str, Values]:
    """Stochastic depth of the family's sizes from ``first`` on."""
    return {f"coatnet-{first + place}": {"drop_path": rate} for place, rate in enumerate(rates)}


_PRE = {"batch_size": 4096, "lr": 1e-3, "min_lr": 1e-5, "min_crop_area": 0.08, "bn_momentum": 0.01, "clip_norm": 1.0,
        "micro_batch": "auto"}  # fmt: skip
_FINE = {
    "epochs": 30, "batch_size": 512, "lr": 5e-5, "min_lr": 5e-5, "decay": "none", "warmup": 0.0, "warmup_unit": "steps",
    "weight_decay": 1e-8,
    "label_smoothing": 0.1, "clip_norm": 1.0, "ema": 0.9999, "bn_momentum": 0.01, "centre_crop": False,
    "micro_batch": "auto",
}  # fmt: skip
_IMAGENET = {"randaugment_layers": 2, "randaugment_magnitude": 15, "mixup": 0.8}
_WEAK = {"randaugment_layers": 2, "randaugment_magnitude": 5}
_SIGMOID = {"loss": "sigmoid", "label_smoothing": 1e-4, "weight_decay": 0.01, "decay": "linear"}
_21K = {**_PRE, **_SIGMOID, "epochs": 90, "warmup": 5, "warmup_unit": "epochs"}
_21K_DEPTH = _depth(0.3, 0.5, 0.7, first=2)
_DEPTH = _depth(0.2, 0.3, 0.5, 0.7, first=0)

PAPER: Mapping[str, Column] = {
    "paper-imagenet": Column(
        {**_PRE, **_IMAGENET, "epochs": 300, "label_smoothing": 0.1, "warmup": 10_000, "warmup_unit": "steps",
         "weight_decay": 0.05},
        _DEPTH,
    ),
    "paper-imagenet-finetune": Column(
        {**_FINE, **_IMAGENET},
        {**_DEPTH, "coatnet-3": {**_DEPTH["coatnet-3"], "randaugment_magnitude": 20}},
    ),
    "paper-imagenet21k": Column(_21K, _21K_DEPTH),
    "paper-imagenet21k-finetune": Column({**_FINE, "batch_size": 1024}, _21K_DEPTH),
    # the longer run of the largest model with augmentation, by which it gained half a point
    "paper-imagenet21k-randaugment": Column({**_21K, **_WEAK, "epochs": 150}, {"coatnet-4": {"drop_path": 0.7}}),
    "paper-imagenet21k-randaugment-finetune": Column(
        {**_FINE, **_WEAK, "batch_size": 1024}, {"coatnet-4": {"drop_path": 0.7}}
    ),
    "paper-jft": Column(
        {**_PRE, **_SIGMOID, **_WEAK, "epochs": 14, "warmup": 20_000, "warmup_unit": "steps"},
        {"coatnet-3": {"drop_path": 0.0, "lr": 1e-3}, "coatnet-4": {"drop_path": 0.1, "lr": 5e-4},
         "coatnet-5": {"drop_path": 0.0, "lr": 5e-4}},
    ),
    "paper-jft-finetune": Column({**_FINE, **_WEAK}, _depth(0.1, 0.3, 0.2, first=3)),
}  # fmt: skip
