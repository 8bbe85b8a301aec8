"""The benchmark of a GPU: parts are bounded in time, go on where they were left, and claim nothing without a GPU."""

import json
import sys
from pathlib import Path
from typing import Any

import gpu
import pytest
from gpu_rows import Rows, Skip

CODES = {"slow": "import time; time.sleep(60)", "good": "", "lacking": "import sys; sys.exit('ray is not installed')",
         "skipped": "import sys; print('no pydantic', file=sys.stderr); sys.exit(75)"}  # fmt: skip


def started(name: str) -> list[str]:
    return [sys.executable, "-c", CODES[name]]


def states(path: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["part"], row["state"], row.get("reason", "")) for row in rows]


def test_without_a_gpu_it_says_so_at_once(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "computes", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])

    assert gpu.main() == 3
    assert "no GPU here: torch sees none" in capsys.readouterr().err


def test_a_part_that_overruns_its_time_is_ended_and_the_others_run(tmp_path):
    rows = tmp_path / "rows.jsonl"

    well = gpu.carry_out({"slow": 0.01, "skipped": 1, "lacking": 1, "good": 1}, rows, 2, started)

    assert not well
    assert states(rows) == [("slow", "out of time", ""), ("skipped", "skipped", "no pydantic"),
                            ("lacking", "failed", "ray is not installed"), ("good", "done", "")]  # fmt: skip


def test_the_same_command_goes_on_with_what_is_not_done(tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    parts = {"slow": 0.01, "good": 1}
    gpu.carry_out(parts, rows, 2, started)
    monkeypatch.setitem(CODES, "slow", "")

    well = gpu.carry_out(parts, rows, 2, started)

    assert well
    assert [state[:2] for state in states(rows)] == [("slow", "out of time"), ("good", "done"), ("slow", "done")]


def test_parts_for_which_no_time_is_left_are_not_started(tmp_path):
    assert not gpu.carry_out({"good": 1}, tmp_path / "rows.jsonl", 0, started)
    assert not (tmp_path / "rows.jsonl").exists()


def failing() -> dict[str, Any]:
    raise ValueError("differs by 0.5\nand more")


def lacking() -> dict[str, Any]:
    raise Skip("ray is not installed")


def test_a_row_is_found_once_and_one_that_failed_again(tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", "speed", rehearsal=False)

    rows.find("good", lambda: {"images_per_s": 7.0})
    rows.find("good", failing)
    rows.find("bad", failing)
    rows.find("bad", lambda: {"images_per_s": 8.0})

    assert rows.known() == [
        {"part": "speed", "what": "good", "images_per_s": 7.0},
        {"part": "speed", "what": "bad", "failed": "ValueError: differs by 0.5"},
        {"part": "speed", "what": "bad", "images_per_s": 8.0},
    ]


@pytest.mark.parametrize(("make", "expected"), [(lambda: {"images_per_s": 7.0}, {"note": "no numbers"}),
                                                (lacking, {"skipped": "ray is not installed"})])  # fmt: skip
def test_a_gpu_that_computes_nothing_gives_no_numbers(tmp_path, make, expected):
    rows = Rows(tmp_path / "rows.jsonl", "speed", rehearsal=True)

    rows.find("small", make)

    assert rows.known() == [{"part": "speed", "what": "small", **expected}]
