"""Checks what ends a search besides its results: a full disk, trials that fail alike; and finds stragglers."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from coatnet_search.core.errors import SetupError
from coatnet_search.record.trial import Trial
from coatnet_search.search.stop_rules import device_hours
from coatnet_search.search.task import Report
from coatnet_search.study.sections import FaultsSpec, Resources
from coatnet_search.training.guard import GIB

BREAKER = (
    4  # so many times ``faults.equal_failures`` trials in a row that fail alike end a search that went well before
)
SLOW = 5.0  # times the wall time that is usual for its cost: a straggler
LEAST_ALIKE, LEAST_S = 5, 0.1  # trials that say what is usual; shorter times say nothing


def short_of_disk(run: Path, faults: FaultsSpec) -> str | None:
    """Why no further trial may begin, and what helps: the disk's reserve, or what checkpoints may take, is used up."""
    folder = run / "checkpoints"
    free = shutil.disk_usage(run).free / GIB
    if free < faults.reserve_gib:
        return (f"{free:.2f} GiB are free for {run}, and faults.reserve_gib keeps {faults.reserve_gib:g}; free some "
                "space")  # fmt: skip
    if faults.checkpoints_gib is None or not folder.is_dir():
        return None
    taken = sum(file.stat().st_size for file in folder.rglob("*.safetensors") if file.is_file()) / GIB
    if taken < faults.checkpoints_gib:
        return None
    return (f"{folder} takes {taken:.2g} GiB, and faults.checkpoints_gib allows {faults.checkpoints_gib:g}; allow more "
            "(paused trials keep theirs)")  # fmt: skip


def slowness(trial: Trial, report: Report, finished: Iterable[Trial]) -> float | None:
    """How many times as long a straggler took as is usual for what it costs; None for any other trial."""
    alike = [one for one in finished if one.state == "done" and one.budget == trial.budget
             and one.timings.get("wall_s") and one.metrics.get("macs")]  # fmt: skip
    if report.state != "done" or len(alike) < LEAST_ALIKE:
        return None
    usual = float(np.median([one.timings["wall_s"] for one in alike]))
    usual_macs = float(np.median([one.metrics["macs"] or 0.0 for one in alike]))
    costlier = max(1.0, (report.metrics.get("macs") or 0.0) / usual_macs)
    times = report.timings.get("wall_s", 0.0) / max(usual * costlier, LEAST_S)
    return round(times, 1) if times > SLOW else None


class Breaker:
    """Ends a search in which nothing works (the first trials are its canary), or no longer works."""

    def __init__(self, allowed: int, run: Path, resources: Resources) -> None:
        """``allowed``: ``faults.equal_failures``; ``resources``: of a trial, for what the failed ones cost."""
        self._allowed, self._run, self._resources = allowed, run, resources
        self._in_a_row: list[str] = []  # the failures since a trial last went well

    def saw(self, trial: Trial, finished: Sequence[Trial]) -> None:
        """A trial has ended. Raises SetupError where the search is to end."""
        if trial.state != "failed":
            self._in_a_row.clear()
            return
        self._in_a_row.append(str(trial.failure))
        failures = Counter(str(one.failure) for one in finished if one.state == "failed")
        (common, count), last = failures.most_common(1)[0], self._in_a_row[-BREAKER * self._allowed :]
        spent = device_hours(finished, self._resources)
        if count >= self._allowed and all(one.state == "failed" for one in finished):
            raise SetupError(f"the first {count} trials failed alike ({common}); stopped after "
                             f"{spent:.2f} device-hours. Mend the cause and remove {self._run}")  # fmt: skip
        if len(last) == BREAKER * self._allowed and len(set(last)) == 1:
            raise SetupError(f"the last {len(last)} trials failed alike ({last[0]}); stopped after "
                             f"{spent:.2f} device-hours. Mend the cause and run again: the search goes on")  # fmt: skip
