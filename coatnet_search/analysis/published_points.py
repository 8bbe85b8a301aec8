"""Published points for overlays: CoAtNet and the systems that its paper compares it with, on ImageNet-1K.

Source: CoAtNet, arXiv 2106.04803, its tables of results; rounded as printed there.
"""

from pathlib import Path

import pandas as pd

TABLE = Path(__file__).with_suffix(".csv")


def published(pretraining: str | None = None) -> pd.DataFrame:
    """A row a point: name, family, pretraining (none, imagenet-21k, jft), image_size (pixels), params, macs (NaN where
    the paper has none), val_top1 (fraction, on ImageNet-1K's validation images), error. ``pretraining``: only those."""
    frame = pd.read_csv(TABLE, keep_default_na=False, na_values={"params": "", "macs": ""})
    frame["error"] = 1 - frame["val_top1"]
    return frame[frame["pretraining"] == pretraining] if pretraining else frame
