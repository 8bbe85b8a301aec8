"""Sections of a report that fail, or do not end: left out and named, and the page is written."""

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from frames import frame_of, trial

from coatnet_search.analysis.importance import importance
from coatnet_search.core.errors import InputError
from coatnet_search.core.time_limit import OutOfTime, time_limit
from coatnet_search.figures.insights.summary import not_ranked
from coatnet_search.figures.sections import Sections
from coatnet_search.record.from_csv import import_runs


def for_ever() -> None:
    while True:
        time.sleep(0.01)


def test_a_block_that_takes_too_long_ends_in_any_thread_also_one_that_catches_every_error() -> None:
    ended: list[str] = []

    def stubborn() -> None:
        try:
            with time_limit(0.2):
                while True:
                    with contextlib.suppress(Exception):
                        for_ever()
        except OutOfTime:
            ended.append(threading.current_thread().name)

    thread = threading.Thread(target=stubborn, name="other", daemon=True)
    thread.start()
    thread.join(20)
    stubborn()

    assert ended == ["other", threading.current_thread().name]


def test_a_block_that_ends_in_time_is_not_followed_by_an_error() -> None:
    for _ in range(200):
        try:
            with time_limit(0.001):
                time.sleep(0.001)
        except OutOfTime:
            pass


def test_what_fails_or_does_not_end_is_left_out_with_its_reason_once() -> None:
    sections = Sections(0.2)

    made = [sections.make("slow", lambda: for_ever() or 1, lambda _: 2) for _ in range(2)]
    made += [sections.make("broken", lambda: 1 // 0, len), sections.make("fine", lambda: 3, int)]

    assert made == [2, 2, len("ZeroDivisionError: integer division or modulo by zero"), 3]
    assert sections.left_out == [
        "Left out of this report: slow (it took longer than 0.2 s).",
        "Left out of this report: broken (ZeroDivisionError: integer division or modulo by zero).",
    ]


def test_what_a_user_asked_for_wrongly_is_no_section_that_fails() -> None:
    def wrong() -> int:
        raise InputError("--up-to is for scaling studies")

    with pytest.raises(InputError):
        Sections().make("scaling", wrong, lambda _: 0)


def imported(folder: Path, rows: int, arms: int) -> Path:
    lines = [f"net{n % arms:02},{0.2 + (n * 37 % 101) / 500},{2 * 10**8 + n * 10**7}" for n in range(rows)]
    (folder / "arms.csv").write_text("\n".join(["arm,error,macs", *lines]) + "\n")
    return import_runs(folder / "arms.csv", {}, folder / "RUN").run


@pytest.mark.parametrize(("rows", "arms"), [(30, 30), (120, 20)])
def test_many_networks_of_ones_own_are_reported_in_seconds(
    rows: int, arms: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = imported(tmp_path, rows, arms)

    started = time.monotonic()
    told = call(capsys, "report", run)

    assert told.code == 0 and time.monotonic() - started < 60
    assert f"page: {run / 'report.html'}" in told.out and "Left out" not in told.out


def test_a_choice_with_many_values_is_not_ranked_and_it_is_said() -> None:
    rng = np.random.default_rng(0)
    layouts = ["C-C-C-C", "C-C-T-T"]
    frame = frame_of(*(
        trial(n, layouts[n % 2], macs=1e6 + n, val_top1=float(rng.random()),
              candidate={"optimizer": f"o{n % 20}", "note": f"n{n}", "arm": layouts[n % 2], "depth": n % 3,
                         "flip": ["no", "yes"][n % 5 % 2], "blocks": [n % 4, 1]})
        for n in range(80)
    ))  # fmt: skip

    table = importance(frame, {"error": "min", "macs": "min"})

    assert set(table["dimension"]) == {"depth", "flip", "blocks"}
    assert not_ranked(table) == [
        "Not ranked among the dimensions: optimizer (20 values that are no numbers; at most 10 are ranked); note (80 "
        "values in 80 trials, fewer than two trials a value)."
    ]


def test_a_page_is_written_where_a_section_fails_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = imported(tmp_path, 24, 3)
    monkeypatch.setattr("coatnet_search.figures.insights.summary.growth", lambda *_: 1 // 0)
    monkeypatch.setattr("coatnet_search.figures.insights.summary.importance", lambda *_: for_ever())
    monkeypatch.setattr("coatnet_search.figures.report.figures.all_figures", lambda *_, **__: {}["no figure"])

    told = call(capsys, "report", run, "--section-seconds", 0.5)

    assert told.code == 0
    page = (run / "report.html").read_text()
    for text in ("growth of the front (ZeroDivisionError: ", "which dimensions matter (it took longer than 0.5 s)",
                 "figures of the front (KeyError: "):  # fmt: skip
        assert f"Left out of this report: {text}" in told.out and text in page
