"""What a record with an audit lets a reader do: fidelities do not mix, scores are corrected or layouts kept apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames import LAYOUTS, STUDY, frame_of, trial

from coatnet_search.analysis.choose import choose
from coatnet_search.analysis.frame import searched
from coatnet_search.analysis.front import SEPARATE_FRONTS, layouts_table, pareto_front
from coatnet_search.core.errors import InputError
from coatnet_search.figures.audit import figures as audit_figures
from coatnet_search.figures.audit.summary import audit_section
from coatnet_search.figures.report import html_page, write_report
from coatnet_search.figures.search import figures, marks
from coatnet_search.figures.search.summary import summarize, summary_markdown
from coatnet_search.study.audit_of_record import audited_record, pairs

INHERITED: dict[str, Any] = {**STUDY, "evaluate": "inherited", "objectives": {"error": "min", "macs": "min"},
                             "choose": {"top": 3}}  # fmt: skip


def record(count: int = 44, audited: int | None = None, *, offsets: dict[str, float] | None = None, seed: int = 0,
           lost: int = 0) -> pd.DataFrame:  # fmt: skip
    """A search with inherited scores, ten points too high and each layout's ``offsets`` on top, and its audit: two
    trainings alone of ``audited`` networks, the first seed of the last ``lost`` of them failed."""
    rng, rows, alone = np.random.default_rng(seed), [], []
    for number in range(count):
        layout, macs = LAYOUTS[number % 4], float(10 ** rng.uniform(5.2, 6.6))
        true = 0.5 - 0.1 * (np.log10(macs) - 5.2) + rng.normal(0, 0.02)
        read = true + 0.1 + (offsets or {}).get(layout, 0.0)
        scores = {"macs": macs, "params": macs / 4, "candidate": {"width": 8 * (1 + number % 5)}}
        rows.append(trial(number, layout, epochs=0, curve=[], error=read, val_top1=1 - read, **scores))
        if number < (count if audited is None else audited):
            for place in (1, 2):
                error = true + rng.normal(0, 0.004)
                state = "failed" if place == 1 and number >= (audited or count) - lost else "done"
                alone.append({**rows[-1], "error": error, "val_top1": 1 - error, "epochs": 6, "num_images": 10_000,
                              "seed": place - 1, "state": state, "origin": "audit",
                              "attributes": {"audit": place, "of": number}})  # fmt: skip
    rows += [{**row, "number": count + place, "key": f"alone{place}"} for place, row in enumerate(alone)]
    return frame_of(*rows, study="inherited")


def test_pairs_join_an_inherited_score_with_its_trainings() -> None:
    frame = record(8, 5)

    found = pairs(frame, "error")

    assert [one.number for one in found] == [0, 1, 2, 3, 4] and {len(one.alone) for one in found} == {2}
    assert found[0].inherited == frame["error"][0] and found[0].alone == tuple(frame["error"][8:10])
    assert found[0].wall_s == 3.0


def test_trainings_alone_are_on_no_front_in_no_choice_and_no_figure() -> None:
    frame = record()

    front, chosen = pareto_front(frame, INHERITED["objectives"]), choose(frame, INHERITED["objectives"], top=50)
    drawn = marks.points(frame, INHERITED["objectives"], "macs", "error")

    assert len(frame) == 3 * len(searched(frame))
    assert front["number"].max() < 44 and max(one.row["number"] for one in chosen) < 44
    assert front.attrs["budget"]["epochs"] == 0 and front.attrs["other_budgets"] == 0
    assert sorted(drawn["number"]) == list(range(44)) and drawn["final"].all()
    assert layouts_table(frame, INHERITED["objectives"])["trials"].sum() == 44


def test_other_studies_are_not_judged() -> None:
    assert audited_record(frame_of(trial(0)), STUDY) is None and audit_section(frame_of(trial(0)), STUDY) is None


def test_without_an_audit_a_report_says_unaudited(tmp_path: Path) -> None:
    frame = record(12, 0)

    data = summarize(frame, INHERITED)
    page = write_report(tmp_path, frame, INHERITED).read_text()

    assert data["audit"]["state"] == "unaudited" and data["notices"][0].startswith("Unaudited: ")
    assert "Unaudited" in summary_markdown(frame, INHERITED)
    assert 'id="audit-groups"' not in page and "Unaudited" in page
    assert not (tmp_path / "figures" / "audit-scores.png").exists()


def test_offsets_that_are_known_are_taken_off_before_anything_is_compared(tmp_path: Path) -> None:
    frame = record(offsets={"C-C-C-C": -0.1})
    raw = {int(number): float(error) for number, error in zip(frame["number"], frame["error"], strict=True)}

    found = audited_record(frame, INHERITED)
    data = summarize(frame, INHERITED)
    page = write_report(tmp_path, frame, INHERITED).read_text()

    assert found.decision.state == "corrected" and "corrected" in data["notices"][0]
    moved = {row["number"]: row["error"] - raw[row["number"]] for row in data["trials"] if row["layout"] == "C-C-C-C"}
    assert len(moved) == 11 and np.allclose(list(moved.values()), 0.0, atol=0.01)  # its offset: 0.1 - 0.1
    assert found.frame["inherited_error"].tolist() == list(raw.values())
    assert (found.frame["error"][44:] == frame["error"][44:]).all()
    fronts = [pareto_front(rows, INHERITED["objectives"]) for rows in (frame, found.frame)]
    favoured = [front["layout"].eq("C-C-C-C").mean() for front in fronts]
    assert favoured[0] > 0.6 > favoured[1]
    assert 'id="figure-audit-scores"' in page and (tmp_path / "figures" / "audit-offsets.png").stat().st_size > 5000


def test_where_offsets_are_not_known_layouts_are_kept_apart(tmp_path: Path) -> None:
    frame = record(44, 24, offsets={"C-C-C-C": -0.1})

    section = audit_section(frame, INHERITED)
    data = summarize(frame, INHERITED, audit=section)
    page = html_page(tmp_path, frame, INHERITED, audit=section)

    assert section.refused and section.audited_record.frame.attrs[SEPARATE_FRONTS]
    assert data["answer"][0] == "Layouts cannot be compared by their inherited scores."
    assert all(f"{name} " in data["answer"][1] for name in LAYOUTS)
    assert {row["layout"] for row in data["front"]} == set(LAYOUTS)  # each has a front of its own
    assert data["not_chosen"].startswith("Nothing is chosen: the supernet favours layouts")
    assert "--layout NAME" in page
    line = figures.front(section.audited_record.frame, INHERITED["objectives"], "macs").data[0]
    assert line.name == "front" and len(line.x) == 0


def test_one_layout_alone_may_be_chosen_from_and_two_of_unknown_offset_may_not() -> None:
    frame = record(44, 24, offsets={"C-C-C-C": -0.1})

    one = audited_record(frame, INHERITED, layouts=["C-C-C-C"])
    two = audited_record(frame, INHERITED, layouts=["C-C-T-T", "C-T-T-T"])

    assert one.decision.state == "comparable" and set(one.frame["layout"]) == {"C-C-C-C"}
    assert two.decision.state == "refused" and "C-C-T-T (6 of 10) and C-T-T-T (6 of 10)" in two.decision.says
    with pytest.raises(InputError, match="--layout T-T: no finished trial has it; layouts with finished trials: C-C"):
        audited_record(frame, INHERITED, layouts=["T-T"])


def test_what_is_lost_and_what_is_unequal_is_said() -> None:
    frame = record(24, 24, lost=3)
    lopsided = frame[~((frame["layout"] == "C-C-T-T") & (frame["number"] >= 24) & (frame["number"] < 60))]

    notes, unequal = audited_record(frame, INHERITED).notes, audited_record(lopsided, INHERITED).notes

    assert "3 of 24 networks of the audit do not count yet" in notes[0] and "3 done and 3 failed" in notes[0]
    assert any(text.startswith("Unequal numbers of networks") and "C-C-T-T " in text for text in unequal)


def test_the_numbers_of_an_audit_are_plain_values_in_every_case() -> None:
    for frame in (record(12, 0), record(12, 4), record(), record(44, 24, offsets={"C-C-C-C": -0.1})):
        values = audit_section(frame, INHERITED).values
        assert json.loads(json.dumps(values, allow_nan=False))["state"] == values["state"]


def test_figures_of_an_audit_draw_each_network_in_its_layouts_colour() -> None:
    found = audited_record(record(), INHERITED).found

    scores, offsets = audit_figures.scores(found), audit_figures.offsets(found)

    drawn = {trace.name: trace for trace in scores.data}
    assert set(drawn) == {"equal", *LAYOUTS} and sum(len(drawn[name].x) for name in LAYOUTS) == 44
    assert drawn["C-C-T-T"].marker.color == marks.looks(record())["C-C-T-T"].colour
    assert (np.array(drawn["C-C-T-T"].error_y.array) >= 0).all()
    assert len(offsets.data[-1].y) == 4 and np.allclose(offsets.data[-1].y, 10, atol=1)
