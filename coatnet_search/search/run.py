"""Runs a study's trials, on Ray Tune or one after another in this process -> the RUN's folder."""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coatnet_search.analysis.front import network_front
from coatnet_search.core.checks import safe_name
from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data.load import write_regimes
from coatnet_search.record.fold import RUNS, Event, Record, driver_lock, fold, hours_of, read_events, read_record
from coatnet_search.record.journal import write_json
from coatnet_search.record.mirror.mlflow import start_mirror
from coatnet_search.record.mirror.process import default_uri
from coatnet_search.search.evaluate import Evaluator, closing_reports
from coatnet_search.search.progress import Progress, SupernetProgress
from coatnet_search.search.ray.measure import ClusterMeasuring
from coatnet_search.search.ray.train import on_workers
from coatnet_search.search.ray.tune import joined, run_on_ray
from coatnet_search.search.session import Session
from coatnet_search.search.signals import stop_signals
from coatnet_search.search.supernet_run import STOP, needs_training, train_here, train_worker
from coatnet_search.search.task import Fault
from coatnet_search.study.audit_of_record import audited_record
from coatnet_search.study.audit_trials import check_audit
from coatnet_search.study.feasible import check_feasible
from coatnet_search.study.fork import check_source
from coatnet_search.study.fork import fork as copy_trials
from coatnet_search.study.load import load_study
from coatnet_search.study.planned_trials import PlannedTrial, planned, regime_sizes
from coatnet_search.study.run_folder import code_version, prepare_run
from coatnet_search.study.study import Study
from coatnet_search.supernet.folder import parts
from coatnet_search.supernet.rows import FOLDER as SUPERNET
from coatnet_search.supernet.rows import Row, read_supernet_rows
from coatnet_search.training.loop import TrainingFailed
from coatnet_search.training.measurements.conditions import MeasurementFailed

POLL_S = 0.5  # between looks at what a supernet's workers have done
MIRROR_GRACE_S = 20.0  # how long the end of a run waits for the mirror; the rest can be replayed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: its folder, trials by state (``finished``: without those ``stopped`` at a rung), whether work is
    left, why a scaling study is settled before all of its runs are done, which stop rule ended a search, and a line of
    the mirror's if it has one."""

    run: Path
    complete: bool
    finished: int
    failed: int
    wanted: int
    stopped: int = 0
    settled: str | None = None
    ended_early: str | None = None
    note: str | None = None


def run_study(study: Study | str | Path, local: bool = False, address: str | None = None, workers: int | None = None,
              minutes: float | None = None, *, sets: Sequence[str] = (), evaluator: str | None = None,
              fork: str | None = None, runs: Path = RUNS) -> Path:  # fmt: skip
    """Run or resume a study; the folder of its RUN. See ``run``."""
    checked = study if isinstance(study, Study) else load_study(study, sets, evaluator)
    return run(checked, local=local, address=address, workers=workers, minutes=minutes, fork=fork, runs=runs).run


def run(study: Study, *, local: bool = False, address: str | None = None, workers: int | None = None,
        minutes: float | None = None, fork: str | None = None, runs: Path = RUNS) -> Outcome:  # fmt: skip
    """Run or resume a study until it is complete, is interrupted, or ``minutes`` have passed.

    ``local``: in this process without Ray; else on a local Ray or the cluster at ``address``, at most ``workers``
    trials at once. ``fork``: under this name, started with what still holds of the record that the study has under its
    own. Raises InputError for another study in the folder, SetupError where data, devices or storage are
    not there or another driver holds the study.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    if local and study.file.resources.workers > 1:
        raise InputError(f"resources.workers is {study.file.resources.workers}, and --local has one process; leave "
                         "--local out, or --set resources.workers=1")  # fmt: skip
    if local or address is None:
        _check_machine(study)
    checked = study if study.summary else study.with_data()
    cells = planned(checked)  # what no run can meet is refused before anything is written
    loaded = _weights_of_peers(checked, cells)
    check_feasible(checked)
    check_audit(checked)
    source = runs / checked.name
    checked = dataclasses.replace(checked, name=safe_name(fork)) if fork else checked
    folder = runs / checked.name
    if storage := checked.checkpoint_storage():
        storage.check()
    if fork:
        check_source(source, folder)
    with driver_lock(folder):
        prepare_run(checked, runs)
        forked = copy_trials(checked, source, folder) if fork else None
        if checked.file.equal_cost:
            regimes = checked.file.regimes
            write_regimes(checked.file.data, regime_sizes(checked), regimes.draws, folder / "regimes")
        ray = nullcontext() if local else joined(address)
        with ray, Record(folder) as record:
            events = read_events(folder)
            session = Session(checked, folder, record, fold(events), cells, hours_of(events), here=local)
            session.notes += [*([forked] if forked else []), *_changed_code(events), *loaded]
            with _mirror(checked, folder) as mirror:
                if not session.searched and not _supernet_is_here(checked, folder, local, address, deadline):
                    session.stopping = True
                if not session.searched and not session.stopping:
                    _drive(session, folder, local, address, workers, mirror, deadline)
                if session.searched and session.unmeasured():
                    _measure_finished(session, folder, local, address, deadline)
                _tell_front(checked, folder)
        note = mirror.close(MIRROR_GRACE_S) if mirror else None
    failed = sum(trial.state == "failed" for trial in session.finished)
    stopped = sum(trial.state == "stopped" for trial in session.finished)
    return Outcome(run=folder, complete=session.complete, finished=len(session.finished) - stopped, failed=failed,
                   wanted=session.wanted, stopped=stopped, settled=session.settled,
                   ended_early=session.ended_early, note=note)  # fmt: skip


def _weights_of_peers(study: Study, cells: Sequence[PlannedTrial]) -> list[str]:
    """What is loaded into each peer that is fine-tuned, in words. Raises InputError where its weights do not fit."""
    peers = {cell.peer.label: cell.peer for cell in cells if cell.peer and cell.peer.weights}
    starts = {label: peer.started(drop_path=study.peer_recipe(peer).drop_path)[1] for label, peer in peers.items()}
    return [f"{label}: {'; '.join(start.sentences)}" for label, start in starts.items() if start]


def _drive(
    session: Session,
    folder: Path,
    local: bool,
    address: str | None,
    workers: int | None,
    mirror: Any,
    deadline: float | None,
) -> None:
    warning = mirror.warning if mirror else lambda: None
    if local:
        with Progress(session, 1, warning) as progress, stop_signals(session, deadline):
            _run_here(session, folder, progress)
    else:
        run_on_ray(session, folder, address, workers, deadline, lambda count: Progress(session, count, warning))


class _Training:
    """A supernet's training as ``stop_signals`` sees it, and what a person sees of it."""

    def __init__(self, epochs: int) -> None:
        self.stopping = False
        self._progress, self.epochs, self.done = SupernetProgress(epochs), epochs, 0

    def saw(self, row: Row) -> bool:
        """Shows an epoch; whether to stop after it."""
        self._progress.saw(row)
        self.done += 1
        return self.stopping


def _supernet_is_here(study: Study, folder: Path, local: bool, address: str | None, deadline: float | None) -> bool:
    """Whether the study's supernet is trained, which this does where it is still to do; false: it was told to stop."""
    if not needs_training(study, folder):
        return True
    spec, resources = study.file.supernet, study.file.resources
    assert spec is not None and spec.epochs is not None
    if local and spec.workers > 1:
        raise InputError(f"supernet.workers is {spec.workers}, and --local has one process; leave --local out, or "
                         "--set supernet.workers=1")  # fmt: skip
    training = _Training(spec.epochs)
    with stop_signals(training, deadline):
        try:
            if local:
                torch.set_num_threads(max(1, math.floor(resources.cpus)))
                train_here(study, folder, training.saw, torch.device("cuda" if resources.gpus else "cpu"))
            else:
                _train_on_ray(study, folder, address, training)
        except TrainingFailed as error:
            raise SetupError(f"the supernet: {error}") from None
    return not needs_training(study, folder) and not training.stopping


def _train_on_ray(study: Study, folder: Path, address: str | None, training: _Training) -> None:
    """Ray's workers train; this process shows the rows that they write, and tells them to stop by a file."""
    spec, resources, place = study.file.supernet, study.file.resources, (folder / SUPERNET).resolve()
    assert spec is not None
    place.mkdir(parents=True, exist_ok=True)
    (place / STOP).unlink(missing_ok=True)
    asked = {"study": study.values(), "run": str(folder.resolve())}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            on_workers(train_worker, asked, place, spec.workers, gpus=resources.gpus > 0, cpus=resources.cpus,
                       threads=max(1, math.floor(resources.cpus)), address=address)  # fmt: skip
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)  # Ray Train waits for its workers without looking at signals
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        rows = [row for name in parts(spec) for row in read_supernet_rows(folder / name)]
        for row in rows[training.done :]:
            training.saw(row)
        if training.stopping:
            (place / STOP).touch()
    (place / STOP).unlink(missing_ok=True)
    if failures:
        raise failures[0]


def _check_machine(study: Study) -> None:
    """Raises SetupError where this machine cannot hold one trial, before anything is written."""
    resources, gpus = study.file.resources, torch.cuda.device_count()
    if resources.gpus * resources.workers > gpus:
        raise SetupError(f"a trial asks for {resources.gpus * resources.workers:g} GPUs and torch sees {gpus} on this "
                         "machine; set resources.gpus to 0 to run on CPUs, or name a cluster by --address")  # fmt: skip
    if resources.cpus * resources.workers > usable_cores():
        raise SetupError(f"a trial asks for {resources.cpus * resources.workers:g} CPUs and this machine has "
                         f"{usable_cores()}; change resources.cpus, or name a cluster by --address")  # fmt: skip


def _changed_code(events: Sequence[Event]) -> list[str]:
    """A line where the trials so far were made by other code than this."""
    before = [event["code_version"] for event in events if "code_version" in event]  # a merge has none
    if not before or before[-1] == code_version():
        return []
    return [f"the code has changed since the last run of this study: {before[-1]} -> {code_version()} (recorded)"]


def _run_here(session: Session, folder: Path, progress: Progress) -> None:
    evaluator = _evaluator(session.study, folder, progress)
    while task := session.next():
        try:
            with closing_reports(evaluator.run(task)) as reports:
                for report in reports:
                    session.take(task, report)
                    progress.saw(task.number)
                    if session.stopping and report.state is None:
                        return session.leave(task)
        except BaseException:
            with contextlib.suppress(SetupError):  # where the record cannot be written, that is what is told
                session.leave(task)
            raise


def _evaluator(study: Study, folder: Path, progress: Progress) -> Evaluator:
    resources = study.file.resources
    device = "cuda" if resources.gpus else "cpu"
    return Evaluator(study, folder / "checkpoints", device, threads=max(1, math.floor(resources.cpus)),
                     watch=lambda _seconds, sentence: progress.say(sentence) if sentence else None)  # fmt: skip


def _measure_finished(session: Session, folder: Path, local: bool, address: str | None, deadline: float | None) -> None:
    """``measure_when: end``: the finished trials one after another, in this process or in a worker of the cluster with
    a trial's device. One that cannot be measured keeps its result, and its attributes say why."""
    with Progress(session, 1) as progress, stop_signals(session, deadline):
        device: Evaluator | ClusterMeasuring = (
            _evaluator(session.study, folder, progress) if local else ClusterMeasuring(session.study, folder, address)
        )
        for task in session.unmeasured():
            if session.stopping:
                return
            try:
                if not session.measure(task):
                    raise Fault("killed", "its process ended while it was measured, as often as faults.retries allows")
                metrics, attributes = device.measure(task)
            except (MeasurementFailed, Fault) as error:
                metrics, attributes = {}, {"conditions": {}, "not_measured": str(error)}
            session.measured(task, metrics, attributes)
            progress.saw(task.number)


@contextlib.contextmanager
def _mirror(study: Study, folder: Path) -> Iterator[Any]:
    tracking = study.file.tracking
    if not tracking.enabled:
        yield None
        return
    mirror = start_mirror(folder, tracking.uri or default_uri(folder), tracking.experiment or study.name)
    try:
        yield mirror
    except BaseException:
        mirror.close(0.0)
        raise


def _tell_front(study: Study, folder: Path) -> None:
    frame = read_record(folder)
    known = all(name in frame for name in study.file.objectives)  # no trial may have told what a user's trainer tells
    found = audited_record(frame, study.values())
    keys = list(network_front(found.frame if found else frame, study.file.objectives)["key"]) if known else []
    write_json(folder / "front.json", [str(key) for key in keys])  # what the mirror tags
