"""PLUGIN what is measured of a real module on a real device: one file and one line in ``MEASUREMENTS`` each.

A measurement's file has ``METRICS``, the names it gives, and ``measure``::

    def measure(model: nn.Module, arch: Arch, conditions: Conditions) -> Measured

The model lies on the device of the conditions and is left as it was. Each number comes with its spread,
``NAME_spread``: the interquartile range of the repeats, in the same unit. What was measured comes back with the
conditions that it was measured under, which may be narrower than those asked for (see ``conditions.py``). The first of
the metrics is the one whose spread says whether the measurement was disturbed (``repetition.py``).

The menu is free of torch; the file behind a line is imported when it is first used.
"""

import functools
import importlib
import importlib.metadata
import logging
from typing import Any

from coatnet_search.core.errors import InputError, unknown

MEASUREMENTS: dict[str, str] = {
    "latency": "coatnet_search.training.measurements.latency",
    "peak_memory": "coatnet_search.training.measurements.peak_memory",
    "throughput": "coatnet_search.training.measurements.throughput",
    "train_throughput": "coatnet_search.training.measurements.train_throughput",
}


@functools.cache
def menu() -> dict[str, str]:
    """The built-in measurements and those that installed packages add (entry points, group of this package's name)."""
    points = importlib.metadata.entry_points(group="coatnet_search.measurements")
    return {**{point.name: point.value for point in points}, **MEASUREMENTS}


def load_measurement(name: str) -> Any:
    """A measurement's module. Raises InputError that names the known ones."""
    if name not in menu():
        raise InputError(unknown("measurement", name, menu()))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # torch's timer warns where no GPU is
    return importlib.import_module(menu()[name])
