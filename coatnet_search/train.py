"""One training loop: a model, data, a recipe and a budget in; one row of metrics an epoch out. No Ray, no MLflow.

All randomness comes from (budget.seed, epoch), so a run on a CPU is bit-reproducible, also across a resume.
Shapes: B images a batch, C channels, S the side in pixels, K classes.
"""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coatnet_search import checkpoint as checkpoints
from coatnet_search.arch import Budget, digest
from coatnet_search.checkpoint import Checkpoint
from coatnet_search.datasets.augmentation import generator
from coatnet_search.datasets.data import TRAIN_SAMPLE, Batch, Data
from coatnet_search.errors import InputError
from coatnet_search.recipe import Recipe, schedule

CHECK_EVERY = 100  # steps between looks at the losses: a look makes the CPU wait for a GPU
StepGuard = Callable[[], AbstractContextManager[Any]]


class TrainingFailed(RuntimeError):
    """A run that cannot go on. ``kind``: nan, out_of_memory, worker_killed or checkpoint; the message is one line."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    budget: Budget,
    device: torch.device | str,
    *,
    checkpoint: Path | None = None,
    step_guard: StepGuard = nullcontext,
) -> Iterator[dict[str, float]]:
    """Trains ``model``, float (B, C, S, S) -> logits (B, K), in place, and yields a row after each epoch.

    A row: ``epoch`` (from 1), ``train_loss`` (mean over the steps, with augmentation and smoothing), ``train_top1`` (no
    augmentation, on the first 2,048 images of the regime or all), ``val_loss`` (no smoothing), ``val_top1``,
    ``val_top5``, ``lr`` (of the last step), ``epoch_s``, ``train_images_per_s``. With ``recipe.ema`` the averaged model
    is evaluated, and its weights are in ``model`` at the end.

    ``checkpoint`` is a folder, written after every epoch. Where it holds a checkpoint of this run, the rows up to there
    are yielded again as they were and training goes on after them. ``step_guard`` is entered for each step and each
    batch of an evaluation; a guard that needs the device idle at its end must synchronise.

    Raises TrainingFailed, InputError (model and data don't fit, warm-up too long) and its CheckpointMismatch.
    """
    run = _Run(model, data, recipe, budget, torch.device(device), step_guard)
    history: list[dict[str, float]] = []
    identity = run.identity() if checkpoint else {}
    found = checkpoints.load(checkpoint, identity) if checkpoint else None
    if found:
        run.restore(found)
        history = [dict(row) for row in found.history]
        yield from (dict(row) for row in history)
    for epoch in range(len(history) + 1, budget.epochs + 1):
        with _named_failures(recipe, run.side, run.device):
            history.append(run.epoch(epoch))
        if checkpoint:
            _save(checkpoint, Checkpoint(epoch, run.tensors(), history), identity)
        yield dict(history[-1])
    run.finish()


def _save(folder: Path, state: Checkpoint, identity: checkpoints.Identity) -> None:
    try:
        checkpoints.save(folder, state, identity)
    except OSError as error:
        raise TrainingFailed("checkpoint", f"epoch {state.epoch}: cannot write {folder}: {error}") from None


@contextlib.contextmanager
def _named_failures(recipe: Recipe, side: int, device: torch.device) -> Iterator[None]:
    """What a device or a worker does to a run, as TrainingFailed with what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
            where = f"batch_size {recipe.batch_size} at {side} pixels does not fit {device}"
            raise TrainingFailed("out_of_memory", f"{where}: {text}") from error
        if "DataLoader worker" in text:
            hint = "killed (out of memory, or a small /dev/shm?); try fewer data.workers"
            raise TrainingFailed("worker_killed", f"a data worker was {hint}: {text}") from error
        raise


class _Run:
    """The objects of one run: model, optimiser, average, and the functions of a step."""

    def __init__(
        self, model: nn.Module, data: Data, recipe: Recipe, budget: Budget, device: torch.device, step_guard: StepGuard
    ) -> None:
        self.data, self.recipe, self.budget, self.device, self.step_guard = data, recipe, budget, device, step_guard
        self.regime = data.regime(budget.num_images, budget.draw)
        self.num_steps = data.num_steps(recipe.batch_size, len(self.regime))
        self.rate = schedule(recipe, epochs=budget.epochs, steps_per_epoch=self.num_steps)
        self.side = budget.image_size or data.image_size
        self.model = _prepared(model, recipe, device)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, recipe.weight_decay), lr=recipe.lr, betas=(0.9, recipe.beta2), fused=True
        )
        self.sigmoid = BinaryCrossEntropy(smoothing=0.0, sum_classes=True)  # targets come smoothed
        bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")
        self.dtype = torch.bfloat16 if bfloat16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def epoch(self, epoch: int) -> dict[str, float]:
        """Trains and evaluates one epoch; torch's global generators are as before afterwards."""
        begin = time.perf_counter()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout and stochastic depth draw from the global generators
            torch.manual_seed(generator(self.budget.seed, epoch, 2).initial_seed())
            losses = self._steps(epoch)
        train_loss = float(losses.double().mean())  # waits for the device: the end of the epoch's training
        train_s = time.perf_counter() - begin
        sample, scored = self._evaluate_train(), self._evaluate_val()
        if not math.isfinite(scored[0]):
            raise TrainingFailed("nan", f"epoch {epoch}: the validation loss is {scored[0]}")
        return {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_top1": sample[1],
            "val_loss": scored[0],
            "val_top1": scored[1],
            "val_top5": scored[2],
            "lr": self.rate(epoch * self.num_steps - 1),
            "epoch_s": time.perf_counter() - begin,
            "train_images_per_s": self.num_steps * min(self.recipe.batch_size, len(self.regime)) / train_s,
        }

    def _steps(self, epoch: int) -> Tensor:
        """All steps of an epoch; returns their losses (num_steps,)."""
        self.model.train()
        recipe, seed = self.recipe, self.budget.seed
        first = (epoch - 1) * self.num_steps
        batches = self.data.train_batches(
            batch_size=recipe.batch_size,
            seed=seed,
            epoch=epoch,
            recipe=recipe,
            device=self.device,
            regime=self.regime,
            image_size=self.side,
        )
        random = np.random.default_rng((seed, epoch, 3))
        shares = random.beta(recipe.mixup, recipe.mixup, self.num_steps).tolist() if recipe.mixup else None
        losses = torch.zeros(self.num_steps, device=self.device)
        for step in range(self.num_steps):
            with self.step_guard():
                images, labels = next(batches)
                losses[step] = self._step(first + step, images, labels, shares[step] if shares else 1.0)
            if (step + 1) % CHECK_EVERY == 0:
                _check(losses[: step + 1], epoch)
        _check(losses, epoch)
        return losses

    def _step(self, step: int, images: Tensor, labels: Tensor, share: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        if share < 1:
            images = images.lerp(images.flip(0), 1 - share)
        with self.autocast():
            logits = self.model(images)
        if step == 0:
            self._check_logits(logits)
        loss = self._loss(logits.float(), labels, share, self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.model, step=step + 1)
        return loss.detach()

    def _loss(self, logits: Tensor, labels: Tensor, share: float = 1.0, smoothing: float = 0.0) -> Tensor:
        """Softmax: cross-entropy. Sigmoid: the sum of the classes' binary cross-entropies. Mean over the batch."""
        if self.recipe.loss == "softmax" and share == 1:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        targets = mixup_target(labels, self.data.num_classes, share, smoothing)  # (B, K)
        if self.recipe.loss == "softmax":
            return nn.functional.cross_entropy(logits, targets)
        loss: Tensor = self.sigmoid(logits, targets)
        return loss

    def _check_logits(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.data.num_classes:
            raise InputError(f"the model gives {tuple(logits.shape)}, the data has {self.data.num_classes} classes")

    def _evaluate_train(self) -> tuple[float, float, float]:
        return self._evaluate(
            self.data.plain_batches(
                self.regime[:TRAIN_SAMPLE],
                batch_size=2 * self.recipe.batch_size,
                device=self.device,
                image_size=self.side,
            )
        )

    def _evaluate_val(self) -> tuple[float, float, float]:
        size = 2 * self.recipe.batch_size  # without gradients twice the batch fits
        return self._evaluate(self.data.val_batches(batch_size=size, device=self.device, image_size=self.side))

    @torch.inference_mode()
    def _evaluate(self, batches: Iterator[Batch]) -> tuple[float, float, float]:
        """(mean loss without smoothing, top-1, top-5); one wait for the device in all."""
        model = self.ema.module if self.ema else self.model
        model.eval()
        sums, count = torch.zeros(3, dtype=torch.float64).to(self.device), 0
        best = min(5, self.data.num_classes)
        while True:
            with self.step_guard():
                batch = next(batches, None)
                if batch is None:
                    break
                images, labels = batch
                with self.autocast():
                    logits = model(images).float()
                hits = logits.topk(best).indices == labels[:, None]  # (B, 5)
                loss = self._loss(logits, labels) * len(labels)
                sums += torch.stack([loss, hits[:, 0].sum(), hits.sum()])
                count += len(labels)
        loss_sum, top1, top5 = sums.tolist()
        return loss_sum / count, top1 / count, top5 / count

    def finish(self) -> None:
        if self.ema:
            self.model.load_state_dict(self.ema.module.state_dict())

    def identity(self) -> dict[str, str]:
        """Digests of what a run is. Two models with equal text and equal tensors count as one architecture."""
        shapes = [[name, list(value.shape), str(value.dtype)] for name, value in self.model.state_dict().items()]
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(self.model))
        return {
            "architecture": digest([shapes, text], 16),
            "recipe": digest(dataclasses.asdict(self.recipe), 16),
            "budget": digest(dataclasses.asdict(self.budget), 16),
            "data": self.data.digest,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next epoch depends on, by name."""
        parts = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.ema:
            parts |= {f"ema.{name}": value for name, value in self.ema.module.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            parts |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        return {name: value.detach().cpu().contiguous().clone() for name, value in parts.items()}

    def restore(self, found: Checkpoint) -> None:
        """Puts a checkpoint's tensors where ``tensors`` took them."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in found.tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        if self.ema:
            self.ema.module.load_state_dict(part("ema."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        _as_parameters(self.optimizer)


def _as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Moments get their parameters' memory format back: files are contiguous, channels-last weights are not."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)


def _prepared(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The model on its device with the recipe's settings. Raises InputError where it has no stochastic depth to set."""
    model.to(device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_drop_path = getattr(model, "set_drop_path", None)
    if callable(set_drop_path):
        set_drop_path(recipe.drop_path)
    elif recipe.drop_path:
        raise InputError("recipe.drop_path: this model has no set_drop_path(rate); set recipe.drop_path=0")
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = recipe.bn_momentum
    return model


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: no decay for one-dimensional ones, biases, bias tables and what the model itself exempts."""
    exempt = getattr(model, "no_weight_decay", None)
    names = {"*relative_bias*", *(exempt() if callable(exempt) else ())}
    groups: list[dict[str, Any]] = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=names)
    return groups


def _check(losses: Tensor, epoch: int) -> None:
    """Raises TrainingFailed where a loss is not a number; one wait for the device."""
    wrong = ~torch.isfinite(losses)
    if bool(wrong.any()):
        step = int(wrong.int().argmax())
        raise TrainingFailed("nan", f"epoch {epoch}, step {step + 1}: the training loss is {float(losses[step])}")
