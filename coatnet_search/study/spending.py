"""Sums up what a study has used, beside what was planned: trials, epochs, device-hours, disk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import complete, numbers
from coatnet_search.study.sections import Resources

PLAN = "plan.json"  # in the RUN's folder, written by ``plan`` before the study begins
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Spent:
    """One line of the comparison; None where a number is not known. ``unit`` follows the numbers."""

    what: str
    planned: float | None
    used: float | None
    unit: str = ""


def read_plan(run: Path) -> dict[str, Any]:
    """What was planned; empty where no plan was made, or none that can be read."""
    try:
        value = json.loads((run / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def spending(frame: pd.DataFrame, study: Mapping[str, Any], run: Path | None = None) -> list[Spent]:
    """Planned and used. Without a plan the trials alone are known beforehand, and epochs where nothing is halved.

    Multiply-adds are those of all training images once through the network (training costs about three times that).
    Device-hours are the trials' times, each the part of a device that it asks for. Disk is that of the RUN's folder.
    """
    frame = complete(frame)
    plan = read_plan(run) if run else {}
    training = plan.get("training") or {}
    asked = (study.get("search") or {}).get("trials")
    return [
        Spent(what="trials", planned=plan.get("trials", asked), used=float(frame["state"].isin(_ENDED).sum())),
        Spent(what="epochs", planned=plan.get("all_epochs"), used=_sum(_epochs(frame))),
        Spent(what="multiply-adds trained", planned=plan.get("macs_trained"), used=_macs(frame, study)),
        Spent(what="device-hours", planned=training.get("device_hours"), used=device_hours(frame, study), unit="h"),
        Spent(what="disk", planned=plan.get("run_mib"), used=_disk(run) if run else None, unit="MiB"),
    ]


_ENDED = ("done", "stopped", "failed", "refused")


def device_hours(frame: pd.DataFrame, study: Mapping[str, Any]) -> float | None:
    """Hours of a device that the trials took, each the part that it asks for; None where no time is known."""
    total = _sum(numbers(frame, "wall_s"))
    return None if total is None else total * devices(study) / 3600


def devices(study: Mapping[str, Any]) -> float:
    """Devices that a trial of a resolved study occupies."""
    return Resources(**(study.get("resources") or {})).devices


def _epochs(frame: pd.DataFrame) -> Any:
    """Epochs that each trial was trained for; 0 where it reported none."""
    return np.nan_to_num(numbers(frame, "epoch"))


def _macs(frame: pd.DataFrame, study: Mapping[str, Any]) -> float | None:
    every = (study.get("data_summary") or {}).get("num_train")
    images = numbers(frame, "num_images")
    images = np.where(np.isnan(images), np.nan if every is None else every, images)
    return _sum(_epochs(frame) * images * numbers(frame, "macs"))


def _sum(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.sum()) if len(known) else None


def _disk(run: Path) -> float:
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / MIB
