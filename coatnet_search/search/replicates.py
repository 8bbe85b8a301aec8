"""Picks the finished candidates that are trained again with other seeds: those that may be on the front."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from coatnet_search.analysis.frame import complete
from coatnet_search.analysis.front_noise import near_front
from coatnet_search.analysis.networks import NUM_VAL
from coatnet_search.record.trial import REPLICATE, Trial
from coatnet_search.study.planned_trials import PlannedTrial
from coatnet_search.study.study import Study


class Replicates:
    """What ``replicates:`` of a study asks for, as its candidates end."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._near_then: tuple[int, set[int | None]] = (-1, set())  # how many had ended, and who was near the front

    def left(self, candidates: Iterable[Trial], trials: Sequence[Trial], ended: int) -> list[PlannedTrial]:
        """What is still to be trained: each finished candidate near the front with the seeds after its own, a seed at a
        time. ``trials``: all that there are, ``ended`` of which have ended."""
        done = [trial for trial in candidates if trial.state == "done"]
        more = self._study.file.replicates
        if more == 1 or not done:
            return []
        near = self._near(done, trials, ended)
        known = {trial.key for trial in trials}
        cells = [self._again(trial, seed) for seed in range(1, more) for trial in done if trial.number in near]
        return [cell for cell in cells if cell.key(self._study) not in known]

    def _near(self, done: Sequence[Trial], trials: Sequence[Trial], ended: int) -> set[int | None]:
        """The numbers of those near the front, found anew when a trial has ended."""
        if self._near_then[0] != ended:
            least = self._study.file.near_front
            near = self._chances(done, trials, least) if least else [True] * len(done)
            self._near_then = ended, {trial.number for trial, one in zip(done, near, strict=True) if one}
        return self._near_then[1]

    def _chances(self, done: Sequence[Trial], trials: Sequence[Trial], least: float) -> list[bool]:
        """Of each candidate whether it is near the front, by its own training and those of its replicates."""
        objectives = self._study.file.objectives
        again = [one for one in trials if one.state == "done" and one.kind == REPLICATE]
        first = {one.number: one for one in done}
        rows = [_row(one, first[one.attributes.get("of", one.number)]) for one in (*done, *again)
                if one.attributes.get("of", one.number) in first]  # fmt: skip
        frame = pd.DataFrame(rows)
        frame.attrs[NUM_VAL] = self._study.summary.num_val if self._study.summary else None
        near = near_front(complete(frame, objectives), objectives, least)
        return [one.number is not None and near[one.number] for one in done]

    def _again(self, trial: Trial, more: int) -> PlannedTrial:
        budget = trial.budget or self._study.budget
        arch = trial.arch or self._study.space.decode(trial.candidate)
        return PlannedTrial(arch=arch, budget=dataclasses.replace(budget, seed=budget.seed + more),
                            candidate=trial.candidate, attributes={REPLICATE: more, "of": trial.number})  # fmt: skip


def _row(trial: Trial, first: Trial) -> dict[str, Any]:
    """A training as a row of a record, its network named by its candidate's first training."""
    return {"number": trial.number, "arch_id": f"of trial {first.number}", "layout": first.attributes.get("layout") or
            (first.arch.layout if first.arch else ""), "candidate": first.candidate, "attributes": {},
            "state": "done", **trial.metrics}  # fmt: skip
