"""A clock that runs as fast as its events: 1 to hundreds of asynchronous workers replayed without waiting.

Whatever hands out tasks and takes their reports as ``Session`` does is driven; ``work`` says how long a task would take
and what it would report. Used by tests of schedulers.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

TaskT = TypeVar("TaskT")
ReportT = TypeVar("ReportT")


class Driver(Protocol[TaskT, ReportT]):
    def next(self) -> TaskT | None: ...

    def take(self, task: TaskT, report: ReportT) -> None: ...


@dataclass
class Replay:
    """What a replay took: ``seconds`` on the simulated clock, and for which of them each worker had work on average."""

    seconds: float = 0.0
    busy_seconds: float = 0.0
    workers: int = 1
    ended: list[float] = field(default_factory=list)  # when each task ended, in order

    @property
    def busy(self) -> float:
        """The share of the workers' time in which they had work."""
        return self.busy_seconds / (self.seconds * self.workers) if self.seconds else 1.0


def replay(
    driver: Driver[TaskT, ReportT], work: Callable[[TaskT], tuple[float, Sequence[ReportT]]], workers: int
) -> Replay:
    """Run until the driver has no task and no worker is busy. A task's reports arrive when its time is over."""
    found, order = Replay(workers=workers), itertools.count()
    running: list[tuple[float, int, TaskT, Sequence[ReportT]]] = []
    while True:
        while len(running) < workers and (task := driver.next()) is not None:
            seconds, reports = work(task)
            found.busy_seconds += seconds
            heapq.heappush(running, (found.seconds + seconds, next(order), task, reports))
        if not running:
            return found
        found.seconds, _, task, reports = heapq.heappop(running)
        found.ended.append(found.seconds)
        for report in reports:
            driver.take(task, report)
