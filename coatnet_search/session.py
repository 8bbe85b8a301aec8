"""The driver's side of a search, whoever runs the trials: what comes next, what was reported, what is finished.

The record is the truth: a session is built from it, and everything that happens is appended to it at once. The
generator of trial n is seeded by (study seed, n), so a resumed search goes on as an uninterrupted one would.
"""

import contextlib
import dataclasses
import itertools
import os
import platform
import shutil
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coatnet_search.arch import TERMINAL, Failure, Trial
from coatnet_search.cells import Cell
from coatnet_search.errors import InputError, SetupError
from coatnet_search.evaluate import Report, Task
from coatnet_search.guard import GIB
from coatnet_search.ordering import Ordering
from coatnet_search.record import Record
from coatnet_search.strategies import make_strategy
from coatnet_search.study import Study, code_version, larger

REPLICATE = "replicate"  # attribute of a trial that is another's network and budget with another seed; and its origin
BREAKER = (
    4  # so many times ``faults.equal_failures`` trials in a row that fail alike end a search that went well before
)
TOO_LARGE = ("out_of_memory", "memory")  # kinds of failure that a larger network would share
SLOW = 5.0  # times the wall time that is usual for its cost: a straggler
LEAST_ALIKE, LEAST_S = 5, 0.1  # trials that say what is usual; shorter times say nothing


class Session:
    """Hands out the tasks of a study and keeps its record. One driver, one thread."""

    def __init__(self, study: Study, run: Path, record: Record, trials: Sequence[Trial], cells: Sequence[Cell]) -> None:
        self.study, self.run, self._record = study, run, record
        self.notes: list[str] = []  # what a person should be told once
        self.trials = {trial.number: trial for trial in trials if trial.number is not None}
        self.stopping = False
        self.exhausted = False
        self._waiting = deque(trial for trial in self.trials.values() if trial.state not in TERMINAL)
        self._planned = {cell.key(study): cell for cell in cells}
        known = {trial.key for trial in self.trials.values()}
        self._open = [key for key in self._planned if key not in known]
        self._order = Ordering(self._planned, study.file.settle)
        self._storage = study.checkpoint_storage()
        self._searches = study.file.equal_cost is None
        self._in_a_row: list[str] = []  # the failures since a trial last went well
        self._tries: Counter[int] = Counter()
        self._given: set[int] = set()  # the trials that are being run
        if self._searches:
            self._too_large: list[Mapping[str, float | None]] = []
            self._problem = study.problem()
            self._strategy = make_strategy(study.file.search.strategy, **study.file.search.options)
        record.append({"event": "session", "code_version": code_version(), "study": study.name,
                       "host": platform.node(), "pid": os.getpid()})  # fmt: skip

    @property
    def wanted(self) -> int:
        """How many trials the study is: those that it plans by itself, those of its search, and replicates of these."""
        asked = self.study.file.search.trials or 0
        lost = sum(trial.state in TERMINAL and trial.state != "done" for trial in self.candidates)
        return self._wanted_first + (self.study.file.replicates - 1) * max(0, asked - lost)

    @property
    def _wanted_first(self) -> int:
        asked = self.study.file.search.trials
        if self._searches:
            return len(self._planned) + (asked or 0)
        return len(self._planned) if asked is None else min(asked, len(self._planned))

    @property
    def candidates(self) -> list[Trial]:
        """The trials that the search proposed, in order of number."""
        return [trial for trial in self._first if trial.key not in self._planned]

    @property
    def _first(self) -> list[Trial]:
        """All trials but replicates, in order of number."""
        trials = (self.trials[number] for number in sorted(self.trials))
        return [trial for trial in trials if REPLICATE not in trial.attributes]

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.state in TERMINAL]

    @property
    def complete(self) -> bool:
        """Whether no work is left."""
        return self.searched and not self.unmeasured()

    @property
    def searched(self) -> bool:
        """Whether no trial is left to run."""
        ended = len(self.finished) == len(self.trials)
        first = sum(trial.state in TERMINAL for trial in self._first)
        tried = first >= self._wanted_first or (self.exhausted and ended)
        return tried and (self.study.file.replicates == 1 or (ended and not self._replicates()))

    def next(self) -> Task | None:
        """The next trial to run: an interrupted one, what the study plans, what its strategy proposes, a replicate of
        what is finished; None: none, or the disk has no room before a running one ends. Raises SetupError where it has
        none and nothing runs."""
        if self.stopping or not self._has_disk():
            return None
        task = self._next()
        if task is not None:
            self._given.add(task.number)
        return task

    def _next(self) -> Task | None:
        if self._waiting:
            return self._task(self._waiting.popleft())
        if len(self._first) < self._wanted_first and not self.exhausted:
            task = self._plan() if self._open else self._propose() if self._searches else None
            if task is not None or not self.exhausted:
                return task
        left = self._replicates()
        return self._start(left[0], REPLICATE) if left else None

    def _has_disk(self) -> bool:
        short = self._short_of_disk()
        if short and not self._given:
            raise SetupError(f"{short}; free some space and run again: the search goes on")
        return short is None

    def _short_of_disk(self) -> str | None:
        faults, folder = self.study.file.faults, self.run / "checkpoints"
        free = shutil.disk_usage(self.run).free / GIB
        if free < faults.reserve_gib:
            return f"{free:.2f} GiB are free for {self.run}, and faults.reserve_gib keeps {faults.reserve_gib:g}"
        if faults.checkpoints_gib is None or not folder.is_dir():
            return None
        taken = sum(file.stat().st_size for file in folder.rglob("*.safetensors") if file.is_file()) / GIB
        if taken < faults.checkpoints_gib:
            return None
        return f"{folder} takes {taken:.2f} GiB, and faults.checkpoints_gib allows {faults.checkpoints_gib:g}"

    def _replicates(self) -> list[Cell]:
        """What is to be trained again: each finished candidate with the seeds after its own, a seed at a time."""
        known = {trial.key for trial in self.trials.values()}
        done = [trial for trial in self.candidates if trial.state == "done"]
        cells = [self._again(trial, more) for more in range(1, self.study.file.replicates) for trial in done]
        return [cell for cell in cells if cell.key(self.study) not in known]

    def _again(self, trial: Trial, more: int) -> Cell:
        budget = trial.budget or self.study.budget
        arch = trial.arch or self.study.space.decode(trial.candidate)
        return Cell(arch=arch, budget=dataclasses.replace(budget, seed=budget.seed + more), candidate=trial.candidate,
                    attributes={REPLICATE: more, "of": trial.number})  # fmt: skip

    def _plan(self) -> Task | None:
        key = self._order.next(self._open, self.trials.values())
        if key is None:
            self.exhausted = self._order.settled
            return None
        self._open.remove(key)
        return self._start(self._planned[key], "planned")

    @property
    def settled(self) -> str | None:
        """Why no more runs are needed, where the study asked for no more than that."""
        return self._order.answer.reason if self._order.answer and self._order.settled else None

    def _propose(self) -> Task | None:
        self._constrain()
        rng = np.random.default_rng([self.study.file.search.seed, self._free_number()])
        proposed = self._strategy.suggest(self._problem, self.candidates, rng, 1)
        if not proposed:
            self.exhausted = True
            return None
        arch = self.study.space.decode(proposed[0])
        cell = Cell(arch=arch, budget=self.study.budget, candidate=proposed[0], attributes=proposed[0].attributes)
        return self._start(cell, self.study.file.search.strategy)

    def _constrain(self) -> None:
        """Networks that ran out of memory bound what is proposed, as far as no larger one was trained all the same."""
        ended = [trial for trial in self.finished if not trial.attributes.get("peer")]
        done = [trial.metrics for trial in ended if trial.state == "done"]
        failed = [trial.metrics for trial in ended if trial.failure and trial.failure.kind in TOO_LARGE]
        too_large = [one for one in failed if not any(larger(other, one) for other in done)]
        if too_large != self._too_large:
            self._too_large = too_large
            self._problem = self.study.problem(too_large)

    def _start(self, cell: Cell, origin: str) -> Task:
        number = self._free_number()
        arch = None if cell.peer else cell.arch
        trial = Trial(
            dict(cell.candidate), cell.metrics(), "running", number=number, key=cell.key(self.study),
            arch=arch, budget=cell.budget, attributes=dict(cell.attributes),
        )  # fmt: skip
        self.trials[number] = trial
        self._record.append({
            "event": "started", "number": number, "key": trial.key, "candidate": trial.candidate,
            "arch": arch.to_dict() if arch else None, "arch_id": arch.id if arch else None, "layout": cell.layout,
            "budget": dataclasses.asdict(cell.budget), "metrics": trial.metrics, "attributes": trial.attributes,
            "origin": origin,
        })  # fmt: skip
        return self._task(trial)

    def _free_number(self) -> int:
        return next(number for number in itertools.count() if number not in self.trials)

    def _task(self, trial: Trial) -> Task:
        peer = trial.attributes.get("peer")
        if peer and trial.key not in self._planned:
            raise InputError(f"trial {trial.number} is of {peer}, which the study no longer names; name it again")
        arch = self._planned[str(trial.key)].arch if peer else trial.arch or self.study.space.decode(trial.candidate)
        assert trial.number is not None
        return Task(number=trial.number, key=trial.key or self.study.key(arch), arch=arch,
                    budget=trial.budget or self.study.budget, candidate=dict(trial.candidate), peer=peer)  # fmt: skip

    def take(self, task: Task, report: Report) -> None:
        """A report of a running trial; its last one has a state. Raises SetupError where all trials fail alike."""
        trial = self.trials[task.number]
        if report.state is None and report.metrics in trial.curve:  # told again by a training that goes on
            return
        if report.state is None:
            curve = (*(e for e in trial.curve if e.get("epoch") != report.metrics.get("epoch")), report.metrics)
            self.trials[task.number] = dataclasses.replace(trial, state="running", curve=curve)
            self._record.append({"event": "report", "number": task.number, "key": task.key, "metrics": report.metrics})
            return
        self._given.discard(task.number)
        slow = self._slowness(trial, report)
        added = {**report.attributes, **({"slow": slow} if slow else {})}
        self.trials[task.number] = dataclasses.replace(
            trial, metrics={**trial.metrics, **report.metrics}, state=report.state, failure=report.failure,
            device=report.device, timings=report.timings, attributes={**trial.attributes, **added},
        )  # fmt: skip
        self._record.append({
            "event": "terminal", "number": task.number, "key": task.key, "state": report.state,
            "metrics": report.metrics, "failure": dataclasses.asdict(report.failure) if report.failure else None,
            "device": report.device, "timings": report.timings, "attributes": added,
        })  # fmt: skip
        shutil.rmtree(self.run / "checkpoints" / task.key, ignore_errors=True)  # a final trial needs no resuming
        if self._storage:
            with contextlib.suppress(SetupError):  # what is left there harms nothing
                self._storage.forget(task.key)
        self._check_failures(self.trials[task.number])

    def _slowness(self, trial: Trial, report: Report) -> float | None:
        """How many times as long a straggler took as is usual for what it costs; None for any other trial."""
        alike = [one for one in self.finished if one.state == "done" and one.budget == trial.budget
                 and one.timings.get("wall_s") and one.metrics.get("macs")]  # fmt: skip
        if report.state != "done" or len(alike) < LEAST_ALIKE or trial.state in TERMINAL:
            return None
        usual = float(np.median([one.timings["wall_s"] for one in alike]))
        usual_macs = float(np.median([one.metrics["macs"] or 0.0 for one in alike]))
        costlier = max(1.0, (report.metrics.get("macs") or 0.0) / usual_macs)
        times = report.timings.get("wall_s", 0.0) / max(usual * costlier, LEAST_S)
        return round(times, 1) if times > SLOW else None

    def interrupted(self, task: Task, failure: Failure, counts: bool) -> None:
        """The process of a running trial is gone: the trial waits to go on from its last checkpoint, unless that has
        been tried often enough. ``counts``: whether it is the trial that may be to blame, not a node that was lost."""
        self._given.discard(task.number)
        self._tries[task.number] += counts
        if self._tries[task.number] > self.study.file.faults.retries:
            self.take(task, Report(metrics={}, state="failed", failure=failure))
            return
        self._record.append({"event": "interrupted", "number": task.number, "key": task.key,
                             "failure": dataclasses.asdict(failure), "counts": counts})  # fmt: skip
        self._waiting.appendleft(self.trials[task.number])

    def unmeasured(self) -> list[Task]:
        """The finished trials whose measuring was left for the end."""
        file = self.study.file
        if file.measure_when != "end" or not file.measure:
            return []
        left = [trial for trial in self.finished if trial.state == "done" and "conditions" not in trial.attributes]
        return [self._task(trial) for trial in left]

    def measured(self, task: Task, metrics: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """What was measured of a finished trial: its last event again, with more in it."""
        trial = self.trials[task.number]
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self.take(task, Report(metrics={**known, **metrics}, state=trial.state, device=trial.device,
                               timings=trial.timings, attributes=attributes))  # fmt: skip

    def _check_failures(self, trial: Trial) -> None:
        """Ends a search in which nothing works (the first trials are its canary), or no longer works."""
        if trial.state != "failed":
            self._in_a_row.clear()
            return
        self._in_a_row.append(str(trial.failure))
        allowed = self.study.file.faults.equal_failures
        failures = Counter(str(trial.failure) for trial in self.finished if trial.failure)
        (common, count), last = failures.most_common(1)[0], self._in_a_row[-BREAKER * allowed :]
        spent = sum(trial.timings.get("wall_s", 0.0) for trial in self.finished) / 3600
        if count >= allowed and all(trial.state == "failed" for trial in self.finished):
            raise SetupError(f"the first {count} trials failed alike ({common}); stopped after "
                             f"{spent:.2f} device-hours. Mend the cause and remove {self.run}")  # fmt: skip
        if len(last) == BREAKER * allowed and len(set(last)) == 1:
            raise SetupError(f"the last {len(last)} trials failed alike ({last[0]}); stopped after "
                             f"{spent:.2f} device-hours. Mend the cause and run again: the search goes on")  # fmt: skip
