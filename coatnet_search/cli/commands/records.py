"""The record of a run, for the verbs that only read: they start without torch."""

import difflib
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import RUNS, read_record, read_values, record_path


def run_record(run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The trials of a RUN and its resolved study. Raises InputError where the folder is none."""
    if not run.is_dir():
        known = sorted(str(path.parent) for path in RUNS.glob("*/study.yaml"))
        close = difflib.get_close_matches(str(run), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"runs here: {', '.join(known)}" if known else "no runs here"
        raise InputError(f"{run}: no such folder; {hint}")
    values = read_values(run / "study.yaml")
    if not record_path(run).is_file():
        raise InputError(f"{record_path(run)}: no such file; no trial of this study was begun")
    return read_record(run), values
