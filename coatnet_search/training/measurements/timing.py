"""How often and how long is measured: torch's benchmark timer, which waits for the device, and robust summaries."""

import timeit
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils import benchmark

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.measurements.conditions import Conditions, MeasurementFailed, named_failures

MIN_SECONDS = 0.4  # of repeats, after one warm-up run
MIN_REPEATS = 5  # fewer have no quartiles
LOOK_SECONDS = 0.1  # at one batch size, when the best is sought
GAIN = 1.03  # a doubled batch that gives less than this gains nothing
LARGEST = 4096  # images at once that are tried

Run = Callable[[], object]


def repeats(run: Run, threads: int, least_seconds: float | None = None) -> list[float]:
    """Seconds of one run, for each repeat; a repeat is as many runs as the timer needs to be exact."""
    least = MIN_SECONDS if least_seconds is None else least_seconds
    timer = benchmark.Timer("run()", globals={"run": run}, num_threads=threads)
    found = timer.blocked_autorange(min_run_time=least).times
    while len(found) < MIN_REPEATS:
        found = [*found, *timer.blocked_autorange(min_run_time=max(found) * (MIN_REPEATS - len(found))).times]
    return found


def single_runs(run: Run, number: int) -> list[float]:
    """Seconds of each of ``number`` runs, one by one, the device idle before and after."""
    return timeit.repeat(run, timer=benchmark.timer, repeat=number, number=1)


def best_batch_size(make: Callable[[int], Run], arch: Arch, conditions: Conditions) -> int:
    """The batch size of most images a second: doubled from 1 until two in a row gain nothing or memory ends.

    ``make``: what is run at a batch size. Raises MeasurementFailed where not one image fits.
    """
    best, best_rate, size = 1, 0.0, 1
    while size <= min(LARGEST, 4 * best):
        try:
            with named_failures(arch, conditions, size):
                rate = (
                    size
                    / benchmark.Timer("run()", globals={"run": make(size)}, num_threads=conditions.threads)
                    .blocked_autorange(min_run_time=LOOK_SECONDS)
                    .median
                )
        except MeasurementFailed as error:
            if error.kind != "out_of_memory":
                raise
            if size == 1:
                raise MeasurementFailed(error.kind, f"out of memory at every batch size, from 1 on: {error}") from None
            break
        if rate > best_rate * GAIN:
            best, best_rate = size, rate
        size *= 2
    return best


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """``name``: the median; ``name_spread``: the interquartile range."""
    low, middle, high = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return {name: float(middle), f"{name}_spread": float(high - low)}
