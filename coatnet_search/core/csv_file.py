"""Writes CSV files that a spreadsheet and a terminal can open: no cell is computed, none holds a control sequence.

The one place that writes CSV.
"""

import csv
import math
import numbers
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coatnet_search.core.whole_file import whole_file

FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # what begins a formula, also in full width

JOINERS = "\u200c\u200d"  # invisible characters that words of some languages are written with


def write_csv(path: Path, columns: Sequence[Any], rows: Iterable[Iterable[Any]]) -> Path:
    """A heading and rows in UTF-8, as a file that is whole or as it was before. None and NaN are empty cells, texts are
    as ``safe_cell`` has them."""
    with whole_file(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in columns])
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def safe_cell(value: Any) -> Any:
    """A text with its control characters written out (``\\x1b``), and an apostrophe before what a spreadsheet would
    compute; other values as they are."""
    if not isinstance(value, str):
        return value
    shown = "".join(char if _is_shown(char) else repr(char)[1:-1] for char in value)
    begins = value.lstrip()[:1]
    return f"'{shown}" if begins and begins in FORMULAS else shown


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in JOINERS


def _cell(value: Any) -> Any:
    missing = value is None or (isinstance(value, numbers.Real) and math.isnan(value))
    return "" if missing else safe_cell(value if isinstance(value, numbers.Number) else str(value))
