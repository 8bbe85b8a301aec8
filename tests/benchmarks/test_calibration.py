"""The coarse part of the calibration table: few worlds, wide bounds, and the table that is written into the docs."""

import numpy as np
import pytest
from calibration import MARK, PAGE, PARTS, Row, effect_rows, markdown, search_rows, training_rows, write

WORLDS = 12


@pytest.fixture(scope="module")
def searches() -> dict[tuple[str, str], Row]:
    return {(row.what, row.world): row for row in search_rows(WORLDS)}


def test_intervals_of_chosen_networks_hold(searches: dict[tuple[str, str], Row]) -> None:
    chosen = [row for (what, _), row in searches.items() if what == "chosen network, 95 % interval"]

    assert len(chosen) == 6 and np.mean([row.actual for row in chosen]) > 0.88


def test_the_luck_of_the_best_is_taken_off(searches: dict[tuple[str, str], Row]) -> None:
    for world in ("equal networks", "equal, best five again"):
        luck = searches["(before: best run less the truth, points)", world].actual
        assert luck < -1.2 and searches["chosen error less the truth, points", world].actual > luck / 2


def test_the_front_and_its_volume_are_as_probable_as_is_said(searches: dict[tuple[str, str], Row]) -> None:
    volumes = [row.actual for (what, _), row in searches.items() if what.startswith("hypervolume")]
    fronts = [row for (what, _), row in searches.items() if what.startswith("P(on the front)") and row.cases > 50]

    assert np.mean(volumes) > 0.75
    assert fronts and max(abs(row.nominal - row.actual) for row in fronts) < 0.3


def test_tables_of_effects_seldom_show_a_false_one() -> None:
    assert np.mean([row.actual for row in effect_rows(30)]) > 0.88


def test_two_seeds_and_too_brief_trainings() -> None:
    rows = list(training_rows(15))

    assert np.mean([row.actual for row in rows if row.what.startswith("accuracy")]) > 0.85
    assert rows[-1].actual < 0.12


def test_the_page_holds_a_row_of_every_part(tmp_path) -> None:  # type: ignore[no-untyped-def]
    text, page = PAGE.read_text(encoding="utf-8"), tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    write([Row("what", "world", 0.9, 0.8, 0.1, 7)], page)

    assert "| what | world | 0.90 | 0.80 ± 0.10 | 7 |" in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").count(MARK) == 2 and "What does not hold" in page.read_text()
    for said in ("chosen network", "P(on the front)", "hypervolume", "tables without a false effect",
                 "accuracy over seeds", "audit's tau", "curve's 90 % interval", "P(A better than B)", "P(best of four)",
                 "expected regret"):  # fmt: skip
        assert f"| {said}" in text, said
    assert set(PARTS) == {"search", "effects", "trainings", "audit", "curves"} and markdown([]).count("\n") == 1
