"""Keeps the trials of a running search and its record in step: whatever happens to a trial is appended at once."""

import contextlib
import dataclasses
import itertools
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coatnet_search.analysis.frame import REPEATS
from coatnet_search.core.errors import SetupError
from coatnet_search.record.fold import Record
from coatnet_search.record.trial import AUDIT, BASELINE, DRAWN, REPLICATE, TERMINAL, Failure, Trial
from coatnet_search.search.task import Report
from coatnet_search.study.planned_trials import PlannedTrial
from coatnet_search.study.run_folder import code_version
from coatnet_search.study.study import Study


class Ledger:
    """``trials``: all of them by number, as the record has them."""

    def __init__(self, study: Study, run: Path, record: Record, trials: Sequence[Trial], *, here: bool = False) -> None:
        """``here``: trials run in this process, which ends with what one of them does to it."""
        self._here = here
        self._run, self._record, self._storage = run, record, study.checkpoint_storage()
        self.trials = {trial.number: trial for trial in trials if trial.number is not None}

    def open(self, study: str) -> None:
        """A driver has begun to work on the study of this name."""
        self._record.append({"event": "session", "code_version": code_version(), "study": study,
                             "host": platform.node(), "pid": os.getpid()})  # fmt: skip

    @property
    def ordered(self) -> list[Trial]:
        return [self.trials[number] for number in sorted(self.trials)]

    @property
    def first(self) -> list[Trial]:
        """All trials but replicates, the baseline and those of the audit, in order of number."""
        return [trial for trial in self.ordered if trial.kind not in (REPLICATE, BASELINE, AUDIT, DRAWN)]

    @property
    def baseline(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.kind == BASELINE]

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.state in TERMINAL]

    @property
    def free_number(self) -> int:
        return next(number for number in itertools.count() if number not in self.trials)

    def begin(self, cell: PlannedTrial, key: str, origin: str, more: Mapping[str, Any] = MappingProxyType({})) -> Trial:
        """A trial with the next free number; ``more``: attributes besides the cell's."""
        arch = None if cell.peer else cell.arch
        trial = Trial(
            dict(cell.candidate), cell.metrics(), "running", number=self.free_number, key=key,
            arch=arch, budget=cell.budget, attributes={**cell.attributes, **more},
        )  # fmt: skip
        self._put(trial, "started", {
            "candidate": trial.candidate, "arch": arch.to_dict() if arch else None,
            "arch_id": arch.id if arch else None, "layout": cell.layout,
            "budget": dataclasses.asdict(cell.budget), "metrics": trial.metrics,
            "attributes": trial.attributes, "origin": origin, "here": self._here,
        })  # fmt: skip
        return trial

    def report(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """An epoch of a running trial, which takes the place of one that was told before."""
        curve = (*(known for known in trial.curve if known.get("epoch") != metrics.get("epoch")), metrics)
        self._put(dataclasses.replace(trial, state="running", curve=curve), "report", {"metrics": metrics})

    def go_on(self, trial: Trial, attributes: Mapping[str, Any], chance: float | None) -> Trial:
        """A paused trial is training again; ``chance``: that its layout has the best candidate."""
        shown = trial.curve[-1] if trial.curve else {}
        lasting = {name: value for name, value in trial.metrics.items() if name not in shown and name != "error"}
        going = dataclasses.replace(trial, state="running", metrics=lasting,
                                    attributes={**trial.attributes, **attributes})  # fmt: skip
        self._put(going, "continued", {"metrics": lasting, "attributes": attributes, "chance_of_layout": chance,
                                         "here": self._here})  # fmt: skip
        return going

    def resume(self, trial: Trial, *, here: bool | None = None) -> None:
        """A trial is taken up again that an earlier process has left."""
        self._put(trial, "resumed", {"here": self._here if here is None else here})

    def interrupted(self, trial: Trial, failure: Failure, counts: bool) -> None:
        """The process of a running trial is gone."""
        self._put(trial, "interrupted", {"failure": dataclasses.asdict(failure), "counts": counts})

    def end(self, trial: Trial, report: Report, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """The end of a trial, or of its training to a rung; ``more``: attributes besides the report's."""
        assert report.state is not None
        added = {**report.attributes, **more}
        timings = {name: round(value + trial.timings.get(name, 0.0), 3) for name, value in report.timings.items()}
        ended = dataclasses.replace(
            trial, metrics={**trial.metrics, **report.metrics}, state=report.state, failure=report.failure,
            device=report.device, timings={**trial.timings, **timings},
            attributes={**trial.attributes, **added},
        )  # fmt: skip
        paused = report.state == "paused"
        self._put(ended, "paused" if paused else "terminal", {
            "state": report.state, "metrics": report.metrics,
            "failure": dataclasses.asdict(report.failure) if report.failure else None,
            "device": report.device, "timings": ended.timings, "attributes": added,
        })  # fmt: skip
        if not paused:
            self._forget(str(trial.key))

    def copy(self, trial: Trial, origin: str) -> None:
        """A finished training of another record, as a trial of this one."""
        assert trial.arch is not None and trial.budget is not None
        cell = PlannedTrial(
            arch=trial.arch, budget=trial.budget, candidate=trial.candidate, attributes=trial.attributes
        )
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self.end(self.begin(cell, str(trial.key), origin),
                 Report(metrics=known, state="done", device=trial.device, timings=trial.timings))  # fmt: skip

    def repeat(self, known: Trial, cell: PlannedTrial, origin: str) -> None:
        """What a finished trial of this record showed, as another trial that took no time: the same network was drawn
        again."""
        again = dataclasses.replace(cell, attributes={**cell.attributes, REPEATS: known.number})
        metrics = {name: value for name, value in known.metrics.items() if value is not None}
        self.end(self.begin(again, f"{known.key}-again-{self.free_number}", origin),
                 Report(metrics=metrics, state="done", device=known.device))  # fmt: skip

    def _put(self, trial: Trial, event: str, fields: Mapping[str, Any]) -> None:
        self.trials[number_of(trial)] = trial
        self._record.append({"event": event, "number": trial.number, "key": trial.key, **fields})

    def _forget(self, key: str) -> None:
        """The checkpoints of a trial that needs no resuming."""
        shutil.rmtree(self._run / "checkpoints" / key, ignore_errors=True)
        if self._storage:
            with contextlib.suppress(SetupError):  # what is left there harms nothing
                self._storage.forget(key)


def number_of(trial: Trial) -> int:
    assert trial.number is not None
    return trial.number
