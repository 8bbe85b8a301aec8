"""The record's table -> the columns and rows that answers are made of: complete, as numbers, of the search alone."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coatnet_search.core.quantities import QUANTITIES
from coatnet_search.record.trial import AUDIT, Kind, kind_of

Floats = NDArray[np.float64]
TEXT = (
    "key",
    "state",
    "arch_id",
    "layout",
    "device",
    "failure_kind",
    "failure_message",
    "origin",
    "started_at",
    "ended_at",
)
VALUES = ("candidate", "curve", "arch", "attributes")
BUDGET = ("epochs", "num_images", "image_size", "seed", "draw")
NOT_METRICS = frozenset((*TEXT, *VALUES, *BUDGET, "number", "epoch"))
REPEATS = "repeats"  # attribute of a trial that repeats what another showed, by number: no run of its own


def complete(frame: pd.DataFrame, names: Iterable[str] = ()) -> pd.DataFrame:
    """The frame in order of number with the columns of an empty record added (all missing), and ``names`` too."""
    wanted = [*TEXT, *VALUES, *BUDGET, "number", "epoch", "wall_s", *QUANTITIES, *names]
    missing = [name for name in dict.fromkeys(wanted) if name not in frame.columns]
    out = frame.reindex(columns=[*frame.columns, *missing]) if missing else frame
    return out.sort_values("number", kind="stable", ignore_index=True)


def numbers(frame: pd.DataFrame, name: str) -> Floats:
    """A column as floats; whatever is not a finite number (missing, text, inf) is NaN."""
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def metric_names(frame: pd.DataFrame) -> list[str]:
    """The columns that hold metrics: numbers that are neither budget nor timing, with at least one value."""
    names = [str(name) for name in frame.columns if name not in NOT_METRICS]
    timings = {name for name in names if name.endswith("_s") and not name.endswith("_per_s")}
    return [name for name in names if name not in timings and np.isfinite(numbers(frame, name)).any()]


def searched(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the search: a training alone for an audit is of another fidelity, and no part of any front."""
    return frame[~of_kind(frame, AUDIT)]


def of_kind(frame: pd.DataFrame, *kinds: Kind) -> NDArray[np.bool_]:
    """Which rows are of trials of these kinds; without attributes all are candidates."""
    values = frame["attributes"] if "attributes" in frame.columns else [None] * len(frame)
    return np.array([kind_of(value) in kinds for value in values], dtype=bool)


def accuracies(rows: pd.DataFrame) -> Floats:
    """Validation accuracy as a fraction: ``val_top1``, or 1 - ``error`` where only that is known."""
    direct = numbers(rows, "val_top1")
    return np.where(np.isnan(direct), 1.0 - numbers(rows, "error"), direct)
