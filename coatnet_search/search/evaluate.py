"""Runs one trial: build, measure, train or inherit, score on validation -> Reports. Knows no Ray and no MLflow.

A user's own trainer replaces the training: ``trainer(arch, budget, data, device)`` yields the same metrics, a mapping
an epoch. It is named by ``package.module:function`` or by an entry point of the group ``coatnet_search.trainers``, on
the command line alone: no file can make this process import a name.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import CoAtNet, seeded_build
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.trained_weights import Start
from coatnet_search.core.errors import InputError, SetupError, unknown
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.record.trial import Failure, State
from coatnet_search.search.task import Fault, Report, Task, checked, failure_of, finite
from coatnet_search.search.user_code import contained, text_of
from coatnet_search.study.study import Study
from coatnet_search.supernet.folder import load_supernets
from coatnet_search.supernet.inherit import InheritedNetworks
from coatnet_search.training.budget import Budget
from coatnet_search.training.compilation import check_compiler
from coatnet_search.training.device import chosen_precision, describe, device_id
from coatnet_search.training.device_lock import DeviceLock, Watch, warn
from coatnet_search.training.guard import Guard, Overrun
from coatnet_search.training.loop import train
from coatnet_search.training.measurements.conditions import Conditions
from coatnet_search.training.measurements.repeat_until_calm import measure_calmly
from coatnet_search.training.memory import limit_share, release
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup
from coatnet_search.training.recipe import Recipe
from coatnet_search.training.scoring import NEVER_RECOGNISED, Scorer

NAMED = 10  # names of classes in an attribute

Trainer = Callable[[Arch, Budget, Data, torch.device], Iterable[Mapping[str, Any]]]
Rows = Iterator[dict[str, float]]


Together = Callable[[Task, Rows], Rows]  # the first worker's rows, while the others train with it


def load_trainer(name: str) -> Trainer:
    """The trainer of an entry point or of ``package.module:function``. Raises InputError where there is none."""
    points = {point.name: point for point in importlib.metadata.entry_points(group="coatnet_search.trainers")}
    try:
        if name in points:
            return points[name].load()
        module, colon, function = name.partition(":")
        if not colon:
            raise InputError(
                f"--evaluator: {unknown('installed trainer', name, points)}; or give package.module:function"
            )
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--evaluator {name}: {error}") from None


class Evaluator:
    """Runs the trials of one study in this process, on one device, with its data loaded once.

    Where several workers train a trial, each has an evaluator with its place in the ``group``: the first runs the
    trial, the others its ``epochs`` alone.
    """

    def __init__(self, study: Study, checkpoints: Path, device: str, threads: int = 1,
                 group: ProcessGroup = SINGLE_PROCESS, together: Together | None = None,
                 watch: Watch = warn) -> None:  # fmt: skip
        """``watch``: told while a trial waits for its device."""
        torch.set_num_threads(threads)  # the same everywhere, so that the same seed gives the same bits
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SetupError("the study asks for a GPU and torch sees none; set resources.gpus to 0 to run on CPUs")
        self.study, self.checkpoints, self.device = study, checkpoints, torch.device(device)
        self._group, self._together = group, together
        if study.recipe.compile:
            check_compiler(self.device, study.recipe.compile)
        if study.file.measure and study.file.conditions.compile:
            check_compiler(self.device, study.file.conditions.compile)
        self._lock = DeviceLock(device_id(self.device), watch=watch)
        self._trainer = load_trainer(study.evaluator) if study.evaluator else None
        self._data: dict[int, Data] = {}
        self._peers = study.peers()
        self._inherited_networks: InheritedNetworks | None = None
        self._step_before: torch.cuda.Event | None = None  # the end of the last step on a GPU that is shared
        self._last_inherited: tuple[str, CoAtNet] | None = (
            None  # the last network with inherited weights, by its trial's key
        )
        self._storage = study.checkpoint_storage()
        self._start: Start | None = None  # what the last peer began with
        self._never_recognised: list[int] = []  # the classes of which the trial's network knows no validation image

    def waited_s(self) -> float:
        """Seconds for which its trials have waited for the device."""
        return self._lock.waited_s()

    def data(self, image_size: int) -> Data:
        """The study's data at an image size, kept for the next trial."""
        if image_size not in self._data:
            self._data[image_size] = load_data(self.study.file.data, image_size=image_size)
        return self._data[image_size]

    def run(self, task: Task) -> Iterator[Report]:
        """A report an epoch, then the final one; what goes wrong in the trial is its state and failure."""
        start = time.monotonic()
        epochs: list[dict[str, float]] = []
        final: dict[str, float] = {}
        measured: dict[str, float] = {}
        attributes: dict[str, Any] = {}
        failure: Failure | None = None
        state: State = "done"
        self._never_recognised = []
        limit_share(self.device, 1.0 if task.alone else self.study.file.resources.gpus)
        try:
            with Guard(self.study.allowance, waited=self._lock.waited_s) as guard:
                with guard.working():
                    final.update(self._costs(task))
                    if self.study.file.measure_when == "start" and not task.measured and not self._alone(task):
                        measured, attributes = self.measure(task)
                        final.update(measured)
                        if not task.peer and (reasons := self.study.refusals(measured)):  # before it costs more
                            raise _Refused(reasons[0])
                for epoch in guard.each(self._rows(task)):
                    epochs.append(epoch)
                    yield Report(metrics=epoch)
            final = {**final, **self._last(epochs, task), **measured}
            if task.until:
                state = "paused"
            elif self._never_recognised:
                attributes[NEVER_RECOGNISED] = self._named(self._never_recognised, task)
            reasons = [] if task.until or self._alone(task) else self.study.refusals(final)
            if reasons and task.peer:  # it was never a candidate: it is shown, and not chosen
                attributes["outside_limits"] = reasons
            elif reasons:
                state, failure = "refused", Failure(kind="limit", message=reasons[0])
            if task.peer and task.budget.epochs and self._start:
                attributes["weights"] = self._start.sentences
            if not self._alone(task) and (task.budget.epochs or not task.peer):
                self._check_objectives(final)
        except _Refused as refused:
            state, failure = "refused", Failure(kind="limit", message=str(refused))
        except (Exception, SystemExit, Overrun) as error:  # a trial's fault ends the trial, never the search
            state, failure = "failed", failure_of(error)
        release(self.device)
        timings = {"wall_s": round(time.monotonic() - start, 3)}
        yield Report(metrics=finite(final), state=state, failure=failure, device=describe(self.device),
                     timings=timings, attributes=attributes)  # fmt: skip

    def _named(self, classes: list[int], task: Task) -> dict[str, Any]:
        """Classes as an attribute has them: how many of how many, and the names of the first."""
        names = self.data(task.arch.image_size).class_names
        return {"count": len(classes), "of": len(names), "names": [names[place] for place in classes[:NAMED]]}

    def _rows(self, task: Task) -> Rows:
        own = self.epochs(task)
        return self._together(task, own) if self._together and task.budget.epochs else own

    def epochs(self, task: Task) -> Rows:
        """Trains; a row an epoch. All workers of a trial call it."""
        if task.peer and not task.budget.epochs:
            return
        if self._trainer:
            data = self.data(task.arch.image_size)
            asked = functools.partial(self._trainer, task.arch, task.budget, data, self.device)
            rows = itertools.islice(contained(asked), task.until)  # it starts over where a rung was reached
            for number, epoch in enumerate(rows, 1):
                if not isinstance(epoch, Mapping):
                    raise Fault("bad_report", f"the trainer gave {text_of(epoch, repr):.60} in epoch {number}; it is "
                                "to yield a mapping of metrics for each epoch")  # fmt: skip
                yield checked({"epoch": number, **epoch, NEVER_RECOGNISED: None})  # our loop's rows, handed on
        elif task.budget.epochs:
            data, folder = self.data(task.arch.image_size), self.checkpoints / task.key
            self._fetch(task.key, folder)
            for epoch in train(self._build(task), data, self._recipe(task), task.budget, self.device,
                               until=task.until, checkpoint=folder, group=self._group,
                               step_guard=self._step if self._group.first else nullcontext):  # fmt: skip
                if self._storage and self._group.first:
                    self._storage.push(folder, task.key)
                self._never_recognised = epoch.pop(NEVER_RECOGNISED, self._never_recognised)
                yield checked(epoch)

    def _fetch(self, key: str, folder: Path) -> None:
        """Checkpoints out of the study's storage. Several workers all take what lies there, not what their nodes had,
        one after another, as those of a node have one folder."""
        if not self._storage:
            return
        for turn in range(self._group.size):
            if turn == self._group.rank:
                if self._group.size > 1:
                    shutil.rmtree(folder, ignore_errors=True)
                self._storage.pull(key, folder)
            self._group.wait()

    def _costs(self, task: Task) -> dict[str, float]:
        return self._peers[task.peer].count._asdict() if task.peer else cost(task.arch).as_metrics()

    def _recipe(self, task: Task) -> Recipe:
        """How it is trained; stochastic depth of a peer is built into it."""
        if not task.peer:
            return self._own_recipe(task)
        return dataclasses.replace(self.study.peer_recipe(self._peers[task.peer]), drop_path=0.0)

    def _own_recipe(self, task: Task) -> Recipe:
        return self.study.audit_recipe if self._alone(task) else self.study.recipe_with(task.recipe)

    def _alone(self, task: Task) -> bool:
        """Whether a trial is an audit's training: of a network that has been measured and may be chosen already."""
        return self.study.file.audit is not None and task.budget.epochs > 0

    def _inherits(self, task: Task) -> bool:
        """Whether a trial has a supernet's weights; in such a study, one with epochs to spend is trained alone."""
        return self.study.file.supernet is not None and not task.budget.epochs and not task.peer

    def _inherited(self, task: Task) -> CoAtNet:
        """The task's network out of the supernet, which is loaded once. Raises InputError for a supernet of another
        space."""
        spec = self.study.file.supernet
        assert spec is not None
        if self._inherited_networks is None:
            data = self.data(task.arch.image_size)
            nets = load_supernets(self.study.supernet_place(self.checkpoints.parent), self.study.space)
            scorer = Scorer(self.study.supernet_recipe, data.num_classes, self.device, step_guard=self._step)
            regime = data.regime(self.study.file.data.num_images)
            self._inherited_networks = InheritedNetworks(
                nets.to(self.device), data, regime, scorer, spec.recalibration_images
            )
        if self._last_inherited is None or self._last_inherited[0] != task.key:
            self._last_inherited = (task.key, self._inherited_networks.network(task.candidate))
        return self._last_inherited[1]

    def _build(self, task: Task) -> nn.Module:
        recipe = self._own_recipe(task)
        if self._inherits(task):
            return self._inherited(task)
        if task.peer:
            peer = self._peers[task.peer]
            with torch.random.fork_rng(devices=[]):  # the seed decides the weights, and nothing else changes
                torch.manual_seed(task.budget.seed)
                model, self._start = peer.started(drop_path=self.study.peer_recipe(peer).drop_path)
                return model.to(self.device)
        model = seeded_build(task.arch, task.budget.seed, drop_path=recipe.drop_path, init=recipe.init)
        return model.to(self.device)

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        """A step of training. On a GPU that trials share it is over when the GPU is done with the step before it: so a
        measurement, which warms up first, finds at most one step queued, and launches need not wait for kernels."""
        with self._lock.shared():
            yield
            if self.device.type == "cuda" and self.study.file.resources.gpus < 1:
                done = torch.cuda.current_stream(self.device).record_event()
                if self._step_before is not None:
                    self._step_before.synchronize()
                self._step_before = done

    def measure(self, task: Task) -> tuple[dict[str, float], dict[str, Any]]:
        """What the study measures of a network, and attributes: the ``conditions`` of each measurement, and which of
        them were ``disturbed`` in each of their tries."""
        names = self.study.file.measure
        if not names:
            return {}, {}
        given = self.study.file.conditions
        precision = chosen_precision(given.precision, self.device)
        asked = Conditions(device=str(self.device), threads=torch.get_num_threads(),
                           **{**dataclasses.asdict(given), "precision": precision})  # fmt: skip
        model = self._build(task)
        found = {name: measure_calmly(name, model, task.arch, asked, self._lock.alone) for name in names}
        del model
        release(self.device)  # the best batch size was sought where memory ends
        metrics = {name: value for one in found.values() for name, value in one.measured.metrics.items()}
        attributes: dict[str, Any] = {"conditions": {name: one.as_attributes() for name, one in found.items()}}
        if disturbed := [name for name, one in found.items() if one.disturbed]:
            attributes["disturbed"] = disturbed
        return checked(metrics), attributes

    def _last(self, epochs: list[dict[str, float]], task: Task) -> dict[str, float]:
        """The final metrics of a trained network are its last epoch's: nothing is picked by looking at val; of one with
        inherited weights its scores."""
        if self._inherits(task):
            model = self._inherited(task)
            assert self._inherited_networks is not None
            scores = self._inherited_networks.scores(model)
            self._never_recognised = scores.pop(NEVER_RECOGNISED)
            last = checked(scores)
        elif (task.peer or not self._trainer) and not task.budget.epochs:
            return {}
        elif not epochs:
            raise Fault("no_result", "the trainer ended without a single report")
        else:
            last = {name: value for name, value in epochs[-1].items() if name != "epoch"}
        if "val_top1" in last:
            last["error"] = 1.0 - last["val_top1"]
        return last

    def _check_objectives(self, metrics: Mapping[str, float]) -> None:
        for name in self.study.file.objectives:
            if name not in metrics:
                raise Fault("missing_objective", f"the last report has no {name}, which is an objective")


class _Refused(Exception):
    """A measured limit is broken before training."""


@contextlib.contextmanager
def closing_reports(reports: Iterator[Report]) -> Iterator[Iterator[Report]]:
    """Ends a trial that is not read to its end, so that its loaders and locks are released."""
    try:
        yield reports
    finally:
        close = getattr(reports, "close", None)
        if close:
            close()
