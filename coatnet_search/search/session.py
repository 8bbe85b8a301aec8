"""Decides what a search runs next and takes in what trials report, whoever runs them.

The record is the truth: a session is built from it, and everything that happens is appended to it at once. The
generator of trial n is seeded by (study seed, n), so a resumed search goes on as an uninterrupted one would.
"""

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coatnet_search.analysis.tuning import TUNED, best_values
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.fold import Record
from coatnet_search.record.trial import AUDIT, BASELINE, DRAWN, PEER, REPLICATE, RUNG, TERMINAL, TUNE, Failure, Trial
from coatnet_search.search.alarms import Breaker, short_of_disk, slowness
from coatnet_search.search.ledger import Ledger, number_of
from coatnet_search.search.ordering import Ordering
from coatnet_search.search.replicates import Replicates
from coatnet_search.search.stop_rules import little_to_gain, spent
from coatnet_search.search.task import Report, Task
from coatnet_search.strategies import make_strategy
from coatnet_search.study.audit_trials import AuditPlan
from coatnet_search.study.planned_trials import PlannedTrial
from coatnet_search.study.study import Study, larger

TOO_LARGE = ("out_of_memory", "memory")  # kinds of failure that a larger network would share


class Session:
    """Hands out the tasks of a study and keeps its record. One driver, one thread."""

    def __init__(self, study: Study, run: Path, record: Record, trials: Sequence[Trial], cells: Sequence[PlannedTrial],
                 hours: float = 0.0, *, here: bool = False) -> None:  # fmt: skip
        """``hours``: for which earlier sessions ran; ``here``: trials run in this process. Raises SetupError where all
        trials fail alike."""
        self.study, self.run = study, run
        self._ledger = Ledger(study, run, record, trials, here=here)
        self._hours, self._begun = hours, time.monotonic()
        self.notes: list[str] = []  # what a person should be told once
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
        self._order = Ordering(self._planned, study.file.settle, study.summary.num_val if study.summary else None)
        self._audit = AuditPlan(study) if study.file.audit else None
        self._searches = study.file.equal_cost is None
        self._tries = Counter({trial.number: trial.tries for trial in trials if trial.number is not None})
        self._given: set[int] = set()  # the trials that are being run
        self._crowded: deque[int] = deque()  # those that ran out of memory beside others, to be run alone
        self._alone: int | None = None  # the one that runs alone
        if self._searches:
            self._too_large: list[Mapping[str, float | None]] = []
            self._problem = study.problem()
            self._strategy = make_strategy(study.file.search.strategy, **study.file.search.options)
        self._ledger.open(study.name)
        self._give_up()

    def _give_up(self) -> None:
        """Waiting trials with which processes have ended as often as is asked have failed, and the search goes on."""
        for trial in [trial for trial in self._waiting if self._tried_enough(trial)]:
            self._waiting.remove(trial)
            count, allowed = self._tries[number_of(trial)], self.study.file.faults.retries
            times = "once" if count == 1 else f"{count} times"
            failure = Failure(kind="killed", message=f"its process ended {times} without a further epoch or a failure "
                              f"that it could report (faults.retries: {allowed})")  # fmt: skip
            self.notes.append(f"trial {trial.number} ({trial.label}) failed, {failure}; the search goes on without it")
            self.take(self._task(trial), Report(metrics={}, state="failed", failure=failure))

    def _tried_enough(self, trial: Trial) -> bool:
        return self._tries[number_of(trial)] > self.study.file.faults.retries

    @property
    def trials(self) -> Mapping[int, Trial]:
        """All trials by number, as they stand."""
        return self._ledger.trials

    @property
    def finished(self) -> list[Trial]:
        return self._ledger.finished

    @property
    def candidates(self) -> list[Trial]:
        """The trials that the search proposed, in order of number."""
        return [trial for trial in self._ledger.first if trial.key not in self._planned]

    @property
    def wanted(self) -> int:
        """How many trials the study is: those that it plans by itself, those of its search, replicates of these, as
        far as they are known, and those of its audit; of a search that has ended early those that it has."""
        again = len(self.trials) - len(self._ledger.first) - len(self._ledger.baseline) + len(self._replicates())
        first = len(self._ledger.first) if self.ended_early else self._wanted_first
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
        left = paused or len(self._ledger.first) < self._wanted_first or self._waiting or self._replicates()
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
        if self._crowded or self._alone is not None:
            return self._next_alone()
        task = self._next()
        if task is not None:
            self._given.add(task.number)
        return task

    def _next_alone(self) -> Task | None:
        """A trial that is to have a GPU to itself, once no other runs; none while it does."""
        if self._given:
            return None
        self._alone = self._crowded.popleft()
        self._given.add(self._alone)
        return dataclasses.replace(self._task(self.trials[self._alone]), alone=True)

    def _next(self) -> Task | None:
        if self._waiting:
            waiting = self._waiting.popleft()
            self._ledger.resume(waiting)
            return self._task(waiting)
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
        more = len(self._ledger.first) < self._wanted_first and not self.exhausted
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
        attributes = {RUNG: trial.attributes[RUNG] + 1,
                      "went_on": [*trial.attributes.get("went_on", []), decision.reason]}  # fmt: skip
        going = self._ledger.go_on(trial, attributes, decision.chance)
        return self._task(going)

    def _stop(self, trial: Trial) -> None:
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self._ledger.end(trial, Report(metrics=known, state="stopped", device=trial.device))

    def _compare(self) -> Task | None:
        """A random candidate of the whole space, for comparison. One that was trained already is not trained again:
        what it showed is repeated, at no cost; one whose training did not end is drawn anew."""
        while not self._may_start and self._may_compare:
            drawn = self._draw()
            if drawn is None:
                self._all_drawn = True
                return None
            known = {trial.key: trial for trial in self.trials.values()}.get(drawn.key(self.study))
            if known is None:
                return self._start(drawn, BASELINE)
            self._ledger.repeat(known, drawn, BASELINE)
        return None

    def _draw(self) -> PlannedTrial | None:
        """The next candidate of the baseline; None where a hundred draws give none that can be used."""
        rng = np.random.default_rng([self.study.file.search.seed, len(self._ledger.baseline), 1])
        trials = {trial.key: trial for trial in self.trials.values()}
        for _ in range(100):
            for candidate in make_strategy("random").suggest(self._problem, [], rng, 1):
                arch = self.study.space.decode(candidate)
                cell = PlannedTrial(arch=arch, budget=self.study.budget, candidate=candidate,
                                    attributes={BASELINE: True})  # fmt: skip
                known = trials.get(cell.key(self.study))
                if known is None or known.state == "done":
                    return cell
        return None

    @property
    def _may_compare(self) -> bool:
        return self._searches and len(self._ledger.baseline) < self.study.file.search.baseline and not self._all_drawn

    def _replicate(self) -> Task | None:
        left = [] if self._may_start else self._replicates()
        return self._start(left[0], REPLICATE) if left else None

    @property
    def _over(self) -> bool:
        """Whether all that comes before the audit has ended."""
        ended = all(trial.state in TERMINAL or trial.kind in (AUDIT, DRAWN) for trial in self.trials.values())
        return ended and not (self._may_start or self._may_compare or self._replicates())

    def _train_alone(self) -> Task | None:
        """What the audit runs next, after it has taken over what other records have."""
        if self._audit is None or not self._over:
            return None
        for trial in self._audit.elsewhere(self._ledger.ordered):
            self._ledger.copy(trial, AUDIT)
        left = self._for_audit()
        return self._start(left[0], AUDIT) if left else None

    def _for_audit(self) -> list[PlannedTrial]:
        return self._audit.left(self._ledger.ordered) if self._audit and self._over else []

    def _has_disk(self) -> bool:
        short = short_of_disk(self.run, self.study.file.faults)
        if short and not self._given:
            raise SetupError(f"{short} and run again: the search goes on")
        return short is None

    @property
    def _pending(self) -> bool:
        """Whether a candidate has not ended: replicates are of what the whole search found."""
        return any(trial.state not in TERMINAL for trial in self._ledger.first)

    def _replicates(self) -> list[PlannedTrial]:
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

    def _values(self, cell: PlannedTrial) -> dict[str, float] | None:
        """What replaces values of the recipe, of a cell that a sweep tunes; None until that has ended."""
        spec, place = self.study.file.tune, (cell.layout, cell.budget.num_images)
        if not cell.tuned or spec is None:
            return {}
        if place not in self._tuned:
            regimes = {one.budget.num_images for one in self._planned.values() if TUNE in one.attributes
                       and one.layout == cell.layout}  # fmt: skip
            found = best_values(self.trials.values(), *place, spec, dataclasses.asdict(self.study.recipe), regimes)
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
        rng = np.random.default_rng([self.study.file.search.seed, self._ledger.free_number])
        halving = self.study.halving
        taken = [
            Trial(trial.candidate, state="stopped") for trial in self._ledger.baseline
        ]  # what they showed is not told
        drawn = [
            trial for trial in self._ledger.ordered if DRAWN in trial.attributes
        ]  # scored as its own candidates are
        history = [*(halving.shown(self.candidates) if halving else self.candidates), *drawn, *taken]
        proposed = self._strategy.suggest(self._problem, history, rng, 1)
        if not proposed:
            self.exhausted = True
            return None
        arch = self.study.space.decode(proposed[0])
        attributes = {**proposed[0].attributes, **({RUNG: 0} if halving else {})}
        cell = PlannedTrial(arch=arch, budget=self.study.budget, candidate=proposed[0], attributes=attributes)
        return self._start(cell, self.study.file.search.strategy)

    def _constrain(self) -> None:
        """Networks that ran out of memory bound what is proposed, as far as no larger one was trained all the same."""
        ended = [trial for trial in self.finished if trial.kind not in (PEER, AUDIT)]
        done = [trial.metrics for trial in ended if trial.state == "done"]
        failed = [trial.metrics for trial in ended if trial.failure and trial.failure.kind in TOO_LARGE]
        too_large = [one for one in failed if not any(larger(other, one) for other in done)]
        if too_large != self._too_large:
            self._too_large = too_large
            self._problem = self.study.problem(too_large)

    def _start(self, cell: PlannedTrial, origin: str) -> Task:
        tuned = {TUNED: self._values(cell)} if cell.tuned else {}
        self._weighed = False
        return self._task(self._ledger.begin(cell, cell.key(self.study), origin, tuned))

    def _task(self, trial: Trial) -> Task:
        peer = trial.attributes.get(PEER)
        if peer and trial.key not in self._planned:
            raise InputError(f"trial {trial.number} is of {peer}, which the study no longer names; name it again")
        arch = self._planned[str(trial.key)].arch if peer else trial.arch or self.study.space.decode(trial.candidate)
        halving, rung = self.study.halving, trial.attributes.get(RUNG)
        until = halving.rungs[rung] if halving and rung is not None and rung + 1 < len(halving.rungs) else None
        return Task(number=number_of(trial), key=trial.key or self.study.key(arch), arch=arch,
                    budget=trial.budget or self.study.budget, candidate=dict(trial.candidate), peer=peer, until=until,
                    measured=bool(rung),
                    recipe=trial.attributes.get(TUNE) or trial.attributes.get(TUNED) or {})  # fmt: skip

    def take(self, task: Task, report: Report) -> None:
        """A report of a running trial; its last one has a state. Raises SetupError where all trials fail alike."""
        trial = self.trials[task.number]
        if report.state is None and report.metrics in trial.curve:  # told again by a training that goes on
            return
        if report.state is None:
            self._ledger.report(trial, report.metrics)
            return
        self._weighed = False
        self._ended(task)
        if self._was_crowded(task, report):
            assert report.failure is not None
            self._ledger.interrupted(trial, report.failure, False)
            self._crowded.append(task.number)
            return
        slow = None if trial.state in TERMINAL else slowness(trial, report, self.finished)
        self._ledger.end(trial, report, {"slow": slow} if slow else {})
        self._breaker.saw(self.trials[task.number], self.finished)

    def _ended(self, task: Task) -> None:
        """Nobody runs a trial any more."""
        self._given.discard(task.number)
        self._alone = None if self._alone == task.number else self._alone

    def _was_crowded(self, task: Task, report: Report) -> bool:
        """Whether a trial ran out of memory on a GPU that it shares: that says little of its network."""
        shared = 0 < self.study.file.resources.gpus < 1 and not task.alone
        return shared and report.failure is not None and report.failure.kind == "out_of_memory"

    def interrupted(self, task: Task, failure: Failure, counts: bool) -> None:
        """The process of a running trial is gone: the trial waits to go on from its last checkpoint, unless that has
        been tried often enough. ``counts``: whether it is the trial that may be to blame, not a node that was lost."""
        self._ended(task)
        self._tries[task.number] += counts
        if self._tried_enough(self.trials[task.number]):
            self.take(task, Report(metrics={}, state="failed", failure=failure))
            return
        self._ledger.interrupted(self.trials[task.number], failure, counts)
        self._waiting.appendleft(self.trials[task.number])

    def leave(self, task: Task) -> None:
        """This process ends before the trial that it runs has ended, by no fault of the trial's."""
        if self.trials[task.number].state not in (*TERMINAL, "paused"):
            self._ledger.interrupted(self.trials[task.number], Failure(kind="left", message="the driver ended"), False)

    def unmeasured(self) -> list[Task]:
        """The finished trials whose measuring was left for the end."""
        file = self.study.file
        if file.measure_when != "end" or not file.measure:
            return []
        left = [trial for trial in self.finished
                if trial.state == "done" and trial.kind != AUDIT and "conditions" not in trial.attributes]  # fmt: skip
        return [self._task(trial) for trial in left]

    def measure(self, task: Task) -> bool:
        """Whether a finished trial may be measured here: not where processes have ended with that too often."""
        if self._tried_enough(self.trials[task.number]):
            return False
        self._ledger.resume(self.trials[task.number], here=True)
        return True

    def measured(self, task: Task, metrics: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """What was measured of a finished trial: its last event again, with more in it."""
        trial = self.trials[task.number]
        known = {name: value for name, value in trial.metrics.items() if value is not None}
        self.take(task, Report(metrics={**known, **metrics}, state=trial.state, device=trial.device,
                               timings=trial.timings, attributes=attributes))  # fmt: skip
