"""Ends a trial that takes too long, is silent too long or takes too much memory, with its cause.

A thread watches, and a signal raises the cause in the main thread, while the trial computes and at no other moment. So
a trial that sleeps or waits ends too. One that never comes back to Python does not: on Ray its process is then killed.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")
SIGNAL = signal.SIGUSR2  # SLURM announces the end of a job by SIGUSR1, where it is asked to
LONGEST_LOOK_S = 1.0
GIB = 2**30


class Overrun(BaseException):
    """A trial took more than it may. No Exception, so that a trainer that catches all of these does not go on."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Seconds of wall time, seconds between two reports, bytes of memory with all child processes; None: any."""

    wall_s: float | None = None
    silent_s: float | None = None
    memory_bytes: float | None = None

    @property
    def limits_nothing(self) -> bool:
        return self == Allowance()

    def broken(self, wall_s: float, silent_s: float, memory_bytes: float) -> Overrun | None:
        """The limit that these break, if one is."""
        if self.wall_s is not None and wall_s > self.wall_s:
            return Overrun("timeout", f"not finished after {self.wall_s / 60:g} minutes (faults.minutes)")
        if self.silent_s is not None and silent_s > self.silent_s:
            return Overrun("timeout", f"no report for {self.silent_s / 60:g} minutes (faults.silent_minutes)")
        if self.memory_bytes is not None and memory_bytes > self.memory_bytes:
            return Overrun("memory", f"took more than {self.memory_bytes / GIB:g} GiB (faults.memory_gib)")
        return None


class Guard:
    """Watches one trial of the main thread; a context manager. ``working`` says when the trial computes; ``waited``
    tells seconds that count for nothing, as the trial waits for its device."""

    def __init__(self, allowance: Allowance, memory: Callable[[], int] | None = None,
                 waited: Callable[[], float] = lambda: 0.0) -> None:  # fmt: skip
        self._waited = waited
        self._waited_before = self._waited_at_report = waited()
        self._allowance, self._memory = allowance, memory or (lambda: resident_bytes(os.getpid()))
        self._begin = self._reported = time.monotonic()
        self._done, self._armed = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Guard":
        if not self._allowance.limits_nothing:
            self._before = signal.signal(SIGNAL, self._raise)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._done.set()
        if not self._allowance.limits_nothing:
            self._thread.join()
            signal.signal(SIGNAL, self._before)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While it is open, a broken limit raises Overrun."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items as they come, each of them made while ``working``; an item is a report."""
        iterator = iter(items)
        while True:
            with self.working():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            self._reported, self._waited_at_report = time.monotonic(), self._waited()
            yield item

    def _broken(self) -> Overrun | None:
        moment, waited = time.monotonic(), self._waited()
        memory = self._memory() if self._allowance.memory_bytes is not None else 0
        return self._allowance.broken(moment - self._begin - (waited - self._waited_before),
                                      moment - self._reported - (waited - self._waited_at_report), memory)  # fmt: skip

    def _watch(self) -> None:
        times = [limit for limit in (self._allowance.wall_s, self._allowance.silent_s) if limit is not None]
        pause = min(LONGEST_LOOK_S, min(times, default=math.inf) / 5)
        while not self._done.wait(pause):
            if self._broken():
                signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two steps of Python; told again and again until the trial computes."""
        overrun = self._broken() if self._armed else None
        if overrun:
            self._armed = False  # what it raises on its way out is not cut short
            raise overrun


def resident_bytes(pid: int) -> int:
    """Memory of a process and its children that nobody else has, from /proc; 0 for one that has just ended."""
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return 0
    own = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return own + sum(resident_bytes(child) for child in children)
