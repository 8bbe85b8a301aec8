"""Trains a model: data, a recipe and a budget in; one row of metrics an epoch out. No Ray, no MLflow.

All randomness comes from (budget.seed, epoch), so a run on a CPU is bit-reproducible, also across a resume.
Shapes: B images a batch, C channels, S the side in pixels, K classes.
"""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import InputError
from coatnet_search.data.augmentation import generator
from coatnet_search.data.batches import TRAIN_SAMPLE, Data
from coatnet_search.training import checkpoint as checkpoints
from coatnet_search.training.budget import Budget
from coatnet_search.training.checkpoint import Checkpoint
from coatnet_search.training.memory import images_at_once, is_out_of_memory, probing
from coatnet_search.training.prepare import called, in_memory_format, parameter_groups, prepared
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup
from coatnet_search.training.recipe import AUTO, Recipe, recipe_values, schedule
from coatnet_search.training.scoring import NEVER_RECOGNISED, Scorer, SplitScores, StepGuard, class_weights

FORWARD_SHARE = 1 / 3  # of what training on an image costs: looking at one
Row = dict[str, Any]  # an epoch's metrics
CHECK_EVERY = 100  # steps between looks at the losses: a look makes the CPU wait for a GPU


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
    until: int | None = None,
    checkpoint: Path | None = None,
    step_guard: StepGuard = nullcontext,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Row]:
    """Trains ``model``, float (B, C, S, S) -> logits (B, K), in place, and yields a row after each epoch.

    A row: ``epoch`` (from 1), ``train_loss`` (mean over the steps, with augmentation and smoothing), ``train_top1`` (no
    augmentation, on the first 2,048 images of the regime or all), ``val_loss`` (no smoothing), ``val_top1``,
    ``val_top5``, ``val_balanced_accuracy`` and ``never_recognised`` (classes; see ``SplitScores``), ``lr`` (of the last
    step), ``epoch_s``, ``train_images_per_s``. With ``recipe.ema`` these are of the
    averaged model, whose weights are in ``model`` at the end, and ``raw_val_loss``, ``raw_val_top1``, ``raw_val_top5``
    of the weights themselves. ``micro_batch``, where a probe found it. Where images are decoded on the way,
    ``loader_images_per_s`` is what the loader could
    give: images over the time that training waited for it.

    ``until``: the run ends after so many of the budget's epochs, with an evaluation; the schedule stays that of the
    whole budget, so that a later call which goes on from the checkpoint ends where one call would have ended.

    ``checkpoint`` is a folder, written after every epoch. Where it holds a checkpoint of this run, the rows up to there
    are yielded again as they were and training goes on after them. ``step_guard`` is entered for each step and each
    batch of an evaluation; a guard that needs the device idle at its end must synchronise. ``group``: this process is
    one of several workers; each trains on its share of every batch, all yield the same rows, the first writes files.

    Raises TrainingFailed, InputError (model and data don't fit, warm-up too long) and its CheckpointMismatch.
    """
    yield from epochs(Run(model, data, recipe, budget, torch.device(device), step_guard, group, until), checkpoint)


def epochs(run: "Run", checkpoint: Path | None) -> Iterator[Row]:
    """The rows of a run's epochs, those that a checkpoint holds first; see ``train``."""
    history: list[Row] = []
    identity = run.identity() if checkpoint else {}
    found = checkpoints.load(checkpoint, identity) if checkpoint else None
    if checkpoint and not run.group.agrees(found.epoch if found else 0, run.device):
        raise TrainingFailed("checkpoint", f"not all workers see the same checkpoints in {checkpoint}")
    if found:
        run.restore(found)
        history = [dict(row) for row in found.history]
        yield from (dict(row) for row in history)
    for epoch in range(len(history) + 1, run.last + 1):
        with named_failures(run):
            history.append(run.epoch(epoch))
        if checkpoint and run.group.first and run.is_kept(epoch):
            _save(checkpoint, Checkpoint(epoch, run.tensors(), history), identity)
        yield dict(history[-1])
    run.finish()


def val_row(scored: SplitScores) -> Row:
    """The scores of the validation part as a row has them."""
    return {"val_loss": scored.loss, "val_top1": scored.top1, "val_top5": scored.top5,
            "val_balanced_accuracy": scored.balanced_accuracy,
            NEVER_RECOGNISED: list(scored.never_recognised)}  # fmt: skip


def _save(folder: Path, state: Checkpoint, identity: checkpoints.Identity) -> None:
    try:
        checkpoints.save(folder, state, identity)
    except OSError as error:
        raise TrainingFailed("checkpoint", f"epoch {state.epoch}: cannot write {folder}: {error}") from None


@contextlib.contextmanager
def named_failures(run: "Run") -> Iterator[None]:
    """What a device or a worker does to a run, as TrainingFailed with what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if is_out_of_memory(error):
            raise TrainingFailed(
                "out_of_memory",
                f"{run.micro} images of {run.side} pixels at once do not fit {run.device}; set "
                f"recipe.micro_batch to fewer (or auto), the batch stays what it is: {text}",
            ) from error
        if "DataLoader worker" in text:
            hint = "killed (out of memory, or a small /dev/shm?); try fewer data.workers"
            raise TrainingFailed("worker_killed", f"a data worker was {hint}: {text}") from error
        raise


class Run:
    """The objects of one run: model, optimiser, average, and the functions of a step."""

    def __init__(
        self, model: nn.Module, data: Data, recipe: Recipe, budget: Budget, device: torch.device,
        step_guard: StepGuard, group: ProcessGroup, until: int | None = None,
    ) -> None:  # fmt: skip
        self.data, self.recipe, self.budget, self.device, self.step_guard = data, recipe, budget, device, step_guard
        self.group, self.last, self.wait_s = group, min(until or budget.epochs, budget.epochs), 0.0
        self.regime = data.regime(budget.num_images, budget.draw)
        self.num_steps = self.steps_of_epoch()
        self.rate = schedule(recipe, epochs=budget.epochs, steps_per_epoch=self.num_steps)
        self.side = budget.image_size or data.image_size
        self.model = prepared(model, recipe, device)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.scorer = Scorer(recipe, data.num_classes, device, step_guard=step_guard, group=group)
        # float16 gradients vanish unless the loss is scaled; elsewhere it passes everything on as it is
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.scorer.precision == "float16")
        weighted = recipe.class_balance == "weights"
        self.class_weights = class_weights(data.labels[self.regime], data.num_classes).to(device) if weighted else None
        self.called, self.micro = self.model, self._micro_batch()
        self.probed = recipe.micro_batch == AUTO and device.type == "cuda"
        if self.probed:
            with named_failures(self):
                self.micro = self._fitting()
        self.called = self.in_training()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, recipe.weight_decay), lr=recipe.lr, betas=(0.9, recipe.beta2), fused=True
        )

    def steps_of_epoch(self) -> int:
        return self.data.num_steps(self.recipe.batch_size, len(self.regime))

    def in_training(self) -> nn.Module:
        """The model as a step calls it."""
        return called(self.model, self.recipe, self.device, self.group)

    def _micro_batch(self) -> int:
        """Images at once on this device. Raises InputError where the batch does not divide among workers and parts."""
        batch, workers = min(self.recipe.batch_size, len(self.regime)), self.group.size
        asked = 0 if self.recipe.micro_batch == AUTO else self.recipe.micro_batch
        micro = asked or max(1, batch // workers)
        if batch % (workers * micro) and batch == self.recipe.batch_size:
            raise InputError(f"recipe.batch_size: {batch} does not divide among {workers} workers that take {micro} "
                             "images at once; set recipe.batch_size or recipe.micro_batch")  # fmt: skip
        return micro

    def _fitting(self) -> int:
        """The images at once that fit the device, at most its share: a step is tried with made-up ones."""
        if not self.data.images.streamed:
            self.data.to(self.device)  # what will lie there all the time
        weights = sum(parameter.nbytes for parameter in self.parameters)
        held = weights * (3 if self.group.size > 1 else 2)  # moments, and what workers exchange gradients in
        with self.step_guard(), probing(self.model, self.device, held):
            return images_at_once(self.micro, self._attempt, self.device, self.group)

    def _attempt(self, images: int) -> None:
        """Trains on made-up images without an update, ``images`` at once of a whole share of a batch."""
        self.micro, share = images, min(self.recipe.batch_size, len(self.regime)) // self.group.size
        shown = torch.zeros(share, self.data.in_channels, self.side, self.side, device=self.device)
        shown = shown.contiguous(memory_format=torch.channels_last)
        held = shown + 0 if self.recipe.mixup else shown  # a blended batch lies beside the plain one
        self.model.train()
        labels = torch.zeros(images, dtype=torch.int64, device=self.device)
        self.probe(held[:images], labels, 0.5 if self.recipe.mixup else 1.0)

    def probe(self, images: Tensor, labels: Tensor, share: float) -> None:
        """The largest gradients that a step computes at once."""
        self.gradients(0, images, labels, share)

    def epoch(self, epoch: int) -> Row:
        """Trains and evaluates one epoch; torch's global generators are as before afterwards."""
        begin = time.perf_counter()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout and stochastic depth draw from the global generators
            own = (self.group.rank,) if self.group.rank else ()  # workers drop different blocks
            torch.manual_seed(generator(self.budget.seed, epoch, 2, *own).initial_seed())
            losses = self._steps(epoch)
        train_loss = float(losses[losses.isfinite()].double().mean())  # waits for the device
        train_s = time.perf_counter() - begin
        scores = self.scores(epoch) if self.evaluates(epoch) else {}
        images = self.num_steps * min(self.recipe.batch_size, len(self.regime))
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            **scores,
            "lr": self.rate(epoch * self.num_steps - 1),
            "epoch_s": time.perf_counter() - begin,
            "train_images_per_s": images / train_s,
        }
        if self.data.images.streamed:
            row["loader_images_per_s"] = images / max(self.wait_s, 1e-9)
        if self.probed:
            row["micro_batch"] = self.micro
        return row

    def evaluates(self, epoch: int) -> bool:
        """Whether an epoch ends with an evaluation: each does, but where epochs are so small that evaluating would cost
        more than training, each second one, third one, ... and the last."""
        looked_at = self.data.num_val + min(TRAIN_SAMPLE, len(self.regime))
        every = math.ceil(FORWARD_SHARE * looked_at / len(self.regime))
        return epoch % every == 0 or epoch in (self.last, self.budget.epochs)

    def is_kept(self, epoch: int) -> bool:
        """Whether an epoch's state is written to disk."""
        return self.evaluates(epoch)

    def scores(self, epoch: int) -> Row:
        """What the epoch's evaluation adds to its row."""
        averaged = self.ema.module if self.ema else self.called
        sample, scored = self._evaluate_train(averaged), self._evaluate_val(averaged)
        if not math.isfinite(scored.loss):
            raise TrainingFailed("nan", f"epoch {epoch}: the validation loss is {scored.loss}")
        scores = {"train_top1": sample.top1, **val_row(scored)}
        if self.ema:
            raw = self._evaluate_val(self.called)
            scores |= {"raw_val_loss": raw.loss, "raw_val_top1": raw.top1, "raw_val_top5": raw.top5}
        return scores

    def _steps(self, epoch: int) -> Tensor:
        """All steps of an epoch; returns their losses (num_steps,)."""
        self.called.train()
        self.wait_s = 0.0
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
            part=self.group.part,
            balanced=recipe.class_balance == "sampling",
        )
        random = np.random.default_rng((seed, epoch, 3))
        shares = random.beta(recipe.mixup, recipe.mixup, self.num_steps).tolist() if recipe.mixup else None
        losses = torch.zeros(self.num_steps, device=self.device)
        for step in range(self.num_steps):
            with self.step_guard():
                begin = time.perf_counter()
                images, labels = next(batches)
                self.wait_s += time.perf_counter() - begin
                losses[step] = self.step(first + step, images, labels, shares[step] if shares else 1.0)
            if (step + 1) % CHECK_EVERY == 0:
                self.check(self.group.mean(losses[: step + 1]), epoch)
        losses = self.group.mean(losses)
        self.check(losses, epoch)
        return losses

    def step(self, step: int, images: Tensor, labels: Tensor, share: float) -> Tensor:
        """One update, the ``step``-th of the run; returns its loss. ``share``: see ``Scorer.loss``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        if share < 1:  # within what is looked at at once, as the labels are
            images = torch.cat([part.lerp(part.flip(0), 1 - share) for part in torch.split(images, self.micro)])
        self.optimizer.zero_grad()
        loss = self.gradients(step, images, labels, share)
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model, step=step + 1)
        return loss

    def gradients(self, step: int, images: Tensor, labels: Tensor, share: float) -> Tensor:
        """The batch's gradients, micro-batch after micro-batch; returns its mean loss. BatchNorm sees micro-batches."""
        total = torch.zeros((), device=self.device)
        for begin in range(0, len(images), self.micro):
            part, targets = images[begin : begin + self.micro], labels[begin : begin + self.micro]
            last = begin + self.micro >= len(images)
            alone = getattr(self.called, "no_sync", nullcontext)  # workers exchange gradients once a batch
            with nullcontext() if last else alone():
                with self.scorer.autocast():
                    logits = self.called(part)
                self.scorer.check(logits)
                loss = self.scorer.loss(logits.float(), targets, share, self.recipe.label_smoothing,
                                        self.class_weights)  # fmt: skip
                loss = loss * (len(part) / len(images))
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _evaluate_train(self, model: nn.Module) -> SplitScores:
        numbers = self.regime[:TRAIN_SAMPLE][self.group.rank :: self.group.size]
        return self.scorer.scores(model, self.data.plain_batches(
            numbers, batch_size=2 * self.micro, device=self.device, image_size=self.side,
            whole=not self.recipe.centre_crop))  # fmt: skip

    def _evaluate_val(self, model: nn.Module) -> SplitScores:
        size = 2 * self.micro  # without gradients twice as many images fit
        return self.scorer.scores(model, self.data.val_batches(
            batch_size=size, device=self.device, image_size=self.side, whole=not self.recipe.centre_crop,
            part=self.group.part))  # fmt: skip

    def finish(self) -> None:
        if self.ema:
            self.model.load_state_dict(self.ema.module.state_dict())

    def identity(self) -> dict[str, str]:
        """Digests of what a run is. Two models with equal text and equal tensors count as one architecture."""
        shapes = [[name, list(value.shape), str(value.dtype)] for name, value in self.model.state_dict().items()]
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(self.model))
        return {
            "architecture": digest([shapes, text], 16),
            "recipe": digest(recipe_values(self.recipe), 16),
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
        for name, number in self.scaler.state_dict().items():  # none but for float16
            parts[f"scaler.{name}"] = torch.tensor(number, dtype=torch.float64)
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
        in_memory_format(self.optimizer)
        if scale := part("scaler."):
            kept = self.scaler.state_dict()
            self.scaler.load_state_dict({name: type(kept[name])(value.item()) for name, value in scale.items()})
        if self.probed and found.history:  # BatchNorm goes on to see what it saw, where that fits
            self.micro = min(self.micro, int(found.history[-1].get("micro_batch", self.micro)))

    def check(self, losses: Tensor, epoch: int) -> None:
        """Raises TrainingFailed where a loss is not a number; one wait for the device."""
        wrong = ~torch.isfinite(losses)
        if bool(wrong.any()):
            step = int(wrong.int().argmax())
            raise TrainingFailed("nan", f"epoch {epoch}, step {step + 1}: the training loss is {float(losses[step])}")
