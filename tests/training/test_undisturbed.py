"""A measurement during a running search against the idle device, and what it says where it was disturbed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from coatnet_search.architecture.build import seeded_build
from coatnet_search.space.space import load_space
from coatnet_search.training.measurements.conditions import Conditions
from coatnet_search.training.measurements.repeat_until_calm import TRIES, measure_calmly

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "undisturbed.py"


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_running_search_neither_biases_nor_spreads_measurements():
    spec = importlib.util.spec_from_file_location("undisturbed", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # its dataclasses look for it
    spec.loader.exec_module(benchmark)

    idle, beside = benchmark.compare(10, "cifar-tiny", Conditions(batch_size=8))

    if idle.disturbed:
        pytest.skip(f"others compute on this machine: {idle.disturbed} of 10 idle measurements were disturbed")
    assert abs(beside.median / idle.median - 1) <= 0.03 or beside.disturbed > 0
    assert beside.spread <= max(0.05, 1.2 * idle.spread) or beside.disturbed > 0


def test_a_neighbour_who_keeps_off_no_lock_is_noticed():
    import os

    space = load_space("digits")
    arch = space.decode({name: values[0] for name, values in space.choices.items()})
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    neighbour = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    )
    os.sched_setaffinity(0, {core})
    try:
        found = measure_calmly("throughput", seeded_build(arch, 0), arch, Conditions(batch_size=8))
    finally:
        os.sched_setaffinity(0, before)
        neighbour.kill()
        neighbour.wait()

    assert found.disturbed
    assert found.tries == TRIES
