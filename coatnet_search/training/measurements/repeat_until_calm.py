"""Repeats a measurement while others disturb it -> its value, spread, and whether it stayed disturbed.

Trainers of this package keep off the device (``device_lock.py``); other programs do not. Two signs of them: repeats
that spread, and a process that was ready to run and waited for a core (Linux counts it), which also betrays a
neighbour who is always there and thus spreads nothing.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.device import software
from coatnet_search.training.measurements import load_measurement
from coatnet_search.training.measurements.conditions import Conditions, Measured

SPREAD = 0.05  # of the first number, interquartile range over median
WAITED = 0.05  # share of the time of its threads in which they waited for a core
TRIES = 3
_TASKS = Path("/proc/self/task")  # a folder a thread; schedstat: nanoseconds run, nanoseconds waited, slices


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The calmest try of a measurement; ``disturbed`` where even that one was not calm."""

    measured: Measured
    tries: int
    waited: float  # share of the time
    disturbed: bool

    def as_attributes(self) -> dict[str, Any]:
        """Plain values for a record: the conditions (of a GPU with its software), repeats, tries, the share waited."""
        conditions = self.measured.conditions
        return {**asdict(conditions), **software(conditions.place), "repeats": self.measured.repeats,
                "tries": self.tries, "waited": round(self.waited, 4), "disturbed": self.disturbed}  # fmt: skip


def measure_calmly(name: str, model: nn.Module, arch: Arch, conditions: Conditions,
                   alone: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext) -> Settled:  # fmt: skip
    """The measurement ``name``, at most ``TRIES`` times; each try holds ``alone``. Raises what the measurement does."""
    measurement = load_measurement(name)
    tries: list[tuple[float, float, Measured]] = []
    while len(tries) < TRIES:
        with alone():
            start, before = time.monotonic(), _waited_s()
            measured: Measured = measurement.measure(model, arch, conditions)
            waited = max(0.0, _waited_s() - before) / (time.monotonic() - start) / conditions.threads
        tries.append((max(measured.spread / SPREAD, waited / WAITED), waited, measured))
        if tries[-1][0] <= 1:
            break
    unrest, waited, measured = min(tries, key=lambda one: one[0])
    return Settled(measured=measured, tries=len(tries), waited=waited, disturbed=unrest > 1)


def _waited_s() -> float:
    """Seconds for which threads of this process were ready and had no core; 0 where the system does not count them."""
    return sum(_thread_waited_ns(folder) for folder in _TASKS.glob("*")) / 1e9


def _thread_waited_ns(folder: Path) -> int:
    try:
        return int((folder / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # the thread ended meanwhile, or its system counts otherwise
        return 0
