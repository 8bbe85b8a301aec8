"""How many cores a process may use: its affinity, and the quota of its container."""

import os
from pathlib import Path

import pytest

from coatnet_search.core import cores
from coatnet_search.core.cores import usable_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores, all of which this process may use; its control groups lie in the folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/jobs/mine\n")
    (tmp_path / "cgroup" / "jobs" / "mine").mkdir(parents=True)
    return tmp_path / "cgroup"


def test_without_a_quota_all_cores_of_the_affinity_count(machine: Path) -> None:
    (machine / "jobs" / "cpu.max").write_text("max 100000\n")

    assert usable_cores() == 8


def test_a_quota_of_a_group_above_limits_the_cores(machine: Path) -> None:
    (machine / "jobs" / "cpu.max").write_text("250000 100000\n")
    (machine / "jobs" / "mine" / "cpu.max").write_text("max 100000\n")

    assert usable_cores() == 3


def test_a_quota_of_the_older_control_groups_counts_too(machine: Path) -> None:
    (machine / "cpu").mkdir()
    (machine / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert usable_cores() == 1


def test_an_affinity_below_the_quota_limits_the_cores(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "jobs" / "cpu.max").write_text("600000 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3}, raising=False)

    assert usable_cores() == 2
