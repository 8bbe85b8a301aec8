"""Runs a session's trials with Ray Tune: joins or starts Ray, checks its resources, moves reports.

The record resumes a study, so nothing of Ray Tune is restored: its own state goes to a folder that is thrown away.
Actors are reused, so a trial does not import torch again; how many run at once is capped where candidates are
suggested. A trial whose process died, or whose node is lost, goes back to the session, which starts it again from its
last checkpoint on whatever node there is: Tune itself retries nothing. Where several workers train a trial, its actor
is the first of them; ``team.py`` has the others, in further bundles of its placement group.
"""

import contextlib
import json
import logging
import math
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.trial import TERMINAL, Failure
from coatnet_search.search.evaluate import Evaluator
from coatnet_search.search.progress import Progress
from coatnet_search.search.ray.last_words import last_words
from coatnet_search.search.ray.nodes import Room, answers, bundle, check_nodes
from coatnet_search.search.ray.team import Team, WorkerLost
from coatnet_search.search.session import Session
from coatnet_search.search.signals import stop_signals
from coatnet_search.search.task import Report, Task
from coatnet_search.study.load import study_of_values
from coatnet_search.training.process_group import ProcessGroup

HARD_GRACE_S = 20.0  # after the limit that a trial keeps by itself, until its process is killed
REACH_S = 5.0  # for a cluster to answer
WAITING = "coatnet-search/waiting/"  # before a trial's name among Ray's own keys: what its process tells meanwhile
WAITING_LOOK_S = 1.0
STOP_GRACE_S = 30.0  # for running epochs to end, once a search is to stop
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record is the log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours lets epochs end
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000000",  # its experiment state is never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_process_group_cleanup_enabled": "1",  # what a worker started ends with it, however it ends
}


def run_on_ray(session: Session, folder: Path, address: str | None, workers: int | None, deadline: float | None,
               show: Callable[[int], Progress]) -> None:  # fmt: skip
    """Run a session's trials with Ray Tune, at most ``workers`` at once (default: as many as the resources allow).

    Raises SetupError where the cluster cannot hold one trial.
    """
    resources = session.study.file.resources
    with joined(address), tempfile.TemporaryDirectory(prefix="coatnet-search-tune-") as scratch:
        room = Room(resources, workers, elastic=address is not None)
        check_nodes(folder, session.study.file.data.path, session.study.checkpoint_storage())
        with show(room.now()) as progress, stop_signals(session, deadline):
            driver = _Driver(session, progress, room)
            checkpoints = str((folder / "checkpoints").resolve())
            paths = sys.path if session.study.evaluator else []  # where a user's own trainer lies
            trainable = tune.with_parameters(
                TrialActor, study=session.study.values(), checkpoints=checkpoints, paths=paths
            )
            tuner = tune.Tuner(
                tune.with_resources(trainable, tune.PlacementGroupFactory([bundle(resources)] * resources.workers)),
                tune_config=tune.TuneConfig(
                    search_alg=_Proposals(driver),
                    num_samples=-1,  # the session says when it is enough
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[_Events(driver)],
                    stop=_Stop(driver),
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            )
            _hush()  # ray.init has set its own levels
            tuner.fit()
            if driver.error:
                raise driver.error


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """A Ray of our own on this machine, or the cluster at ``address``; one that is running already is used."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _SETTINGS.items()})
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    _hush()
    try:
        if address:
            _reach(address)
            ray.init(address=address, **options)
        else:
            # "local": without it Ray joins whichever cluster was last started on this machine
            ray.init(address="local", include_dashboard=False, num_cpus=usable_cores(), **options)
    except SetupError:
        raise
    except Exception as error:  # what does not start in time is a plain one
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SetupError(f"Ray did not start{f' at {address}' if address else ''}: {first}") from None
    try:
        with last_words(os.getpid()):
            yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises SetupError at once where nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # ``auto``: Ray's own error comes at once
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise SetupError(f"no Ray at {address}: {error.strerror or error}; start one with `ray start --head`") from None


def _hush() -> None:
    """What a user needs to know of Ray's doings is said by us, once, and the record has each trial's cause."""
    for name in ("ray", "ray.tune", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


_NODE_LOST = ("node has died", "node was preempted", "node is dead", "node died")


@dataclass
class _Live:
    """A trial that has a process: when it began and last reported (of ``time.monotonic``), why it was killed, where it
    is."""

    trial: TuneTrial
    begin: float
    reported: float = 0.0
    overrun: str | None = None
    waited: float = 0.0  # seconds for which its process had waited for its device when it last reported
    said: str = ""  # of whom it waits for
    nodes: Sequence[str] = ()  # where its processes are; none before it reported

    def __post_init__(self) -> None:
        self.reported = self.begin


def _cause(error: str | None, nodes_there: bool = True) -> tuple[Failure, bool]:
    """Why a trial's process is gone, and whether that counts against the trial: a lost node does not. ``error``: what
    Ray said; ``nodes_there``: whether the nodes of its processes still answer, which Ray may not know yet."""
    text = " ".join(error.split()) if error else "its process ended without a final report"
    if not nodes_there or any(mark in text for mark in _NODE_LOST):
        return Failure(kind="lost", message=text[:500]), False
    return Failure(kind="killed", message=text[:500]), True


def _said(trial: TuneTrial) -> str | None:
    """Ray's error of a trial whose process is gone, without Tune's heading."""
    path = trial.error_file
    return path and Path(path).read_text(encoding="utf-8", errors="replace").partition("\n")[2].strip()


def _waiting(trial_id: str) -> tuple[float, str]:
    """Seconds for which a trial's process has waited for its device, as far as it has told, and for whom."""
    told = _internal_kv_get(f"{WAITING}{trial_id}")
    return tuple(json.loads(told)) if told else (0.0, "")


class _Driver:
    """What the three hooks of Ray Tune share: the session, and which of Tune's trials is which task."""

    def __init__(self, session: Session, progress: Progress, room: Room) -> None:
        self.session, self._progress, self._room = session, progress, room
        self._tasks: dict[str, Task] = {}
        self._live: dict[str, _Live] = {}
        self._stopped_at: float | None = None
        self._looked = 0.0
        self.error: SetupError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self._tasks) >= self._room.now():
            return None
        try:
            task = self.session.next()
        except SetupError as error:  # no disk, for one
            self.error, self.session.stopping = error, True
            task = None
        if task is None:
            return None if self._tasks else Searcher.FINISHED
        self._tasks[trial_id] = task
        # the task as one text: Tune flattens and copies what is nested
        return {"task": json.dumps(task.to_dict()), "trial": trial_id}

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        task = self._tasks.get(trial_id)
        if task is None or "report" not in result:
            return
        if trial_id in self._live:
            live = self._live[trial_id]
            live.reported, live.nodes, live.waited = time.monotonic(), result["nodes"], result["waited"]
        report = _report(json.loads(result["report"]))
        if report.state is not None:
            del self._tasks[trial_id]
            self._live.pop(trial_id, None)
        self._take(task, report)

    def started(self, trial: TuneTrial) -> None:
        """A process has been given to a trial."""
        self._live[trial.trial_id] = _Live(trial, time.monotonic())

    def ended(self, trial_id: str) -> None:
        """Tune is done with a trial: with one that gave its last report, or that is to stop."""
        self._live.pop(trial_id, None)
        task = self._tasks.pop(trial_id, None)
        if task is not None and not self.session.stopping:
            self._lost(task, Failure(kind="killed", message="its process ended without a final report"), counts=True)

    def died(self, trial: TuneTrial) -> None:
        """The process of a trial is gone."""
        live, task = self._live.pop(trial.trial_id, None), self._tasks.pop(trial.trial_id, None)
        if task is None or (self.session.stopping and not (live and live.overrun)):
            return
        if live and live.overrun:
            failure = Failure(kind="timeout", message=f"{live.overrun}; it did not end by itself and was killed")
            self._take(task, Report(metrics={}, state="failed", failure=failure,
                                    timings={"wall_s": round(time.monotonic() - live.begin, 3)}))  # fmt: skip
        else:
            failure, counts = _cause(_said(trial), live is None or all(answers(node) for node in live.nodes))
            self._lost(task, failure, counts)

    def _lost(self, task: Task, failure: Failure, counts: bool) -> None:
        try:
            self.session.interrupted(task, failure, counts)
        except SetupError as error:
            self.error, self.session.stopping = error, True
        if self.session.trials[task.number].state in TERMINAL:
            self._progress.saw(task.number)

    def kill_overdue(self) -> None:
        """Kills the process of a trial that broke a limit of time and did not end by itself."""
        allowance, moment = self.session.study.allowance, time.monotonic()
        if moment - self._looked < WAITING_LOOK_S:
            return
        self._looked = moment
        for live in self._live.values():
            waited, sentence = _waiting(live.trial.trial_id)
            if sentence and sentence != live.said:
                live.said = sentence
                self._progress.say(f"trial {self._tasks[live.trial.trial_id].number} is {sentence}")
            silent = moment - live.reported - max(0.0, waited - live.waited)
            overrun = allowance.broken(moment - live.begin - waited - HARD_GRACE_S, silent - HARD_GRACE_S, 0)
            if overrun and not live.overrun and live.trial.temporary_state.ray_actor is not None:
                live.overrun = str(overrun)
                ray.kill(live.trial.temporary_state.ray_actor, no_restart=True)

    def _take(self, task: Task, report: Report) -> None:
        try:
            self.session.take(task, report)
        except SetupError as error:
            self.error, self.session.stopping = error, True
        self._progress.saw(task.number)

    def overdue(self) -> bool:
        """Whether running epochs had their time to end after a stop."""
        if self.session.stopping and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_GRACE_S


class _Unpickled:
    """Tune pickles its hooks into a state that nobody restores; the driver stays behind."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Proposals(_Unpickled, Searcher):
    def __init__(self, driver: _Driver) -> None:
        super().__init__(metric=None, mode=None)
        self._driver = driver

    def suggest(self, trial_id: str) -> Any:
        return self._driver.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback below has it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record is the state."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search is resumed from its record")


class _Events(_Unpickled, tune.Callback):
    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def on_trial_result(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any],
                        **info: Any) -> None:  # fmt: skip
        self._driver.report(trial.trial_id, result)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._driver.started(trial)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._driver.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._driver.died(trial)


class _Stop(_Unpickled, tune.Stopper):
    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._driver.session.stopping

    def stop_all(self) -> bool:
        self._driver.kill_overdue()
        return self._driver.overdue()


class TrialActor(tune.Trainable):
    """A worker process: holds the data of one study and runs its trials one after another, an epoch a step."""

    def setup(
        self, config: dict[str, Any], study: Mapping[str, Any], checkpoints: str, paths: Sequence[str] = ()
    ) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._study, self._checkpoints = study_of_values(study), Path(checkpoints)
        self._evaluator: Evaluator | None = None
        resources = self._study.file.resources
        self._team = Team(study, self._checkpoints, resources) if resources.workers > 1 else None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial, self._waited, self._said = new_config["trial"], self._waited_s(), ""
        self._reports = self._run(Task.from_dict(json.loads(new_config["task"])))
        return True

    def _waited_s(self) -> float:
        return self._evaluator.waited_s() if self._evaluator else 0.0

    def _watch(self, seconds: float, sentence: str) -> None:
        """Tells the driver, which hears of a trial once an epoch only, that this one waits for its device."""
        self._said = sentence or self._said
        _internal_kv_put(f"{WAITING}{self._trial}", json.dumps([seconds - self._waited, self._said]))

    def _run(self, task: Task) -> Iterator[Report]:
        resources = self._study.file.resources
        try:
            self._evaluator = self._evaluator or Evaluator(
                self._study,
                self._checkpoints,
                device="cuda" if resources.gpus else "cpu",
                threads=max(1, math.floor(resources.cpus)),
                group=ProcessGroup(0, resources.workers),
                together=self._team.rows if self._team else None,
                watch=self._watch,
            )
        except (InputError, SetupError) as error:  # this node lacks what the driver's has
            failure = Failure(kind="setup", message=f"{platform.node()}: {error}")
            yield Report(metrics={}, state="failed", failure=failure)
            return
        yield from self._evaluator.run(task)

    def step(self) -> dict[str, Any]:
        try:
            report = next(self._reports)
        except WorkerLost as lost:
            raise RuntimeError(str(lost)) from None
        nodes = [ray.get_runtime_context().get_node_id(), *(self._team.nodes if self._team else ())]
        return {"report": json.dumps(_report_values(report)), "done": report.state is not None, "nodes": nodes,
                "waited": self._waited_s() - self._waited}  # fmt: skip


def _report_values(report: Report) -> dict[str, Any]:
    return {"metrics": dict(report.metrics), "state": report.state, "device": report.device,
            "timings": dict(report.timings), "attributes": dict(report.attributes),
            "failure": vars(report.failure) if report.failure else None}  # fmt: skip


def _report(value: dict[str, Any]) -> Report:
    failure = Failure(**value["failure"]) if value["failure"] else None
    return Report(**{**value, "failure": failure})
