"""Which planned run of a scaling study comes next: as listed, or by ``settle`` the one that lowers the expected regret
of the choice most for its time, until the choice is settled."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from coatnet_search.core.errors import InputError
from coatnet_search.curves.arm_runs import Run
from coatnet_search.curves.next_run import Answer, Beliefs
from coatnet_search.record.trial import TERMINAL, TUNE, Trial
from coatnet_search.study.planned_trials import PlannedTrial
from coatnet_search.study.sections import SettleSpec

SECONDS_PER_MAC = 3e-11  # until a run has been timed: only ratios of hours matter


class Ordering:
    """The order of a study's planned cells: ``next`` gives the key of one of those that are open."""

    def __init__(self, cells: Mapping[str, PlannedTrial], settle: SettleSpec | None,
                 num_val: int | None = None) -> None:  # fmt: skip
        """``num_val``: on how many images each error is measured."""
        self._cells, self._settle, self._num_val = cells, settle, num_val
        self.answer: Answer | None = None  # of ``settle``: the choice as it stood when it was last asked

    @property
    def settled(self) -> bool:
        return self.answer is not None and self.answer.settled

    def next(self, open_keys: Sequence[str], trials: Iterable[Trial]) -> str | None:
        """The key to run next; None where the choice is settled, or where running trials must end first."""
        if self._settle is None:
            return open_keys[0] if open_keys else None
        beside = [key for key in open_keys if not self._ranked(self._cells[key])]
        if beside:  # sweeps, peers that are only measured, doubled schedules: few, and not part of the choice
            return beside[0]
        return self._most_useful(open_keys, [trial for trial in trials if trial.key in self._cells], self._settle)

    def _most_useful(self, open_keys: Sequence[str], trials: Sequence[Trial], settle: SettleSpec) -> str | None:
        keys = {self._run(self._cells[key]): key for key in open_keys}
        observed = [self._run(self._cells[str(trial.key)], trial) for trial in trials
                    if self._ranked(self._cells[str(trial.key)])]  # fmt: skip
        rate = _rate(self._cells, trials)
        hours = {run: rate * _work(self._cells[key]) for run, key in keys.items()}
        try:
            beliefs = Beliefs(observed, list(keys), settle.at_data, target_size=settle.at_size,
                              images=self._num_val)  # fmt: skip
            self.answer = beliefs.answer(probability=settle.probability, regret=settle.regret)
            ranked = [] if self.answer.settled else beliefs.rank(list(keys), hours.__getitem__)
        except InputError:
            if all(trial.state in TERMINAL for trial in trials):
                raise
            return None  # what is missing is being run
        return keys[ranked[0].run] if ranked else None

    @staticmethod
    def _ranked(cell: PlannedTrial) -> bool:
        return cell.budget.epochs > 0 and not cell.attributes.get("doubled") and TUNE not in cell.attributes

    @staticmethod
    def _run(cell: PlannedTrial, trial: Trial | None = None) -> Run:
        budget, place = cell.budget, cell.attributes
        error = trial.metrics.get("error") if trial and trial.state == "done" else None
        return Run(layout=cell.layout, num_images=budget.num_images or 0, instance=place.get("instance", 1),
                   size=place.get("size", 1.0), seed=budget.seed * 1000 + budget.draw, error=error)  # fmt: skip


def _work(cell: PlannedTrial) -> float:
    """Multiply-adds of a training up to a factor that all share."""
    return float(cell.budget.epochs * (cell.budget.num_images or 0)) * cell.macs


def _rate(cells: Mapping[str, PlannedTrial], trials: Sequence[Trial]) -> float:
    """Hours a multiply-add, by the runs so far."""
    timed = [trial.timings["wall_s"] / _work(cells[str(trial.key)]) for trial in trials
             if trial.state == "done" and trial.timings.get("wall_s") and _work(cells[str(trial.key)])]  # fmt: skip
    return (statistics.median(timed) if timed else SECONDS_PER_MAC) / 3600
