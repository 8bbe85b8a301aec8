"""Scores a network on a whole split: accuracies with intervals, loss, a table of classes, calibration error.

Shapes: B images a batch, K classes, N bins of confidence.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from coatnet_search.analysis.intervals import wilson
from coatnet_search.data.batches import Batch

BINS = 15  # of confidence, equally wide: Guo et al., arXiv 1706.04599


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions in 0..1; ``top1_low`` and ``top1_high`` bound the 95 % interval (Wilson) that ``num_images`` give.

    ``calibration_error``: the expected one, the mean distance between confidence and accuracy over 15 bins.
    ``classes``: a row a class with its images, how many were right, and the class that it is most often taken for.
    """

    num_images: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    loss: float
    calibration_error: float
    classes: Sequence[dict[str, Any]]


@torch.inference_mode()
def score(
    model: nn.Module, batches: Iterator[Batch], class_names: Sequence[str], *,
    loss: Literal["softmax", "sigmoid"] = "softmax", autocast: AbstractContextManager[Any] | None = None,
) -> Scores:  # fmt: skip
    """Scores of ``model`` on all of ``batches``; nothing of the images is kept, so a split may be large.

    ``loss`` says what the network was trained with: confidences are a softmax's or independent sigmoids'.
    """
    model.eval()
    classes = len(class_names)
    counts = torch.zeros(2, classes, dtype=torch.int64)  # images, right ones
    mistakes: Counter[tuple[int, int]] = Counter()  # (true class, predicted one)
    bins = torch.zeros(3, BINS, dtype=torch.float64)  # images, confidence, right ones
    top5, total = 0, 0.0
    for images, labels in batches:
        with autocast or nullcontext():
            logits = model(images).float()
        logits, labels = logits.cpu(), labels.cpu()
        total += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        best = logits.topk(min(5, classes)).indices  # (B, 5)
        right = best[:, 0] == labels
        top5 += int((best == labels[:, None]).sum())
        counts += torch.stack([torch.bincount(part, minlength=classes) for part in (labels, labels[right])])
        mistakes.update(zip(labels[~right].tolist(), best[~right, 0].tolist(), strict=True))
        _add_bins(bins, logits, right, loss)
    count, correct = (int(number) for number in counts.sum(1))
    low, high = wilson(np.asarray([correct / count]), count)
    return Scores(
        num_images=count, top1=correct / count, top1_low=float(low[0]), top1_high=float(high[0]), top5=top5 / count,
        loss=total / count, calibration_error=float((bins[1] - bins[2]).abs().sum() / count),
        classes=_per_class(counts, mistakes, class_names),
    )  # fmt: skip


def _add_bins(bins: Tensor, logits: Tensor, right: Tensor, loss: str) -> None:
    shares = logits.softmax(1) if loss == "softmax" else logits.sigmoid()
    confidence = shares.max(1).values.double()
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    for row, values in enumerate((torch.ones_like(confidence), confidence, right.double())):
        bins[row].index_add_(0, place, values)


def _per_class(counts: Tensor, mistakes: Counter[tuple[int, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """``counts``: (2, K), images and right ones; ``mistakes``: how often which class was taken for which."""
    taken: dict[int, int] = {}
    for (true, predicted), _ in sorted(mistakes.items(), key=lambda item: (-item[1], item[0])):
        taken.setdefault(true, predicted)
    return [
        {"class": name, "images": images, "right": right, "top1": right / images if images else None,
         "most_often_taken_for": names[taken[place]] if place in taken else None}
        for place, (name, images, right) in enumerate(zip(names, *counts.tolist(), strict=True))
    ]  # fmt: skip


def over_seeds(values: Sequence[float], level: float = 0.95, *, most: float = math.inf) -> dict[str, Any]:
    """Mean of one number a seed, and the mean's interval by Student's t, cut to 0..``most``; none for one seed."""
    found = np.asarray(values, dtype=np.float64)
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": count}
    half = float(student.ppf((1 + level) / 2, count - 1) * found.std(ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": max(mean - half, 0.0), "high": min(mean + half, most), "seeds": count}
