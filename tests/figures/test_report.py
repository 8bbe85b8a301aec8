import csv
import html
import html.parser
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, browser
from command_line import call
from frames import LAYOUTS, STUDY, frame_of, search, trial, write_run

from coatnet_search.analysis.choose import choose
from coatnet_search.figures.report import html_page, write_report
from coatnet_search.figures.search.summary import summarize, summary_markdown, write_trials
from coatnet_search.record.fold import read_record

BAD = "<script>alert(1)</script>"
RECORDS = {
    "no trial": frame_of(),
    "no column": pd.DataFrame(),
    "only failures": frame_of(*(trial(n, state="failed", val_top1=None, val_loss=None) for n in range(3))),
    "one trial": frame_of(trial(0)),
    "one running trial": frame_of(trial(0, state="running", val_top1=None, val_loss=None, wall_s=None, ended_at=None)),
}


class Cells(html.parser.HTMLParser):
    """The raw values of a table's cells by column, and every element's name and addresses."""

    def __init__(self, text, table="front"):
        super().__init__()
        self.wanted, self.inside, self.values, self.tags, self.addresses = table, False, [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [found[key] for key in ("src", "href") if key in found]
        self.inside = found.get("id") == self.wanted if tag == "table" else self.inside
        if self.inside and tag == "td" and "data-column" in found:
            self.values.append((found["data-column"], found["data-value"]))


def page_of(frame, choices=(), note=None):
    return html_page(Path("runs/quickstart"), frame, STUDY, choices, 180, note=note)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_with_little_in_it_gives_a_page_that_says_so(name, tmp_path):
    path = write_report(tmp_path, RECORDS[name], STUDY, (), 180)

    text = path.read_text()
    assert STUDY["question"] in text
    assert (tmp_path / "figures" / "layouts.png").exists()
    assert json.dumps(summarize(RECORDS[name], STUDY), allow_nan=False)
    assert summary_markdown(RECORDS[name], STUDY).startswith("## How many")


def test_the_page_shows_the_numbers_of_the_summary():
    frame = search(40)
    choices = choose(frame, STUDY["objectives"], STUDY["choose"]["limit"], 3)

    data = summarize(frame, STUDY, choices, 180)
    page = page_of(frame, choices)

    for table, rows in (("front", data["front"]), ("chosen", data["chosen"])):
        expected = [(column, str(row[column])) for row in rows for column in data["columns"]]
        assert Cells(page, table).values == expected
    assert all(choice.reason in html.unescape(page) for choice in choices)


def test_the_page_asks_the_network_nothing():
    page = page_of(search(12))

    found = Cells(page)
    assert set(found.addresses) == {"data:,", "trials.csv"}
    assert not found.tags & {"iframe", "object", "embed", "base", "form", "img"}
    assert "default-src 'none'" in page


def test_the_notes_stand_before_the_first_figure():
    frame = frame_of(trial(0, "C-C-C-C", val_top1=1.0), trial(1, "C-C-T-T", val_top1=1.0))

    page = page_of(frame, note="digits is a demonstration")

    first_figure = page.index('class="figure"')
    assert page.index("This data cannot separate the layouts") < first_figure
    assert page.index("digits is a demonstration") < first_figure


def test_whatever_a_record_says_is_text(tmp_path):
    frame = frame_of(
        trial(0) | {"layout": BAD, "arch_id": BAD},
        trial(1, state="failed", val_top1=None, failure_kind=BAD, failure_message=f"</table>{BAD}", device=BAD),
        study=BAD,
    )
    study = {**STUDY, "question": f"{BAD} & ?"}

    path = write_report(tmp_path, frame, study, choose(frame, {"error": "min"}, {}, 1), 180, note=BAD)

    text = path.read_text()
    assert "<script>alert" not in text
    assert len(re.findall(r"</?script[ >]", text.partition("<script>")[0])) == 4  # the two elements of data
    assert "&lt;script&gt;alert(1)" in text
    assert BAD not in summary_markdown(frame, study, note=BAD)


def test_formulas_in_a_csv_are_text(tmp_path):
    frame = frame_of(trial(0, layout="C-C-T-T", val_loss=-0.5) | {"layout": "=cmd()", "device": "@x", "origin": "-1+1"})

    path = write_trials(frame.assign(**{"+name": 1}), tmp_path / "trials.csv")

    (row,) = csv.DictReader(path.open())
    assert (row["layout"], row["device"], row["origin"], row["'+name"]) == ("'=cmd()", "'@x", "'-1+1", "1")
    assert row["val_loss"] == "-0.5"


def test_of_ten_thousand_trials_the_table_shows_the_front_and_says_so():
    frame = search(10_000, epochs=2)

    page = page_of(frame)

    assert "2000 of 10000 trials, those on the front first" in page
    assert len(page) < 12e6


def test_the_answer_names_the_best_layout_with_its_interval():
    frame = frame_of(trial(0, "C-C-C-C", val_top1=0.88, val_loss=0.4), trial(1, "C-C-T-T", val_top1=0.90, val_loss=0.3))

    first, second = summarize(frame, STUDY, num_val=180)["answer"]

    assert "C-C-T-T has the best validation loss, 0.31" in first
    assert "(trial 1, 500 k multiply-adds; 95 % interval" in first
    assert "its own run showed 0.3000, the best of 2; accuracy 89." in first and "on 180 validation images" in first
    assert second.startswith("The best of the other layouts, C-C-C-C (trial 0), is 0.0")
    assert "cannot tell from noise: the first is the better one with a probability of 0." in second


def test_scores_at_chance_get_no_confident_answer():
    frame = frame_of(*(trial(n, LAYOUTS[n % 4], val_top1=0.29 + 0.01 * n) for n in range(11)))
    frame.attrs["num_classes"] = 3

    at_chance, above = (summarize(frame.assign(val_top1=top1), STUDY, num_val=359)["answer"][0]
                        for top1 in (frame["val_top1"], frame["val_top1"] + 0.3))  # fmt: skip

    assert at_chance.startswith("No network is told from guessing: of 3 equally frequent classes chance gets 33.3 %")
    assert "guessing" not in above


def test_measurements_on_a_busy_machine_are_said_to_be_so():
    busy = trial(0, throughput_images_per_s_spread=500.0, attributes={"disturbed": ["throughput"]})

    notices = summarize(frame_of(busy, trial(1)), STUDY)["notices"]

    assert any("the throughput of 1 of 2 trials (typical spread 50 %)" in text for text in notices)


def test_failures_are_counted_by_cause():
    frame = frame_of(
        trial(0), trial(1, state="failed", failure_kind="nan", failure_message="loss is NaN in epoch 2"),
        trial(2, state="failed", failure_kind="nan", failure_message="loss is NaN in epoch 1"),
        trial(3, state="refused", failure_message="attention on 4 tokens"),
    )  # fmt: skip

    failures = summarize(frame, STUDY)["failures"]

    assert failures == [
        {"kind": "nan", "count": 2, "trial": 1, "message": "loss is NaN in epoch 2"},
        {"kind": "refused", "count": 1, "trial": 3, "message": "attention on 4 tokens"},
    ]


def test_the_cost_is_planned_and_used():
    cost = summarize(frame_of(trial(0), trial(1)), STUDY)["cost"]

    assert (cost["planned"], cost["trials"], cost["states"]) == (24, 2, {"done": 2})
    assert (cost["trials_s"], cost["elapsed_s"], cost["devices"]) == (6.0, 3601.0, ["cpu"])


def test_smaller_budgets_are_said_to_be_left_out():
    notices = summarize(frame_of(trial(0), trial(1, epochs=2)), STUDY)["notices"]

    assert "Only the fullest budget (epochs 5) is compared; 1 trial with less is not." in notices


def test_without_a_choice_the_page_says_why():
    beyond, within = (summarize(frame_of(trial(0, macs=macs)), STUDY)["not_chosen"] for macs in (2e6, 1e5))

    assert beyond.startswith("Nothing is chosen: no trial keeps macs <= 1 M; the nearest is trial 0")
    assert within.startswith("Nothing is chosen yet")


def test_markdown_has_the_front_and_the_choice():
    frame = search(30)
    choices = choose(frame, STUDY["objectives"], {}, 2)

    text = summary_markdown(frame, STUDY, choices, 180, note="digits is a demonstration")

    assert text.count("\n| ") == 2 + len(summarize(frame, STUDY, num_val=180)["front"])
    assert "> digits is a demonstration" in text
    assert f"1. **{choices[0].row['layout']}**" in text


def test_the_page_and_the_command_line_show_the_same_numbers(tmp_path, capsys):
    run = write_run(tmp_path / "run", search(40))

    report, chosen = (call(capsys, verb, run, "--json").json for verb in ("report", "choose"))
    page = (run / "report.html").read_text()

    columns = report["columns"]
    assert Cells(page, "front").values == [(name, str(row[name])) for row in report["front"] for name in columns]
    assert Cells(page, "chosen").values == [(name, str(row[name])) for row in chosen for name in columns]
    assert [row["number"] for row in report["chosen"]] == [row["number"] for row in chosen]
    states = read_record(run)["state"].value_counts().to_dict()
    assert report["cost"]["states"] == states
    assert all(f"<dt>{state}</dt><dd>{count}</dd>" in page for state, count in states.items())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: scripts/setup-browser")
def test_a_thousand_trials_are_a_small_page_that_opens_from_disk_without_a_network(tmp_path):
    path = write_report(tmp_path, search(1000), STUDY, (), 180)

    asked, failed, said = [], [], []
    with browser("--enable-unsafe-swiftshader") as window:  # parallel coordinates need WebGL, by software without a GPU
        context = window.new_context(offline=True)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("console", lambda line: said.append((line.type, line.text)))
        page.on("pageerror", lambda error: said.append(("error", str(error))))
        page.goto(path.as_uri(), timeout=120_000)
        page.wait_for_function("document.querySelectorAll('.main-svg').length >= 5", timeout=120_000)

    assert path.stat().st_size < 8e6
    assert asked == [path.as_uri()]
    assert failed == [] and [line for line in said if line[0] in ("error", "warning")] == []
