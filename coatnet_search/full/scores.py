"""Scores a network on a whole split: accuracies with intervals, loss, a table of classes, calibration error.

Shapes: B images a batch, K classes, N bins of confidence.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from coatnet_search.analysis.intervals import wilson
from coatnet_search.analysis.posterior import of_fractions, posterior
from coatnet_search.data.batches import Batch

BINS = 15  # of confidence, equally wide: Guo et al., arXiv 1706.04599


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions in 0..1; ``top1_low`` and ``top1_high`` bound the 95 % interval (Wilson) that ``num_images`` give.

    ``calibration_error``: the expected one, the mean distance between confidence and accuracy over 15 bins.
    ``balanced_accuracy``: the mean of the classes' own accuracies, over those that have images; ``never_recognised``:
    the names of those of which no image was right. ``classes``: a row a class with its images, how many were right, and
    the class that it is most often taken for. ``confusion``: (true class, predicted one) -> images.
    """

    num_images: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    loss: float
    calibration_error: float
    balanced_accuracy: float
    never_recognised: Sequence[str]
    classes: Sequence[dict[str, Any]]
    confusion: Mapping[tuple[str, str], int]


@torch.inference_mode()
def score(
    model: nn.Module, batches: Iterator[Batch], class_names: Sequence[str], *,
    loss: Literal["softmax", "sigmoid"] = "softmax", autocast: AbstractContextManager[Any] | None = None,
) -> Scores:  # fmt: skip
    """Scores of ``model`` on all of ``batches``; nothing of the images is kept, so a split may be large.

    ``loss`` says what the network was trained with: confidences are a softmax's or independent sigmoids', and the loss
    is the cross-entropy of the one, the sum of the classes' binary cross-entropies of the others.
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
        total += _loss(logits, labels, loss)
        best = logits.topk(min(5, classes)).indices  # (B, 5)
        right = best[:, 0] == labels
        top5 += int((best == labels[:, None]).sum())
        counts += torch.stack([torch.bincount(part, minlength=classes) for part in (labels, labels[right])])
        mistakes.update(zip(labels[~right].tolist(), best[~right, 0].tolist(), strict=True))
        _add_bins(bins, logits, right, loss)
    count, correct = (int(number) for number in counts.sum(1))
    per_class = _per_class(counts, mistakes, class_names)
    shares = [row["top1"] for row in per_class if row["images"]]
    low, high = wilson(np.asarray([correct / count]), count)
    return Scores(
        num_images=count, top1=correct / count, top1_low=float(low[0]), top1_high=float(high[0]), top5=top5 / count,
        loss=total / count, calibration_error=float((bins[1] - bins[2]).abs().sum() / count),
        balanced_accuracy=sum(shares) / len(shares),
        never_recognised=[row["class"] for row in per_class if row["images"] and not row["right"]],
        classes=per_class, confusion=_confusion(per_class, mistakes, class_names),
    )  # fmt: skip


def _confusion(
    per_class: Sequence[Mapping[str, Any]], mistakes: Mapping[tuple[int, int], int], names: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Right answers and mistakes, in the order of the classes."""
    found = {(place, place): int(row["right"]) for place, row in enumerate(per_class) if row["right"]} | dict(mistakes)
    return {(names[true], names[predicted]): found[true, predicted] for true, predicted in sorted(found)}


def _loss(logits: Tensor, labels: Tensor, loss: str) -> float:
    """The sum over images of the loss that the network was trained with, without smoothing."""
    if loss == "softmax":
        return float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    targets = nn.functional.one_hot(labels, logits.shape[1]).float()  # (B, K)
    return float(nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum"))


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


def over_seeds(
    values: Sequence[float], level: float = 0.95, *, most: float = math.inf, num_images: int | None = None
) -> dict[str, Any]:
    """Mean of one number a seed, and the mean's interval, cut to 0..``most``; none for one seed.

    Of accuracies on so many images (``num_images``) it is that of a model of both: the images' binomial part, which
    is known and half of which no seed averages out, and the seeds' part, whose prior keeps two seeds from saying
    anything or nothing (``analysis.posterior``). Of other numbers it is Student's t.
    """
    found = np.asarray(values, dtype=np.float64)
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": count}
    if num_images:
        of_both = posterior([found], np.zeros(1), np.zeros((1, 0)), of_fractions(np.array([mean]), num_images))
        low, high = float(of_both.low[0]), float(of_both.high[0])
    else:
        half = float(student.ppf((1 + level) / 2, count - 1) * found.std(ddof=1) / np.sqrt(count))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": max(low, 0.0), "high": min(high, most), "seeds": count}


def single_seeds(values: Sequence[float]) -> str:
    """Accuracies of fewer than three seeds, as a text; nothing of more, which their mean and interval stand for."""
    if not 1 < len(values) < 3:
        return ""
    return " and ".join(f"{100 * value:.2f} %" for value in values)
