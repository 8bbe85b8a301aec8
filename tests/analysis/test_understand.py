"""What a search has taught: tables from a record, sentences, figures, planned beside used."""

import json

import numpy as np
import pandas as pd
import pytest
from frames import STUDY, frame_of, search, trial

from coatnet_search.analysis.importance import importance
from coatnet_search.analysis.insights import growth, marginals, noisy_front, rungs_table
from coatnet_search.figures.insights import figures as insight_figures
from coatnet_search.figures.insights.pictures import write_search_pictures
from coatnet_search.figures.insights.summary import insights, rungs_of
from coatnet_search.figures.report import html_page
from coatnet_search.study.spending import spending

LOSS = {"val_loss": "min", "macs": "min"}
BEST = {"val_top1": "max", "macs": "min"}


def chosen(count=48, seed=0):
    """Trials whose loss follows from a width, which costs, and from a kernel, which does not; depth does nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        width, kernel, depth = (int(rng.integers(0, 3)) for _ in range(3))
        loss = 1.0 - 0.2 * width - 0.05 * kernel + rng.normal(0, 0.005)
        rows.append(trial(number, candidate={"width": width, "kernel": kernel, "depth": depth, "fixed": 1},
                          macs=1e5 * 4.0**width * (1 + rng.uniform(0, 0.2)), val_loss=loss, val_top1=1 - loss / 2,
                          ended_at=f"2026-01-02T04:{number:02}:00Z"))  # fmt: skip
    return frame_of(*rows)


def test_importance_finds_the_dimension_that_matters_whichever_way_is_better():
    smaller, larger = importance(chosen(), LOSS), importance(chosen(), BEST)

    assert smaller["dimension"][0] == larger["dimension"][0] == "width"
    assert set(smaller["dimension"]) == {"width", "kernel", "depth"}, "what is fixed is no dimension"
    assert smaller["importance"].sum() == pytest.approx(1.0)
    assert importance(chosen(8), LOSS).empty and importance(frame_of(), LOSS).empty


def test_marginals_at_equal_cost_keep_what_cost_does_not_explain():
    rows = marginals(chosen(), LOSS).set_index(["dimension", "value"])

    kernels, widths = rows.loc["kernel"], rows.loc["width"]
    assert kernels["effect"]["0"] - kernels["effect"]["2"] == pytest.approx(0.10, abs=0.03)
    assert (kernels["low"]["0"] > 0) and (kernels["high"]["2"] < 0)
    assert abs(widths["effect"]["0"] - widths["effect"]["2"]) < 0.32, "of 0.4, cost explains a part"
    assert rows.loc["depth"]["low"].lt(0).all() and rows.loc["depth"]["high"].gt(0).all()
    assert kernels["trials"].sum() == 48


def test_growth_tells_the_search_from_its_baseline_in_one_box():
    frame = chosen()
    frame["attributes"] = [{"baseline": True} if place >= 40 else {} for place in range(len(frame))]
    audits = frame.head(3).assign(number=[60, 61, 62], attributes=[{"audit": {}, "of": 1}] * 3, val_loss=0.0)
    frame = pd.concat([frame, audits], ignore_index=True)  # trained alone for an audit: no work of the search

    rows = growth(frame, LOSS, devices=0.5)

    search_rows, baseline = (rows[rows["origin"] == origin] for origin in ("search", "baseline"))
    assert list(search_rows["trials"]) == list(range(1, 41)) and list(baseline["trials"]) == list(range(1, 9))
    assert search_rows["hypervolume"].is_monotonic_increasing
    assert search_rows["device_hours"].iloc[-1] == pytest.approx(40 * 3.0 * 0.5 / 3600)
    assert growth(frame_of(), LOSS).empty


def test_networks_trained_twice_give_the_front_its_noise():
    rows = [trial(n, layout="C-C-C-C", macs=1e5 * (1 + n // 2), val_loss=[0.50, 0.52, 0.505, 0.51][n], seed=n % 2)
            for n in range(4)]  # fmt: skip
    frame = frame_of(*rows)
    frame["arch_id"] = ["a", "a", "b", "b"]

    table = noisy_front(frame, LOSS)

    assert table["trainings"].tolist() == [2, 2] and table.attrs["deviation"]["macs"] == 0.0
    assert table.set_index("arch_id")["p_front"]["a"] == 1.0 and 0.3 < table.set_index("arch_id")["p_front"]["b"] < 0.9
    assert table.attrs["hypervolume"]["low"] <= table.attrs["hypervolume"]["high"]
    assert noisy_front(frame[::2], LOSS).empty


def test_rungs_count_who_went_on_and_why():
    halved = [trial(0, state="done", epoch=9, attributes={"rung": 2, "went_on": ["rank", "quota"]}),
              trial(1, state="stopped", epoch=1, attributes={"rung": 0}),
              trial(2, state="stopped", epoch=3, attributes={"rung": 1, "went_on": ["rank"]})]  # fmt: skip
    study = {**STUDY, "recipe": {"epochs": 9}, "search": {"trials": 3, "halving": {"first": 1, "factor": 3}}}

    rows = rungs_table(frame_of(*halved), rungs_of(study))

    assert rows[["epochs", "reached", "by_rank", "by_quota", "stopped"]].to_numpy().tolist() == [
        [1, 3, 2, 0, 1], [3, 2, 0, 1, 1], [9, 1, 0, 0, 0]]  # fmt: skip
    (sentence,) = insights(frame_of(*halved), study).values["sentences"]
    assert "3 candidates for 13 epochs; all of them in full would have taken 27. 1 were trained in full" in sentence


def test_what_was_planned_stands_beside_what_was_used(tmp_path):
    (tmp_path / "plan.json").write_text(
        json.dumps({"trials": 20, "all_epochs": 100.0, "training": {"device_hours": 2}})
    )
    study = {**STUDY, "resources": {"gpus": 2}, "data_summary": {"num_train": 1000}}

    lines = {line.what: line for line in spending(chosen(10), study, tmp_path)}

    assert (lines["trials"].planned, lines["trials"].used) == (20, 10)
    assert (lines["epochs"].planned, lines["epochs"].used) == (100, 50)
    assert (lines["device-hours"].planned, lines["device-hours"].used) == (2, pytest.approx(10 * 3 * 2 / 3600))
    assert lines["multiply-adds trained"].used == pytest.approx(5 * 1000 * chosen(10)["macs"].sum())
    assert lines["disk"].planned is None and lines["disk"].used > 0
    (tmp_path / "plan.json").write_text("{")
    assert spending(frame_of(), STUDY, tmp_path)[0].planned == 24


@pytest.mark.parametrize(
    "frame", [frame_of(), pd.DataFrame(), search(24), chosen()], ids=["none", "bare", "search", "all"]
)
def test_any_search_can_be_drawn_and_has_its_section_in_the_page(frame, tmp_path):
    found = insights(frame, STUDY)

    drawn = insight_figures.all_figures(frame, LOSS, found)
    paths = write_search_pictures(frame, LOSS, found, tmp_path)
    page = html_page(tmp_path, frame, STUDY, found=found)

    assert [path.stem for path in paths] == list(drawn)
    assert all(f'id="figure-{name}"' in page for name in drawn) and 'id="spending"' in page
    assert all(figure.to_json() for figure in drawn.values()) and json.dumps(found.values, allow_nan=False)
