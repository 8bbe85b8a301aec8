"""Scores a model: the recipe's training loss, and loss and accuracies on a whole split, in batches.

Shapes: B images a batch, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn

from coatnet_search.core.errors import InputError
from coatnet_search.data.batches import Batch
from coatnet_search.training.device import autocast, chosen_precision
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup
from coatnet_search.training.recipe import Recipe

StepGuard = Callable[[], AbstractContextManager[Any]]
NEVER_RECOGNISED = "never_recognised"  # in rows and in the attributes of trials


class SplitScores(NamedTuple):
    """The scores of a split as fractions; ``loss`` is the mean, without smoothing and without weights of classes.

    ``balanced_accuracy``: the mean over classes of the share of their images that is recognised, each class counting
    alike however few images it has. ``never_recognised``: the classes of which no image is. Classes without an image in
    the split count for neither.
    """

    loss: float
    top1: float
    top5: float
    balanced_accuracy: float
    never_recognised: tuple[int, ...]


class Scorer:
    """By a recipe's loss and precision, on one device. ``step_guard`` is entered for each batch that is looked at."""

    def __init__(
        self, recipe: Recipe, num_classes: int, device: torch.device, *, step_guard: StepGuard = nullcontext,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:  # fmt: skip
        self.recipe, self.num_classes, self.device = recipe, num_classes, device
        self.step_guard, self.group = step_guard, group
        self.sigmoid = BinaryCrossEntropy(smoothing=0.0, sum_classes=True)  # targets come smoothed
        self.precision = chosen_precision(recipe.precision, device)

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.precision, self.device)

    def loss(
        self, logits: Tensor, labels: Tensor, share: float = 1.0, smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Softmax: cross-entropy. Sigmoid: the sum of the classes' binary cross-entropies. Mean over the batch.

        ``share``: of each image's own label, the rest is its mirror's in the batch (mixup). ``class_weights`` (K,): how
        much an image of each class counts, for a mixed image in the shares of its labels."""
        if class_weights is not None:
            return self._weighted_loss(logits, labels, share, smoothing, class_weights)
        if self.recipe.loss == "softmax" and share == 1:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        targets = mixup_target(labels, self.num_classes, share, smoothing)  # (B, K)
        if self.recipe.loss == "softmax":
            return nn.functional.cross_entropy(logits, targets)
        loss: Tensor = self.sigmoid(logits, targets)
        return loss

    def _weighted_loss(
        self, logits: Tensor, labels: Tensor, share: float, smoothing: float, class_weights: Tensor
    ) -> Tensor:
        targets = mixup_target(labels, self.num_classes, share, smoothing)  # (B, K)
        if self.recipe.loss == "softmax":
            losses = nn.functional.cross_entropy(logits, targets, reduction="none")  # (B,)
        else:
            losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
        weights = class_weights[labels]  # (B,)
        return (losses * (share * weights + (1 - share) * weights.flip(0))).mean()

    def check(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise InputError(f"the model gives {tuple(logits.shape)}, the data has {self.num_classes} classes")

    @torch.inference_mode()
    def scores(self, model: nn.Module, batches: Iterator[Batch]) -> SplitScores:
        """Over all workers' batches; one wait for the device in all."""
        model = getattr(model, "module", model)  # without gradients workers have nothing to exchange
        model.eval()
        sums = torch.zeros(4, dtype=torch.float64).to(self.device)
        counts = torch.zeros(2, self.num_classes, dtype=torch.float64).to(self.device)  # images, recognised ones
        best = min(5, self.num_classes)
        while True:
            with self.step_guard():
                batch = next(batches, None)
                if batch is None:
                    break
                images, labels = batch
                with self.autocast():
                    logits = model(images).float()
                hits = logits.topk(best).indices == labels[:, None]  # (B, 5)
                loss = self.loss(logits, labels) * len(labels)
                sums += torch.stack([loss, hits[:, 0].sum(), hits.sum(), torch.ones_like(loss) * len(labels)])
                for row, values in zip(counts, (torch.ones_like(hits[:, 0]), hits[:, 0]), strict=True):
                    row.index_add_(0, labels, values.double())
        found = self.group.sum(torch.cat([sums, counts.flatten()])).cpu()
        loss_sum, top1, top5, count = found[:4].tolist()
        images, recognised = found[4:].view(2, -1)
        there = images > 0
        return SplitScores(
            loss_sum / count, top1 / count, top5 / count, float((recognised[there] / images[there]).mean()),
            tuple((there & (recognised == 0)).nonzero().flatten().tolist()),
        )  # fmt: skip


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(K,): what an image of each class counts so that all classes count alike; the mean over all images is 1."""
    counts = torch.bincount(labels, minlength=num_classes)
    return len(labels) / (num_classes * counts.clamp(min=1).float())
