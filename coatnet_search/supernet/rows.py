"""Reads how the training of a RUN's supernets went, without torch."""

import json
from pathlib import Path
from typing import Any

FOLDER = "supernet"  # of a RUN
PER_LAYOUT_FOLDER = "supernet-apart"  # of a RUN: one for each layout, beside the one that candidates inherit from
ROWS = "epochs.jsonl"  # in either

Row = dict[str, Any]


def read_supernet_rows(folder: Path) -> list[Row]:
    """The rows of a supernet's epochs so far, in order."""
    path = folder / ROWS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
