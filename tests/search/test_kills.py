"""The quickstart as a user runs it, its driver killed at twenty random moments: the long form of the resume tests."""

import random
import signal
import subprocess
import sys
import time

import pytest
from quickstarts import results

from coatnet_search.analysis.front import pareto_front
from coatnet_search.record.fold import read_events, read_record

KILLS = 20
WITHOUT_TIMINGS = {"val_loss": "min", "macs": "min"}


def _start(runs, *more):
    command = [sys.executable, "-m", "coatnet_search", "run", "quickstart", "--runs", str(runs), *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _front(folder):
    front = pareto_front(read_record(folder), WITHOUT_TIMINGS)
    return list(front[["number", "key", "val_loss", "macs"]].itertuples(index=False, name=None))


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    assert _start(tmp_path / "whole", "--workers", "1").wait() == 0
    moments = random.Random(0)
    for _ in range(KILLS):
        driver = _start(tmp_path / "cut", "--workers", "1")
        time.sleep(moments.uniform(5, 40))
        driver.send_signal(signal.SIGKILL)
        driver.wait()

    assert _start(tmp_path / "cut", "--workers", "1").wait() == 0

    whole, cut = tmp_path / "whole" / "quickstart", tmp_path / "cut" / "quickstart"
    ends = [event["number"] for event in read_events(cut) if event["event"] == "terminal"]
    assert sorted(ends) == list(range(24))
    assert results(cut) == results(whole)
    assert _front(cut) == _front(whole)
