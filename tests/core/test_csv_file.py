"""Cells that a spreadsheet would compute or a terminal obey are written as plain text, by the one writer of CSV."""

import csv
from pathlib import Path

import numpy as np
import pytest

from coatnet_search.core.csv_file import safe_cell, write_csv
from coatnet_search.data.load import write_regimes
from coatnet_search.data.spec import DataSpec


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\x1b=1"])
def test_what_begins_as_a_formula_is_a_text(text: str) -> None:
    first = safe_cell(text)[0]

    assert first in ("'", "\\")  # an apostrophe, or a control character written out


@pytest.mark.parametrize("text", ["cat", "a=b", "Haus-Katze", "ねこ　犬", "می‌خواهم", "ё", "O'Neill", "a, b", '"'])
def test_other_words_stay_as_they_are(text: str, tmp_path: Path) -> None:
    (row,) = csv.reader(write_csv(tmp_path / "x.csv", [text], []).open(encoding="utf-8"))

    assert row == [text]


def test_escapes_and_names_that_are_not_utf_8_are_written_out(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["\x1b[31mred"], [["a\nb", "caf\udce9", "\u202egnp", 1, None]])

    assert path.read_text(encoding="utf-8") == "\\x1b[31mred\na\\nb,caf\\udce9,\\u202egnp,1,\n"


def test_numbers_stay_numbers_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    row = [-0.5, 1e-12, np.float64(0.25), np.int64(-3), float("nan"), np.nan, None, True]

    path = write_csv(tmp_path / "x.csv", "abcdefgh", [row])

    assert path.read_text().splitlines()[1] == "-0.5,1e-12,0.25,-3,,,,True"


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["a"], [[1]])

    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["b"], ([1 / zero] for zero in (1, 0)))

    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_tables_of_regimes_hold_no_formula(tmp_path: Path) -> None:
    from command_line import digit_folder

    root = digit_folder(tmp_path / "images", 60)
    (root / "digit-3").rename(root / "=cmd|' -C calc'!A0")

    write_regimes(DataSpec(name="image_folder", path=str(root), val_fraction=0.2), [20], 1, tmp_path / "out")

    labels = {row["label"] for row in csv.DictReader((tmp_path / "out" / "draw-0.csv").open())}
    assert "'=cmd|' -C calc'!A0" in labels
    assert not [label for label in labels if label.startswith("=")]
