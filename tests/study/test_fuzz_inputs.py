"""Mutated images, parquet files, CSV files and messages, given as a user would: an answer, or one line of error."""

import csv
import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import call
from PIL import Image

from coatnet_search.core.screen import Screen

PARTS = [b"\x00", b"\xff\xff", b"\x1b[2J", b"[/x]", b"[bold]", b"=1+1", b"\r\n", b'"', b",", b"nan", b"1e999", b"-1"]
KINDS = [("L", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("F", "TIFF"), ("P", "GIF")]
SIGNS = ["[", "]", "/", "x", "bold", "\x1b", "\\", "\x07", "é", "\n", " ", "{", "%s"]
SEEDS = [*range(24), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(24, 300))]


def flipped(rng: random.Random, content: bytes) -> bytes:
    """One to four random edits of a file's bytes: some overwritten, inserted, cut out or the end lost."""
    text = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(text) + 1), rng.randint(1, 12)
        match rng.randrange(4):
            case 0:
                text[place : place + length] = rng.randbytes(length)
            case 1:
                text[place:place] = rng.choice(PARTS)
            case 2:
                del text[place : place + length]
            case _:
                text = text[: max(place, 1)] if rng.random() < 0.3 else text
    return bytes(text)


def picture(rng: random.Random) -> bytes:
    mode, kind = rng.choice(KINDS)
    shape = (12, 12) if mode in ("L", "I;16", "F", "P") else (12, 12, len(mode))
    values = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, shape)
    array = values.astype({"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8))
    file = io.BytesIO()
    Image.fromarray(array, mode if mode == "P" else None).save(file, kind)
    return file.getvalue()


def folder(rng: random.Random, root) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            content = picture(rng)
            (root / name / f"{number:02}.png").write_bytes(flipped(rng, content) if rng.random() < 0.2 else content)


def table(rng: random.Random, root) -> None:
    root.mkdir()
    rows = {"image": [{"bytes": picture(rng), "path": None} for _ in range(24)], "label": [n % 2 for n in range(24)]}
    file = io.BytesIO()
    pq.write_table(pa.table(rows), file)
    (root / "train.parquet").write_bytes(flipped(rng, file.getvalue()))


def one_line_or_an_answer(printed) -> None:
    assert printed.code in (0, 2, 3, 4), printed.err
    assert "Traceback" not in printed.out + printed.err and "\x1b[2J" not in printed.out + printed.err
    if printed.code in (2, 3):
        assert len(printed.error) < 1200 and printed.error.isprintable()


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_images_and_tables_are_read_or_refused_in_one_line(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(seed)
    (folder if seed % 2 else table)(rng, tmp_path / "photos")

    one_line_or_an_answer(call(capsys, "new", "--data", "photos"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_csv_of_runs_is_imported_or_refused_in_one_line(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(seed)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["layout", "num_images", "error", "seed", "state"])
    for row in range(24):
        writer.writerow([("C-C", "C-T")[row % 2], 500 << (row // 8), 0.5 / (1 + row // 8), row % 4, "COMPLETE"])
    (tmp_path / "runs.csv").write_bytes(flipped(rng, file.getvalue().encode()))

    imported = call(capsys, "import", "runs.csv", "--out", "runs/mine")

    one_line_or_an_answer(imported)
    if imported.code == 0:
        one_line_or_an_answer(call(capsys, "choose", "runs/mine", "--json"))


@pytest.mark.parametrize("seed", range(60))
def test_any_message_is_printed_as_it_is(seed, capsys):
    rng = random.Random(seed)
    text = "".join(rng.choice(SIGNS) for _ in range(30))

    Screen().say(text)

    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown
    assert sum(shown.count(sign) for sign in "[]") >= sum(text.count(sign) for sign in "[]")
