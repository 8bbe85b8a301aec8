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
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from coatnet_search.alarms import Breaker, short_of_disk, slowness
from coatnet_search.analyse import AUDIT
from coatnet_search.arch import TERMINAL, Failure, Trial
from coatnet_search.audit_trials import DRAWN, AuditPlan
from coatnet_search.cells import Cell
from coatnet_search.enough import little_to_gain, spent
from coatnet_search.errors import InputError, SetupError
from coatnet_search.evaluate import Report, Task
from coatnet_search.halving import RUNG
from coatnet_search.ordering import Ordering
from coatnet_search.record import Record
from coatnet_search.replicates import REPLICATE, Replicates
from coatnet_search.run_folder import code_version
from coatnet_search.strategies import make_strategy
from coatnet_search.study import Study, larger
from coatnet_search.tuning import TUNE, TUNED, best_values

BASELINE = "baseline"  # attribute and origin of a trial that is drawn at random for comparison with the search
TOO_LARGE = ("out_of_memory", "memory")  # kinds of failure that a larger network would share


class Session:
    """Hands out the tasks of a study and keeps its record. One driver, one thread."""

    def __init__(self, study: Study, run: Path, record: Record, trials: Sequence[Trial], cells: Sequence[Cell],
                 hours: float = 0.0) -> None:  # fmt: skip
        """``hours``: for which earlier sessions ran."""
        self.study, self.run, self._record = study, run, record
        self._hours, self._begun = hours, time.monotonic()
        self.notes: list[str] = []  # what a person should be told once
        self.trials = {trial.number: trial for trial in trials if trial.number is not None}
        self.stopping = False
        self.exhausted = self._all_drawn = False  # no candidate is left for the search, for the baseline
        self._waiting = deque(trial for trial in self.trials.values() if trial.state not in (*TERMINAL, "paused"))
        self._weighed = False  # whether it has been decided who goes on, since a trial last changed
        self._again = Replicates(study)
        self._breaker = Breaker(study.file.faults.equal_failures, run, study.file.resources)
        self._planned = {cell.key(study): cell for cell in cells}
        known = {trial.key for trial in self.trials.values()}
        self._open = [key for key in self._planned if key not in known]
        self._tuned: dict[tuple[str, int | None], dict[str, float]] = {}  # by layout and images: what sweeps found
        self._order = Ordering(self._planned, study.file.settle)
        self._storage = study.checkpoint_storage()
        self._audit = AuditPlan(study) if study.file.audit else None
        self._searches = study.file.equal_cost is None
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
        """How many trials the study is: those that it plans by itself, those of its search, replicates of these, as
        far as they are known, and those of its audit; of a search that has ended early those that it has."""
        again = len(self.trials) - len(self._first) - len(self._baseline) + len(self._replicates())
        first = len(self._first) if self.ended_early else self._wanted_first
        return again + first + (self.study.file.search.baseline if self._searches else 0) + self._audits_left

    @property
    def _audits_left(self) -> int:
        """Trainings alone that are not begun: all of them, where the search is not over."""
        spec = self.study.file.audit
        return len(self._for_audit()) if spec is None or self._over else spec.candidates * spec.seeds

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
        """All trials but replicates, the baseline and those of the audit, in order of number."""
        apart = {REPLICATE, BASELINE, AUDIT, DRAWN}
        return [trial for trial in self._ordered if not apart & set(trial.attributes)]

    @property
    def _ordered(self) -> list[Trial]:
        return [self.trials[number] for number in sorted(self.trials)]

    @property
    def _baseline(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if BASELINE in trial.attributes]

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
        left = {trial.number for trial in self._waiting} if self._spent else set()
        if any(trial.state not in (*TERMINAL, "paused") and trial.number not in left for trial in self.trials.values()):
            return False
        if self._spent:
            return True
        ended = len(self.finished) == len(self.trials)
        return ended and not (self._may_start or self._may_compare or self._replicates() or self._for_audit())

    @property
    def ended_early(self) -> str | None:
        """Which of the study's stop rules left work undone, in words."""
        paused = any(trial.state == "paused" for trial in self.trials.values())
        left = paused or len(self._first) < self._wanted_first or self._waiting or self._replicates()
        left = left or self._for_audit()
        return (self._spent or self._little_to_gain) if left else None

    @property
    def _spent(self) -> str | None:
        file = self.study.file
        hours = self._hours + (time.monotonic() - self._begun) / 3600
        return spent(file.stop, list(self.trials.values()), file.resources, hours)

    @property
    def _little_to_gain(self) -> str | None:
        file = self.study.file
        return little_to_gain(file.stop.hypervolume_gain, self.candidates, file.objectives)

    def next(self) -> Task | None:
        """The next trial to run: an interrupted one, what the study plans, what its strategy proposes, a replicate of
        what is finished, one of the audit; None: none, or the disk has no room before a running one ends. Raises
        SetupError where it has none and nothing runs."""
        if self.stopping or self._spent or not self._has_disk():
            return None
        task = self._next()
        if task is not None:
            self._given.add(task.number)
        return task

    def _next(self) -> Task | None:
        if self._waiting:
            return self._task(self._waiting.popleft())
        return (
            self._go_on() or self._new() or self._go_on() or self._compare() or self._replicate() or self._train_alone()
        )

    def _new(self) -> Task | None:
        """What the study plans, then what its strategy proposes."""
        if not self._may_start:
            return None
        return self._plan() if self._open else self._propose() if self._searches else None

    @property
    def _may_start(self) -> bool:
        more = len(self._first) < self._wanted_first and not self.exhausted
        return more and self._little_to_gain is None

    def _go_on(self) -> Task | None:
        """The paused trial that goes on to its next rung; those that nothing can bring further are stopped."""
        halving = self.study.halving
        if halving is None or self._weighed:
            return None
        decision = halving.decide(self.candidates, all_started=not self._may_start)
        for hopeless in decision.stop:
            self._stop(hopeless)
        trial, self._weighed = decision.go_on, decision.go_on is None
        if trial is None:
            return None
        rung = trial.attributes[RUNG] + 1
        attributes = {RUNG: rung, "went_on": [*trial.attributes.get("went_on", []), decision.reason]}
        shown = trial.curve[-1] if trial.curve else {}
        lasting = {name: value for name, value in trial.metrics.items() if name not in shown and name != "error"}
        going = dataclasses.replace(trial, state="running", metrics=lasting,
                                    attributes={**trial.attributes, **attributes})  # fmt: skip
        self.trials[self._number(trial)] = going
        self._record.append({"event": "continued", "number": trial.number, "key": trial.key, "metrics": lasting,
                             "attributes": attributes, "chance_of_layout": decision.chance})  # fmt: skip
        return self._task(going)

    def _stop(self, trial: Trial) -> None:
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self._end(trial, Report(metrics=known, state="stopped", device=trial.device))

    def _compare(self) -> Task | None:
        """A random candidate that no trial has, for comparison."""
        if self._may_start or not self._may_compare:
            return None
        rng = np.random.default_rng([self.study.file.search.seed, len(self._baseline), 1])
        drawn = make_strategy("random").suggest(self._problem, list(self.trials.values()), rng, 1)
        if not drawn:
            self._all_drawn = True
            return None
        arch = self.study.space.decode(drawn[0])
        cell = Cell(arch=arch, budget=self.study.budget, candidate=drawn[0], attributes={BASELINE: True})
        return self._start(cell, BASELINE)

    @property
    def _may_compare(self) -> bool:
        return self._searches and len(self._baseline) < self.study.file.search.baseline and not self._all_drawn

    def _replicate(self) -> Task | None:
        left = [] if self._may_start else self._replicates()
        return self._start(left[0], REPLICATE) if left else None

    @property
    def _over(self) -> bool:
        """Whether all that comes before the audit has ended."""
        apart = {AUDIT, DRAWN}
        ended = all(trial.state in TERMINAL or apart & set(trial.attributes) for trial in self.trials.values())
        return ended and not (self._may_start or self._may_compare or self._replicates())

    def _train_alone(self) -> Task | None:
        """What the audit runs next, after it has taken over what other records have."""
        if self._audit is None or not self._over:
            return None
        for trial in self._audit.elsewhere(self._ordered):
            self._copy(trial)
        left = self._for_audit()
        return self._start(left[0], AUDIT) if left else None

    def _for_audit(self) -> list[Cell]:
        return self._audit.left(self._ordered) if self._audit and self._over else []

    def _copy(self, trial: Trial) -> None:
        """A finished training of another record, as a trial of this one."""
        assert trial.arch is not None and trial.budget is not None
        cell = Cell(arch=trial.arch, budget=trial.budget, candidate=trial.candidate, attributes=trial.attributes)
        begun = self._begin(self._free_number(), cell, str(trial.key), AUDIT)
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self._end(begun, Report(metrics=known, state="done", device=trial.device, timings=trial.timings))

    def _has_disk(self) -> bool:
        short = short_of_disk(self.run, self.study.file.faults)
        if short and not self._given:
            raise SetupError(f"{short} and run again: the search goes on")
        return short is None

    @property
    def _pending(self) -> bool:
        """Whether a candidate has not ended: replicates are of what the whole search found."""
        return any(trial.state not in TERMINAL for trial in self._first)

    def _replicates(self) -> list[Cell]:
        if self._pending:
            return []
        return self._again.left(self.candidates, list(self.trials.values()), len(self.finished))

    def _plan(self) -> Task | None:
        ready = [key for key in self._open if self._values(self._planned[key]) is not None]
        if not ready:
            return None  # the sweeps that tune what is left are running
        key = self._order.next(ready, self.trials.values())
        if key is None:
            self.exhausted = self._order.settled
            return None
        self._open.remove(key)
        return self._start(self._planned[key], "planned")

    def _values(self, cell: Cell) -> dict[str, float] | None:
        """What replaces values of the recipe, of a cell that a sweep tunes; None until that has ended."""
        spec, place = self.study.file.tune, (cell.layout, cell.budget.num_images)
        if not cell.tuned or spec is None:
            return {}
        if place not in self._tuned:
            found = best_values(self.trials.values(), *place, spec, dataclasses.asdict(self.study.recipe))
            if found is None:
                return None
            self._tuned[place] = found
        return self._tuned[place]

    @property
    def settled(self) -> str | None:
        """Why no more runs are needed, where the study asked for no more than that."""
        return self._order.answer.reason if self._order.answer and self._order.settled else None

    def _propose(self) -> Task | None:
        self._constrain()
        rng = np.random.default_rng([self.study.file.search.seed, self._free_number()])
        halving = self.study.halving
        taken = [Trial(trial.candidate, state="stopped") for trial in self._baseline]  # what they showed is not told
        drawn = [trial for trial in self._ordered if DRAWN in trial.attributes]  # scored as its own candidates are
        history = [*(halving.shown(self.candidates) if halving else self.candidates), *drawn, *taken]
        proposed = self._strategy.suggest(self._problem, history, rng, 1)
        if not proposed:
            self.exhausted = True
            return None
        arch = self.study.space.decode(proposed[0])
        attributes = {**proposed[0].attributes, **({RUNG: 0} if halving else {})}
        cell = Cell(arch=arch, budget=self.study.budget, candidate=proposed[0], attributes=attributes)
        return self._start(cell, self.study.file.search.strategy)

    def _constrain(self) -> None:
        """Networks that ran out of memory bound what is proposed, as far as no larger one was trained all the same."""
        ended = [trial for trial in self.finished if not {"peer", AUDIT} & set(trial.attributes)]
        done = [trial.metrics for trial in ended if trial.state == "done"]
        failed = [trial.metrics for trial in ended if trial.failure and trial.failure.kind in TOO_LARGE]
        too_large = [one for one in failed if not any(larger(other, one) for other in done)]
        if too_large != self._too_large:
            self._too_large = too_large
            self._problem = self.study.problem(too_large)

    def _start(self, cell: Cell, origin: str) -> Task:
        return self._task(self._begin(self._free_number(), cell, cell.key(self.study), origin))

    def _begin(self, number: int, cell: Cell, key: str, origin: str) -> Trial:
        arch = None if cell.peer else cell.arch
        tuned = {TUNED: self._values(cell)} if cell.tuned else {}
        trial = Trial(
            dict(cell.candidate), cell.metrics(), "running", number=number, key=key,
            arch=arch, budget=cell.budget, attributes={**cell.attributes, **tuned},
        )  # fmt: skip
        self.trials[number] = trial
        self._weighed = False
        self._record.append({
            "event": "started", "number": number, "key": trial.key, "candidate": trial.candidate,
            "arch": arch.to_dict() if arch else None, "arch_id": arch.id if arch else None, "layout": cell.layout,
            "budget": dataclasses.asdict(cell.budget), "metrics": trial.metrics, "attributes": trial.attributes,
            "origin": origin,
        })  # fmt: skip
        return trial

    def _free_number(self) -> int:
        return next(number for number in itertools.count() if number not in self.trials)

    def _task(self, trial: Trial) -> Task:
        peer = trial.attributes.get("peer")
        if peer and trial.key not in self._planned:
            raise InputError(f"trial {trial.number} is of {peer}, which the study no longer names; name it again")
        arch = self._planned[str(trial.key)].arch if peer else trial.arch or self.study.space.decode(trial.candidate)
        halving, rung = self.study.halving, trial.attributes.get(RUNG)
        until = halving.rungs[rung] if halving and rung is not None and rung + 1 < len(halving.rungs) else None
        return Task(number=self._number(trial), key=trial.key or self.study.key(arch), arch=arch,
                    budget=trial.budget or self.study.budget, candidate=dict(trial.candidate), peer=peer, until=until,
                    measured=bool(rung),
                    recipe=trial.attributes.get(TUNE) or trial.attributes.get(TUNED) or {})  # fmt: skip

    @staticmethod
    def _number(trial: Trial) -> int:
        assert trial.number is not None
        return trial.number

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
        slow = None if trial.state in TERMINAL else slowness(trial, report, self.finished)
        self._end(trial, report, {"slow": slow} if slow else {})
        self._breaker.saw(self.trials[task.number], self.finished)

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

    def _end(self, trial: Trial, report: Report, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """The end of a trial, or of its training to a rung; ``more``: attributes besides the report's."""
        assert report.state is not None
        added = {**report.attributes, **more}
        self._weighed, number = False, self._number(trial)
        timings = {name: round(value + trial.timings.get(name, 0.0), 3) for name, value in report.timings.items()}
        self.trials[number] = dataclasses.replace(
            trial, metrics={**trial.metrics, **report.metrics}, state=report.state, failure=report.failure,
            device=report.device, timings={**trial.timings, **timings},
            attributes={**trial.attributes, **added},
        )  # fmt: skip
        event = "paused" if report.state == "paused" else "terminal"
        self._record.append({
            "event": event, "number": number, "key": trial.key, "state": report.state,
            "metrics": report.metrics, "failure": dataclasses.asdict(report.failure) if report.failure else None,
            "device": report.device, "timings": {**trial.timings, **timings}, "attributes": added,
        })  # fmt: skip
        if event == "terminal":  # it needs no resuming
            shutil.rmtree(self.run / "checkpoints" / str(trial.key), ignore_errors=True)
            if self._storage:
                with contextlib.suppress(SetupError):  # what is left there harms nothing
                    self._storage.forget(str(trial.key))

    def unmeasured(self) -> list[Task]:
        """The finished trials whose measuring was left for the end."""
        file = self.study.file
        if file.measure_when != "end" or not file.measure:
            return []
        left = [trial for trial in self.finished
                if trial.state == "done" and not {"conditions", AUDIT} & set(trial.attributes)]  # fmt: skip
        return [self._task(trial) for trial in left]

    def measured(self, task: Task, metrics: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """What was measured of a finished trial: its last event again, with more in it."""
        trial = self.trials[task.number]
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self.take(task, Report(metrics={**known, **metrics}, state=trial.state, device=trial.device,
                               timings=trial.timings, attributes=attributes))  # fmt: skip
