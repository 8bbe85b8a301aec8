"""Failures that concentrate on some layouts are told before the answer, those that chance spreads are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from frames import STUDY, frame_of, search, trial, write_run

from coatnet_search.analysis.failures_by_layout import failing_layouts
from coatnet_search.figures.report import html_page
from coatnet_search.figures.search.summary import summarize, summary_markdown

SENTENCE = (
    "6 of 8 trials of C-T-T-T failed (killed), none of 8 trials of C-C-C-C, which is more than chance: the answer is "
    "among the trials that did not fail."
)


def rows(**failed: tuple[int, int]) -> pd.DataFrame:
    """Trials by layout, as (failed, all of them)."""
    names = [(name.replace("_", "-"), place < some) for name, (some, all_) in failed.items() for place in range(all_)]
    lost = {
        "state": "failed",
        "val_top1": None,
        "val_loss": None,
        "failure_kind": "killed",
        "failure_message": "its process was killed",
    }
    return frame_of(*(trial(n, name, **(lost if fails else {})) for n, (name, fails) in enumerate(names)))


CRASHED = {"C_T_T_T": (6, 8), "C_C_C_C": (0, 8)}


def test_page_markdown_json_and_screen_tell_it_before_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = rows(**CRASHED)
    write_run(tmp_path / "quickstart", frame)

    data = summarize(frame, STUDY, num_val=180)
    page, text = html_page(Path("runs/quickstart"), frame, STUDY, (), 180), summary_markdown(frame, STUDY, (), 180)
    shown = call(capsys, "report", str(tmp_path / "quickstart"))

    assert data["failing"] == [SENTENCE]
    assert page.index(SENTENCE) < page.index("Of 10 comparable networks")
    assert text.index("**6 of 8 trials") < text.index("Of 10 comparable networks")
    out = " ".join(shown.out.split())  # lines are as long as the terminal
    assert out.index(SENTENCE) < out.index("Of 10 comparable networks")


@pytest.mark.parametrize(
    "failed",
    [
        {},
        {"C_T_T_T": (1, 8), "C_C_C_C": (0, 8)},
        {"C_T_T_T": (4, 8), "C_C_C_C": (4, 8)},
        {"C_T_T_T": (8, 8), "C_C_C_C": (8, 8)},
        {"C_T_T_T": (6, 8)},
        {"C_T_T_T": (0, 8), "C_C_C_C": (0, 8)},
    ],
)
def test_failures_without_a_pattern_are_not_told(failed: dict[str, tuple[int, int]]) -> None:
    assert failing_layouts(rows(**failed)) == []


def test_what_was_refused_or_still_runs_did_not_fail() -> None:
    frame = rows(**CRASHED)

    others = [
        frame.assign(state=frame["state"].replace("failed", state)) for state in ("refused", "running", "stopped")
    ]

    assert [failing_layouts(other) for other in others] == [[], [], []]


def test_many_layouts_are_counted_and_a_few_named() -> None:
    shares = dict.fromkeys(("C_T_C", "C_T_F", "C_T_T", "F_T_C", "F_T_F"), (2, 2))
    shares |= dict.fromkeys(("C_C_C", "C_C_F", "C_F_C", "C_F_F", "F_C_C", "F_C_F", "F_F_C"), (0, 2)) | {"F_F_F": (1, 8)}

    (text,) = failing_layouts(rows(**shares))

    assert text.startswith("10 of 10 trials of C-T-C, C-T-F, C-T-T and 2 more layouts failed (killed), 1 of 22 ")


def test_failures_by_chance_are_told_in_a_twentieth_of_all_studies_at_most() -> None:
    told = []
    for seed in range(200):
        frame = search(40, seed=seed)
        lost = np.random.default_rng(seed).random(40) < 0.3
        told.append(bool(failing_layouts(frame.assign(state=np.where(lost, "failed", "done")))))

    assert sum(told) <= 20  # of 10 expected at most; more than 20 once in a thousand
