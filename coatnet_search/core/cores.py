"""Counts the CPU cores that this process may use: those of its affinity, within the quota of its container."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may use, at least 1; a quota of 2.5 cores is 3, of which the last is half used."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """Cores that the process's control group and those above it grant; infinite where none limits them."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        return math.inf  # no Linux
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folders = [CGROUP / own, *(CGROUP / own).parents]
    limits = [_version_2(folder) for folder in folders if folder.is_relative_to(CGROUP)]
    return min([*limits, _version_1(CGROUP / "cpu")])


def _version_2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # the root group has no such file
        return math.inf


def _version_1(folder: Path) -> float:
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
