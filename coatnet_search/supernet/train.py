"""Trains a supernet: the training loop with another step. One row an epoch; no Ray.

A step is for one layout (see ``supernet_schedule.py``), and trains a few of its networks on one batch: in a sandwich
the largest on labels, the smallest and random ones on the largest's answers; on a single path one random network on
labels. The teacher is the step's own layout's, so that no layout learns from another. The gradient is the mean over the
step's networks. Stochastic depth is for the largest alone.

B images a batch, C channels, S the side in pixels, K classes.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from coatnet_search.architecture.build import build
from coatnet_search.core.canonical import Scalar, digest
from coatnet_search.core.errors import InputError
from coatnet_search.data.batches import Data
from coatnet_search.space.layout_networks import Candidate, networks_by_layout
from coatnet_search.space.space import Space
from coatnet_search.supernet.distil import alpha_loss, binary_loss, kl_loss
from coatnet_search.supernet.folder import Supernets, supernet_budget
from coatnet_search.supernet.inherit import InheritedNetworks
from coatnet_search.supernet.network import Supernet
from coatnet_search.supernet.schedule import Schedule, neighbours
from coatnet_search.supernet.spec import SupernetSpec
from coatnet_search.training.checkpoint import Checkpoint
from coatnet_search.training.loop import FORWARD_SHARE, Row, Run, TrainingFailed, epochs
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup
from coatnet_search.training.recipe import Recipe, recipe_values
from coatnet_search.training.scoring import Scorer, StepGuard

JUMP = 2.0  # a loss this many times the layout's usual, and above its first one, is no longer learning
USUAL = 0.9  # share of the past in a layout's usual loss
RESTORES = 5  # in an epoch; more end the training
KEEP_EVERY = 50  # steps between good states, in whole cycles
CONFLICTS = 2  # times an epoch that gradients of layouts are compared
PROBE_IMAGES = 2048  # at most so many validation images are for a probe
PROBE_SHARE = 0.25  # of an epoch's work: where probes cost more, each second epoch has them, each third, ...


def train_supernet(
    space: Space,
    data: Data,
    recipe: Recipe,
    spec: SupernetSpec,
    device: torch.device | str,
    *,
    num_images: int | None = None,
    checkpoint: Path | None = None,
    step_guard: StepGuard = nullcontext,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[tuple[Row, Supernets]]:
    """Trains the supernet of a space and yields a row after each epoch, with the weights as they then are.

    ``recipe``: that of ``supernet_recipe``; ``checkpoint``, ``step_guard`` and ``group`` as in ``train``. Workers train
    the same networks on their shares of each batch and have equal weights throughout.

    A row has ``epoch``, ``train_loss`` (of each step's first network: the largest, on labels), ``lr``, ``epoch_s``,
    ``train_images_per_s``, ``partition``; by layout ``layout_loss`` and ``updates`` (since the start), by branch
    ``branch_updates``;
    ``conflict``: by stage the cosine of the gradients of layouts that differ in its type alone, over the parameters
    that they share (1: they want the same, below 0: they undo each other); ``restored``: sentences, one for each time
    that training went back to the last good state; and where the epoch ends with them, ``probes`` (by layout and size:
    macs, val_loss, val_top1, val_top5) with their means ``val_loss``, ``val_top1``, ``val_top5``.

    Raises TrainingFailed, InputError (the space has no supernet, warm-up too long), CheckpointMismatch, SetupError.
    """
    place = torch.device(device)
    run = _SupernetRun(space, data, recipe, spec, num_images, place, step_guard, group)
    for row in epochs(run, checkpoint):
        yield row, run.nets


class _Spoiled(Exception):
    """A step after which no state is good."""


class _SupernetRun(Run):
    def __init__(
        self, space: Space, data: Data, recipe: Recipe, spec: SupernetSpec, num_images: int | None,
        device: torch.device, step_guard: StepGuard, group: ProcessGroup,
    ) -> None:  # fmt: skip
        self.space, self.spec = space, spec
        self.schedule = Schedule(networks_by_layout(space), spec)
        self.nets = Supernets.fresh(space, self.schedule.names, spec.partition, recipe, spec.seed, device)
        self.drop_path = recipe.drop_path  # is given to networks, the supernet itself has none
        plain = dataclasses.replace(recipe, drop_path=0.0)
        super().__init__(self.nets, data, plain, supernet_budget(spec, num_images), device, step_guard, group)
        self.probes = self.schedule.probes()
        self.neighbours = neighbours(space, self.schedule.layouts) if spec.partition == "none" else {}
        self.updates: Counter[str] = Counter(dict.fromkeys(self.schedule.names, 0))  # of the present weights
        self.usual: dict[str, tuple[float, float]] = {}  # layout -> its first loss, its usual one
        self.skip_until = 0
        self.good: Checkpoint | None = None
        self.epoch_losses: dict[str, list[float]] = {}
        self.conflict: dict[int, list[float]] = {}
        self.restored: list[str] = []

    def steps_of_epoch(self) -> int:
        """Whole cycles alone, so that every epoch ends with equal updates of all layouts."""
        steps, cycle = super().steps_of_epoch(), self.schedule.cycle
        if steps < cycle:
            raise InputError(f"recipe.batch_size: an epoch of {len(self.regime):,} images has {steps} steps of "
                             f"{self.recipe.batch_size}, and the {cycle} layouts of space {self.space.name} need one "
                             "each; take smaller batches or more images")  # fmt: skip
        return steps // cycle * cycle

    def in_training(self) -> nn.Module:
        return self.model

    def probe(self, images: Tensor, labels: Tensor, share: float) -> None:
        for layout, known in self.schedule.layouts.items():
            self._network(layout, known.largest, images, labels, share, None, 0.0, 1.0)

    # --- an epoch ----------------------------------------------------------------------------------------------------

    def epoch(self, epoch: int) -> Row:
        self.epoch_losses, self.conflict, self.restored = {}, {}, []
        self.good = self.state(0)
        row = super().epoch(epoch)
        row["layout_loss"] = {name: sum(found) / len(found) for name, found in sorted(self.epoch_losses.items())}
        row["partition"] = self.spec.partition
        row["updates"] = dict(self.updates)
        row["branch_updates"] = self.branch_updates()
        row["conflict"] = {f"s{place}": sum(found) / len(found) for place, found in sorted(self.conflict.items())
                           if found}  # fmt: skip
        row["restored"] = list(self.restored)
        return row

    def check(self, losses: Tensor, epoch: int) -> None:
        """Each step is looked at before it is taken; one that was not taken has no loss."""

    def evaluates(self, epoch: int) -> bool:
        images = self.spec.recalibration_images + min(PROBE_IMAGES, self.data.num_val)
        networks = len(self.schedule.networks(0)) * len(self.regime)
        every = math.ceil(FORWARD_SHARE * images * len(self.probes) / networks / PROBE_SHARE)
        return epoch % every == 0 or epoch == self.budget.epochs

    def is_kept(self, epoch: int) -> bool:
        return True

    def scores(self, epoch: int) -> Row:
        scorer = Scorer(self.recipe, self.data.num_classes, self.device, step_guard=self.step_guard)  # of this worker
        inherited = InheritedNetworks(self.nets, self.data, self.regime, scorer, self.spec.recalibration_images)
        names = ("val_loss", "val_top1", "val_top5")
        table = torch.zeros(len(self.probes), len(names), dtype=torch.float64, device=self.device)
        for number, candidate in enumerate(self.probes.values()):
            if number % self.group.size == self.group.rank:  # each worker has its share of the probes
                found = inherited.scores(inherited.network(candidate), PROBE_IMAGES)
                table[number] = torch.tensor([found[name] for name in names], dtype=torch.float64)
        values = self.group.sum(table).tolist()
        probes: dict[str, dict[str, Row]] = {}
        for ((layout, size), candidate), row in zip(self.probes.items(), values, strict=True):
            macs = self.schedule.layouts[layout].macs(candidate)
            probes.setdefault(layout, {})[size] = {"macs": macs, **dict(zip(names, row, strict=True))}
        means = torch.tensor(values).mean(dim=0).tolist()
        return {**dict(zip(names, means, strict=True)), "probes": probes}

    # --- a step ------------------------------------------------------------------------------------------------------

    def step(self, step: int, images: Tensor, labels: Tensor, share: float) -> Tensor:
        if step < self.skip_until:
            return torch.tensor(math.nan)
        if step % self.num_steps in self._conflict_steps():
            self._compare(images, labels)
        try:
            loss = super().step(step, images, labels, share)
        except _Spoiled as spoiled:
            self._go_back(step, str(spoiled))
            return torch.tensor(math.nan)
        self.updates[self.schedule.layout(step)] += 1
        assert max(self.updates.values()) - min(self.updates.values()) <= 1, "a layout is a favourite"
        done = step + 1
        if done % self.schedule.cycle == 0 and done // self.schedule.cycle % self._cycles_kept == 0:
            self.good = self.state(done)
        return loss

    @property
    def _cycles_kept(self) -> int:
        return max(1, KEEP_EVERY // self.schedule.cycle)

    def gradients(self, step: int, images: Tensor, labels: Tensor, share: float) -> Tensor:
        layout, candidates = self.schedule.layout(step), self.schedule.networks(step)
        teacher: Tensor | None = None
        losses = []
        for candidate in candidates:
            rate = self.drop_path if self.schedule.is_largest(layout, candidate) else 0.0
            loss, logits = self._network(layout, candidate, images, labels, share, teacher, rate, 1 / len(candidates))
            if self._distils and teacher is None:
                teacher = logits
            losses.append(loss)
        self._exchange()
        self._look(step, layout, candidates, torch.stack(losses), images)
        return losses[0]

    @property
    def _distils(self) -> bool:
        return self.spec.mode == "sandwich" and self.spec.distillation != "none"

    def _network(
        self, layout: str, candidate: Candidate, images: Tensor, labels: Tensor, share: float, teacher: Tensor | None,
        drop_path: float, weight: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Adds ``weight`` times a network's gradient; its loss (mean over the batch) and logits (B, K)."""
        net, total, found = self.nets.of(layout), torch.zeros((), device=self.device), []
        for begin in range(0, len(images), self.micro):
            part, targets = images[begin : begin + self.micro], labels[begin : begin + self.micro]
            with self.scorer.autocast():
                logits = net(part, candidate, drop_path=drop_path).float()
            self.scorer.check(logits)
            if teacher is None:
                loss = self.scorer.loss(logits, targets, share, self.recipe.label_smoothing, self.class_weights)
            else:
                loss = self._divergence(logits, teacher[begin : begin + self.micro])
            loss = loss * (len(part) / len(images))
            self.scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            found.append(logits.detach())
        return total, torch.cat(found)

    def _divergence(self, logits: Tensor, teacher: Tensor) -> Tensor:
        if self.recipe.loss == "sigmoid":
            return binary_loss(logits, teacher)
        return alpha_loss(logits, teacher) if self.spec.distillation == "alpha" else kl_loss(logits, teacher)

    def _exchange(self) -> None:
        """The workers' mean of all gradients. All have trained the same networks, so the same parameters have one."""
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.group.size > 1:
            flat = self.group.mean(torch.cat([grad.reshape(-1) for grad in grads]))
            for grad, mean in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                grad.copy_(mean.view(grad.shape))

    # --- guards ------------------------------------------------------------------------------------------------------

    def _look(self, step: int, layout: str, candidates: list[Candidate], losses: Tensor, images: Tensor) -> None:
        """Raises _Spoiled before an update that would ruin the weights; one wait for the device."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        *values, total = torch.cat([self.group.mean(losses), norm.to(losses)[None]]).tolist()
        for candidate, value in zip(candidates, values, strict=True):
            if not math.isfinite(value):
                stage = self._first_bad(layout, candidate, images)
                raise _Spoiled(f"the loss of network {_text(candidate)} is {value}; the first values that are not "
                               f"finite: {stage}")  # fmt: skip
        if not math.isfinite(total) and not self.scaler.is_enabled():  # which leaves such an update out by itself
            raise _Spoiled(f"the gradient of networks {', '.join(map(_text, candidates))} is {total}, first in "
                           f"{self._bad_parameter()}")  # fmt: skip
        first, usual = self.usual.get(layout, (values[0], values[0]))
        if values[0] > JUMP * usual and values[0] > first:
            raise _Spoiled(f"the loss of network {_text(candidates[0])} jumped to {values[0]:.4g}, usual is "
                           f"{usual:.4g}")  # fmt: skip
        self.usual[layout] = (first, USUAL * usual + (1 - USUAL) * values[0])
        self.epoch_losses.setdefault(layout, []).append(values[0])

    @torch.no_grad()
    def _first_bad(self, layout: str, candidate: Candidate, images: Tensor) -> str:
        """Where a network first gives something that is not finite, looked for on a copy of it."""
        model = build(*self.nets.of(layout).extract(candidate)).to(self.device).train()
        x = images
        for name, part in [("stem", model.stem), *((f"stage {n}", s) for n, s in enumerate(model.stages, 1))]:
            x = part(x)
            if not bool(torch.isfinite(x).all()):
                return name
        if not bool(torch.isfinite(model.head(x)).all()):
            return "head"
        return "the loss" if self.group.size == 1 else "the loss, or another worker's images"

    def _bad_parameter(self) -> str:
        named = self.model.named_parameters()
        return next((n for n, p in named if p.grad is not None and not bool(torch.isfinite(p.grad).all())), "their sum")

    def _go_back(self, step: int, why: str) -> None:
        """To the last good state; what is left of the cycle is skipped, so that layouts stay equal."""
        epoch, place = divmod(step, self.num_steps)
        text = f"epoch {epoch + 1}, step {place + 1}, layout {self.schedule.layout(step)}: {why}"
        self.restored.append(text)
        assert self.good is not None
        if len(self.restored) > RESTORES:
            raise TrainingFailed("nan", f"{text}; training went back to the last good state {RESTORES} times in this "
                                        "epoch already; a smaller recipe.lr may help")  # fmt: skip
        self.restore(self.good)
        self.skip_until = (step // self.schedule.cycle + 1) * self.schedule.cycle

    # --- conflict ----------------------------------------------------------------------------------------------------

    def _conflict_steps(self) -> set[int]:
        return {self.num_steps * n // CONFLICTS for n in range(CONFLICTS)} if self.neighbours else set()

    def _compare(self, images: Tensor, labels: Tensor) -> None:
        """Gradients of the largest networks on one batch and the same weights, compared where layouts share weights."""
        grads: dict[str, dict[str, Tensor]] = {}
        compared = (name for pairs in self.neighbours.values() for pair in pairs for name in pair)
        for layout in dict.fromkeys(compared):  # in the same order in all workers
            self.optimizer.zero_grad()
            self._network(layout, self.schedule.layouts[layout].largest, images, labels, 1.0, None, 0.0, 1.0)
            self._exchange()
            grads[layout] = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.optimizer.zero_grad()
        for place, pairs in self.neighbours.items():
            cosines = [cosine(grads[one], grads[other]) for one, other in pairs]
            self.conflict.setdefault(place, []).extend(found for found in cosines if found is not None)

    # --- state -------------------------------------------------------------------------------------------------------

    def branch_updates(self) -> dict[str, int]:
        """How often each branch was updated: by the layouts that have it."""
        found: Counter[str] = Counter()
        for layout, known in self.schedule.layouts.items():
            net: Supernet = self.nets.of(layout)
            for branch in net.branches_of(known.largest):
                found[f"s{branch.place} {branch.label}"] += self.updates[layout]
        return dict(sorted(found.items()))

    def identity(self) -> dict[str, str]:
        training = dataclasses.asdict(self.spec)
        return {
            "space": digest(json.loads(json.dumps(dataclasses.asdict(self.space.file))), 16),
            "supernet": digest(training, 16),
            "recipe": digest([recipe_values(self.recipe), self.drop_path], 16),
            "budget": digest(dataclasses.asdict(self.budget), 16),
            "data": self.data.digest,
            "workers": str(self.group.size),
        }

    def state(self, done: int) -> Checkpoint:
        return Checkpoint(done, self.tensors(), [])

    def tensors(self) -> dict[str, Tensor]:
        names = self.schedule.names
        usual = [self.usual.get(name, (math.nan, math.nan)) for name in names]
        return super().tensors() | {
            "updates": torch.tensor([self.updates[name] for name in names]),
            "usual": torch.tensor(usual, dtype=torch.float64),
            "skip_until": torch.tensor(self.skip_until),
        }

    def restore(self, found: Checkpoint) -> None:
        super().restore(found)
        names = self.schedule.names
        self.updates = Counter(dict(zip(names, found.tensors["updates"].tolist(), strict=True)))
        known = zip(names, found.tensors["usual"].tolist(), strict=True)
        self.usual = {name: (first, usual) for name, (first, usual) in known if not math.isnan(first)}
        self.skip_until = int(found.tensors["skip_until"])


def cosine(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    """Of two gradients over the parameters that both have; None where there are none, or one is zero."""
    names = [name for name in one if name in other]
    dot = sum(float((one[name] * other[name]).sum()) for name in names)
    size = math.sqrt(sum(float(one[n].square().sum()) for n in names) * sum(float(other[n].square().sum())
                                                                             for n in names))  # fmt: skip
    return dot / size if size else None


def _text(candidate: Mapping[str, Scalar]) -> str:
    return " ".join(f"{name}={value}" for name, value in candidate.items())
