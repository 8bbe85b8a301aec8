"""The record of a run, for the verbs that only read: they start without torch."""

from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import no_run, read_record, read_values, record_path


def run_record(run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The trials of a RUN and its resolved study. Raises InputError where the folder is none."""
    if not run.is_dir():
        raise InputError(no_run(run))
    values = read_values(run / "study.yaml")
    if not record_path(run).is_file():
        raise InputError(f"{record_path(run)}: no such file; no trial of this study was begun")
    return read_record(run), values
