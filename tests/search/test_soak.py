"""Everything goes wrong at once: trials that die, a driver that is killed, a tracking server that comes and goes."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow_server import Forwarder, check_mirror_equals_record

from coatnet_search.analysis.front import pareto_front
from coatnet_search.record.fold import read_events, read_record, read_trials
from coatnet_search.record.mirror.mlflow import mirror
from coatnet_search.record.trial import TERMINAL

SIMULATED = Path(__file__).parents[2] / "benchmarks" / "simulated.py"
KILLS = 5


def _driver(runs, trials, seed, uri):
    command = [sys.executable, SIMULATED, runs, "--trials", trials, "--seed", seed, "--pause", 0.002, "--set",
               f"tracking.uri={uri}", f"tracking.experiment=soak-{seed}"]  # fmt: skip
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _ends(folder):
    return [event for event in read_events(folder) if event["event"] == "terminal"]


def _flapping(way, over):
    """The server is there for a while, and gone for a while."""
    moments = random.Random(0)
    while not over.is_set():
        way.open()
        over.wait(moments.uniform(1, 4))
        way.cut()
        over.wait(moments.uniform(0.5, 2))


def _brute_force(frame):
    done = frame[frame["state"] == "done"]
    points = list(zip(done["val_loss"], done["macs"], done["key"], strict=True))
    return {
        key
        for loss, macs, key in points
        if not any(a <= loss and b <= macs and (a < loss or b < macs) for a, b, _ in points)
    }


@pytest.mark.mlflow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("trials", "seed"), [(50, 0), *(pytest.param(500, seed, marks=pytest.mark.full) for seed in (1, 2, 3))]
)
def test_a_search_under_faults_loses_nothing_and_its_mirror_equals_its_record(tmp_path, real_server, trials, seed):
    folder, way, over = tmp_path / "quickstart", Forwarder(real_server.port), threading.Event()
    flapping = threading.Thread(target=_flapping, args=(way, over), daemon=True)
    flapping.start()
    for share in sorted(random.Random(seed).uniform(0.05, 0.9) for _ in range(KILLS)):
        driver = _driver(tmp_path, trials, seed, way.uri)
        while driver.poll() is None and len(_ends(folder)) < share * trials:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
    code = _driver(tmp_path, trials, seed, way.uri).wait()
    over.set()
    flapping.join()
    way.open()
    mirror(folder, way.uri, f"soak-{seed}", patience_s=120)
    way.cut()

    frame, ends = read_record(folder), _ends(folder)
    assert code == 0 and len(read_trials(folder)) == trials
    assert all(trial.state in TERMINAL for trial in read_trials(folder))
    assert set(Counter(event["key"] for event in ends).values()) == {1} and len(ends) == trials
    assert {"killed", "nan", "timeout"} >= set(frame["failure_kind"].dropna()) and frame["failure_kind"].notna().any()
    assert set(pareto_front(frame, {"val_loss": "min", "macs": "min"})["key"]) == _brute_force(frame)
    check_mirror_equals_record(real_server.uri, f"soak-{seed}", folder)
