"""What a running search does to a measurement: one network measured on an idle device and beside a two-worker search.

    python benchmarks/undisturbed.py [--times 10] [--space cifar-tiny] [--device cpu] [--batch-size 8] [--without-lock]

Half of the idle measurements come before the search and half after it, so that a machine that slows down shows.
``bias``: median beside the search over median idle, less one. ``spread``: interquartile range of the measurements over
their median. Wanted: at most 3 % of bias, and a spread of at most 5 % or 1.2 times the idle one. ``disturbed``: how
many measurements say of themselves that they were, after their tries; ``waited``: the median share of the time in which
the measuring threads were ready and had no core, which is above zero on a machine where others compute too.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from coatnet_search.architecture.build import seeded_build
from coatnet_search.record.fold import read_events
from coatnet_search.space.space import load_space
from coatnet_search.training.device import describe, device_id
from coatnet_search.training.device_lock import DeviceLock
from coatnet_search.training.measurements.conditions import Conditions
from coatnet_search.training.measurements.repeat_until_calm import Settled, measure_calmly

WORKERS = 2
START_S = 180.0  # for a search to be in its training
SETTINGS = ("search.strategy=random", "search.trials=100000", "measure=[]", "recipe.epochs=1000",
            "tracking.enabled=false")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Series:
    """Repeated measurements of one network: median images a second, spread as a fraction of it."""

    median: float
    spread: float
    disturbed: int
    waited: float

    @classmethod
    def of(cls, found: Sequence[Settled]) -> "Series":
        values = [one.measured.metrics["throughput_images_per_s"] for one in found]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(median=float(middle), spread=float((high - low) / middle),
                   disturbed=sum(one.disturbed for one in found),
                   waited=statistics.median(one.waited for one in found))  # fmt: skip


def measure(times: int, space: str, conditions: Conditions, lock: bool = True) -> list[Settled]:
    """``times`` measurements of the space's first random network."""
    known = load_space(space)
    arch = known.decode(known.sample(np.random.default_rng(0)))
    model = seeded_build(arch, 0).to(conditions.place)
    alone = DeviceLock(device_id(conditions.place)).alone if lock else nullcontext
    return [measure_calmly("throughput", model, arch, conditions, alone) for _ in range(times)]


@contextmanager
def search(device: str) -> Iterator[None]:
    """A search on Ray with two workers that train from before this is entered until it is left."""
    resources = "resources={cpus: 1, gpus: 0.5}" if device.startswith("cuda") else "resources={cpus: 1, gpus: 0}"
    with tempfile.TemporaryDirectory() as folder:
        sets = [word for setting in (*SETTINGS, resources) for word in ("--set", setting)]
        command = [sys.executable, "-m", "coatnet_search", "run", "quickstart", "--runs", folder,
                   "--workers", str(WORKERS), *sets]  # fmt: skip
        log = Path(folder) / "log"
        with log.open("w") as out:
            driver = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            _wait_for_training(Path(folder) / "quickstart", driver, log)
            yield
        finally:
            driver.send_signal(signal.SIGINT)  # running epochs end
            driver.wait()


def _wait_for_training(run: Path, driver: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_S
    while len({event["number"] for event in read_events(run) if event["event"] == "report"}) < WORKERS:
        if driver.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"no two trials are in training: {log.read_text()[-500:]}")
        time.sleep(0.5)


def compare(times: int, space: str, conditions: Conditions, lock: bool = True) -> tuple[Series, Series]:
    """The network on the idle device and beside the search."""
    before = measure(times // 2, space, conditions, lock)
    with search(conditions.device):
        beside = measure(times, space, conditions, lock)
    after = measure(times - times // 2, space, conditions, lock)
    return Series.of(before + after), Series.of(beside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--space", default="cifar-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--without-lock", action="store_true", help="what the lock is for")
    given = parser.parse_args()
    conditions = Conditions(device=given.device, batch_size=given.batch_size)
    idle, beside = compare(given.times, given.space, conditions, not given.without_lock)
    table = Table(title=f"{given.times} measurements on {describe(conditions.place)}, load {os.getloadavg()[0]:.1f}")
    for name in ("", "images/s", "bias", "spread", "disturbed", "waited"):
        table.add_column(name, justify="right")
    for name, one in (("idle", idle), ("beside a search", beside)):
        table.add_row(name, f"{one.median:.1f}", f"{one.median / idle.median - 1:+.1%}", f"{one.spread:.1%}",
                      f"{one.disturbed}/{given.times}", f"{one.waited:.1%}")  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
