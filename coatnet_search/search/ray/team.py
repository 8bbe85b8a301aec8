"""Starts the further workers of a trial that several train: Ray actors in its placement group.

All train by the same loop on their share of every batch; the first alone measures, writes checkpoints and reports. It
trains in a thread of its own here, so that the trial hears of another's end while the first waits for that one. A
failure of one is the trial's; where a process is gone the trial's is too, and it starts again from its last checkpoint.
"""

import datetime
import math
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed

from coatnet_search.record.trial import Failure
from coatnet_search.search.evaluate import Evaluator, Rows
from coatnet_search.search.ray.nodes import bundle
from coatnet_search.search.task import Fault, Task, failure_of
from coatnet_search.study.load import study_of_values
from coatnet_search.study.sections import Resources
from coatnet_search.training.guard import Guard, Overrun
from coatnet_search.training.loop import TrainingFailed
from coatnet_search.training.process_group import ProcessGroup

LOOK_S = 1.0  # between two looks at how the others are
GRACE_S = 3.0  # for what befell one worker to reach all of them
SILENCE_S = 1800.0  # longest wait of a worker for the others, in one step


class WorkerLost(BaseException):
    """The process of another worker is gone. No Exception: it is no result of the trial, which is to start again."""


class Team:
    """The other workers of the trials that this process runs one after another."""

    def __init__(self, study: Mapping[str, Any], checkpoints: Path, resources: Resources) -> None:
        self._study, self._checkpoints, self._resources = study, checkpoints, resources
        self._mates: list[Any] = []
        self._thread: ThreadPoolExecutor | None = None
        self._own: Future[Any] | None = None  # what the first worker does now
        self.nodes: Sequence[str] = ()  # ids of the others' nodes

    def rows(self, task: Task, own: Rows) -> Rows:
        """The first worker's rows of a training in which the others have their share.

        Raises what befell the first, Fault for what befell another alone, WorkerLost where one is gone.
        """
        try:
            if not self._mates:
                self._gather()
            working = [mate.train.remote(task.to_dict()) for mate in self._mates]
            while (row := self._first(working, next, own, None)) is not None:
                yield row
            ray.wait(working, num_returns=len(working))
            self._first(working, str)
        except BaseException:
            self._dissolve()
            raise

    def _gather(self) -> None:
        """Starts the others and the process group of all."""
        if distributed.is_initialized():
            raise WorkerLost("the workers of an earlier trial do not let go")
        asked, size = bundle(self._resources), self._resources.workers
        group = ray.util.get_current_placement_group()
        for rank in range(1, size):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            actor = ray.remote(Mate).options(
                num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), scheduling_strategy=place,
                resources={name: count for name, count in asked.items() if name not in ("CPU", "GPU")})  # fmt: skip
            self._mates.append(actor.remote(self._study, str(self._checkpoints), rank))
        self._thread = ThreadPoolExecutor(1)
        address = f"tcp://{ray.util.get_node_ip_address()}:{_free_port()}"
        joining = [mate.join.remote(address) for mate in self._mates]
        self._first(joining, _join, address, ProcessGroup(0, size), self._resources.gpus > 0)
        self.nodes = self._results([mate.node.remote() for mate in self._mates])

    def _first(self, others: Sequence[Any], work: Any, *given: Any) -> Any:
        """What ``work(*given)`` gives in the first worker's thread, while the others do their part."""
        assert self._thread is not None
        self._own = own = self._thread.submit(work, *given)
        while True:
            wait([own], timeout=LOOK_S)
            ended, _ = ray.wait(list(others), num_returns=len(others), timeout=0)
            failed = any(self._results(ended))
            if failed or (own.done() and own.exception()):
                raise self._trouble(own, others)
            if own.done():
                return own.result()

    def _trouble(self, own: "Future[Any]", others: Sequence[Any]) -> BaseException:
        """What is wrong: with the first, if it knows, else with another. Raises WorkerLost."""
        wait([own], timeout=GRACE_S)
        ended, _ = ray.wait(list(others), num_returns=len(others), timeout=GRACE_S)
        failures = [Failure(**one) for one in self._results(ended) if one]
        error = own.exception() if own.done() else None
        if error and (not failures or isinstance(error, (TrainingFailed, torch.OutOfMemoryError))):
            return error
        told = next((one for one in failures if one.kind != "error"), failures[0])  # others only noticed its end
        return Fault(told.kind, f"in another worker than the first: {told.message}")

    def _results(self, calls: Sequence[Any]) -> list[Any]:
        try:
            return list(ray.get(list(calls)))
        except ray.exceptions.RayActorError as error:
            raise WorkerLost(f"a worker of the trial is gone: {' '.join(str(error).split())}") from None

    def _dissolve(self) -> None:
        """Ends the others; the next trial gathers new ones."""
        for mate in self._mates:
            ray.kill(mate, no_restart=True)
        self._mates, self.nodes = [], ()
        if self._thread is None or self._own is None:
            return
        if distributed.is_initialized() and distributed.get_backend() == "nccl":
            distributed.distributed_c10d._abort_process_group()  # a GPU does not notice that the others ended
        self._thread.shutdown(wait=False)
        wait([self._own], timeout=GRACE_S)
        if self._own.done() and distributed.is_initialized():
            distributed.destroy_process_group()


class Mate:
    """A worker that trains when the first one does."""

    def __init__(self, study: Mapping[str, Any], checkpoints: str, rank: int) -> None:
        self._study, self._checkpoints = study_of_values(study), Path(checkpoints)
        self._group = ProcessGroup(rank, self._study.file.resources.workers)
        self._evaluator: Evaluator | None = None

    def node(self) -> str:
        """The id of its node."""
        return str(ray.get_runtime_context().get_node_id())

    def join(self, address: str) -> None:
        """Meets the others."""
        _join(address, self._group, self._study.file.resources.gpus > 0)

    def train(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """Its part of a trial's training; None, or the values of its failure."""
        task, resources = Task.from_dict(asked), self._study.file.resources
        try:
            self._evaluator = self._evaluator or Evaluator(
                self._study, self._checkpoints, device="cuda" if resources.gpus else "cpu",
                threads=max(1, math.floor(resources.cpus)), group=self._group)  # fmt: skip
            with Guard(self._study.allowance) as guard:
                for _row in guard.each(self._evaluator.epochs(task)):
                    pass
        except (Exception, SystemExit, Overrun) as error:
            return vars(failure_of(error))
        return None


def _join(address: str, group: ProcessGroup, gpus: bool) -> None:
    """The process group of all workers of a trial; with ``gpus`` each sees one GPU alone."""
    distributed.init_process_group("nccl" if gpus else "gloo", init_method=address, rank=group.rank,
                                   world_size=group.size, timeout=datetime.timedelta(seconds=SILENCE_S))  # fmt: skip


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])
