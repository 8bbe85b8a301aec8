"""The pages without a browser: what each says of good and of bad records, and that it agrees with the command line."""

import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from frames import STUDY, frame_of, search, trial, write_run
from streamlit.testing.v1 import AppTest

from coatnet_search.analysis.frame import numbers
from coatnet_search.analysis.front import comparable
from coatnet_search.core.errors import InputError
from coatnet_search.figures.compare.summary import conclusion, front_difference
from coatnet_search.figures.insights import marks as insight_marks
from coatnet_search.figures.status import status
from coatnet_search.record.fold import encode
from coatnet_search.record.merge import merge
from runs_on_disk import Site, words
from views import search as search_view
from views.choose import steps_of

BAD = "<script>alert(1)</script> :red[x] $y$ [z](http://example.org) `=cmd()`"
NOTHING = {"val_top1": None, "val_loss": None}
RECORDS = {
    "no trial": frame_of(),
    "one trial": frame_of(trial(0)),
    "one running trial": frame_of(trial(0, state="running", wall_s=None, ended_at=None, **NOTHING)),
    "only failures": frame_of(*(trial(n, state="failed", failure_kind="nan", failure_message=BAD, **NOTHING)
                                for n in range(3))),
    "missing metrics": frame_of(trial(0, val_loss=float("nan")), trial(1, throughput_images_per_s=None)),
}  # fmt: skip
PUBLISHED = Path(__file__).parents[2] / "studies" / "records"
PAGES = ("search", "architecture", "scaling", "compare", "choose")


@pytest.fixture(autouse=True)
def this_main() -> Iterator[None]:
    """Streamlit puts its script in the place of ``__main__``, which processes that later tests spawn would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def page(root: Path, name: str, **query: str) -> AppTest:
    """A page as a visitor with this address gets it."""

    def script(root, name):
        import app

        app.show(app.Site(root), name)

    test = AppTest.from_function(script, args=(root, name), default_timeout=120)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def said(test: AppTest) -> str:
    """Everything that a page says in words."""
    kinds = (test.title, test.header, test.markdown, test.info, test.warning, test.error, test.caption)
    return "\n".join(element.value.replace("\\", "") for kind in kinds for element in kind)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_is_the_case_of_any_record(name, tmp_path):
    for record, frame in RECORDS.items():
        write_run(tmp_path / record.replace(" ", "-"), frame)

    tests = {record: page(tmp_path, name, run=record.replace(" ", "-")) for record in RECORDS}

    assert {record: list(test.exception) for record, test in tests.items()} == {key: [] for key in RECORDS}
    assert all(said(test) for test in tests.values())


@pytest.mark.parametrize("name", PAGES)
def test_without_a_run_a_page_says_how_to_make_one(name, tmp_path):
    test = page(tmp_path, name)

    assert "coatnet-search run quickstart" in said(test)
    assert not test.exception


@pytest.mark.parametrize("asked", ["../secret", "..", "/etc", "link", "a/b", "."])
def test_nothing_outside_the_root_is_opened(asked, tmp_path):
    write_run(tmp_path / "secret", frame_of(trial(0)), {**STUDY, "question": "SECRET"})
    write_run(tmp_path / "runs" / "own", frame_of(trial(0)))
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")

    test = page(tmp_path / "runs", "search", run=asked)

    assert "SECRET" not in said(test)
    with pytest.raises(InputError, match="not a run in"):
        Site(tmp_path / "runs").open(asked)
    assert Site(tmp_path / "runs").names() == ["own"]


@pytest.mark.parametrize("content", ["objectives: [", "name: x", "[]", "objectives: {}"])
def test_a_study_that_cannot_be_read_is_named_with_its_file(content, tmp_path):
    write_run(tmp_path / "run", frame_of(trial(0)))
    (tmp_path / "run" / "study.yaml").write_text(content)

    test = page(tmp_path, "search", run="run")

    assert "study.yaml" in said(test)
    assert not test.exception


def test_whatever_a_study_says_is_text(tmp_path):
    write_run(tmp_path / "run", frame_of(trial(0) | {"layout": BAD}), {**STUDY, "question": BAD})

    test = page(tmp_path, "search", run="run")

    assert test.header[0].value == words(BAD)
    assert not set("<[$`") & set(words(BAD).replace("\\<", "").replace("\\[", "").replace("\\$", "").replace("\\`", ""))


def test_a_trial_in_the_address_opens_its_architecture(tmp_path):
    frame = search(12)
    write_run(tmp_path / "run", frame)

    test = page(tmp_path, "search", run="run", trial="4")

    assert frame["arch_id"][4] in said(test)
    assert "trial 4" in said(test)


def test_up_to_four_networks_stand_beside_each_other(tmp_path):
    write_run(tmp_path / "run", search(12))

    test = page(tmp_path, "architecture", run="run", networks="0,1,coatnet-0,C-C-T-T,C-T-T-T,no-such")

    assert "The first 4 of 5 are shown." in said(test)
    assert "no-such" in said(test) and not test.exception
    assert len(test.dataframe) == 4


def test_choose_agrees_with_the_command_that_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "own", search(40))

    test = page(Path("runs"), "choose", run="own")
    test.number_input[0].set_value(2).run()
    done = call(capsys, *shlex.split(test.code[0].value)[1:], "--json")

    assert list(test.dataframe[0].value["trial"]) == [row["number"] for row in done.json]
    assert len(done.json) == 2


def test_the_pages_keep_to_what_an_audit_says_of_inherited_scores(tmp_path, monkeypatch, capsys):
    """The published search by a supernet of CIFAR-10: layouts cannot be compared, networks of one layout can."""
    monkeypatch.chdir(tmp_path)
    merge([PUBLISHED / "cifar10-inherited.jsonl"], tmp_path / "runs" / "own")

    searched = page(Path("runs"), "search", run="own")
    test = page(Path("runs"), "choose", run="own")
    refused = said(test)
    next(one for one in test.multiselect if one.key == "layouts").set_value(["C-C-C-C"]).run()
    command = shlex.split(test.code[0].value)
    done = call(capsys, *command[1:], "--json")

    assert "Layouts cannot be compared by their inherited scores" in said(searched)
    assert not test.exception and "layouts cannot be compared. Choose within one" in refused
    assert command[command.index("--layout") + 1] == "C-C-C-C"
    assert list(test.dataframe[0].value["trial"]) == [row["number"] for row in done.json]


def test_a_slider_s_limit_is_in_the_command_and_kept_by_what_is_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = search(40)
    write_run(tmp_path / "runs" / "own", frame)

    test = page(Path("runs"), "choose", run="own")
    test.multiselect[0].set_value(["macs", "params"]).run()
    slider = next(one for one in test.select_slider if one.key == "limit-params")
    slider.set_value(steps_of(numbers(comparable(frame, STUDY["objectives"]), "params"), None)[20]).run()
    command = shlex.split(test.code[0].value)
    done = call(capsys, *command[1:], "--json")

    limit = float(next(word for word in command if word.startswith("params=")).removeprefix("params="))
    assert list(test.dataframe[0].value["trial"]) == [row["number"] for row in done.json]
    assert all(row["params"] <= limit for row in done.json)


def test_a_rule_that_nothing_keeps_is_a_sentence_with_the_nearest_trial(tmp_path):
    write_run(tmp_path / "run", search(8), {**STUDY, "choose": {"limit": {"macs": 1.0}}})

    test = page(tmp_path, "choose", run="run")

    assert "the nearest is trial" in said(test)
    assert not test.exception


def test_a_study_stands_where_its_record_and_its_driver_say(tmp_path):
    done, gone = write_run(tmp_path / "done", search(24)), write_run(tmp_path / "gone", search(4))
    (gone / "driver.json").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "since": "now"}))
    frame = search(24)

    ended = int((frame["state"] != "running").sum())
    found = status(done, frame, STUDY)

    assert (found["ended"], found["planned"], found["progress"]) == (ended, 24, ended / 24)
    assert status(gone, search(4), STUDY)["state"].startswith("interrupted")
    (gone / "driver.json").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}))
    running = status(gone, search(4), STUDY)
    assert running["state"] == "running" and running["eta_s"] > 0


def test_the_difference_of_two_fronts_is_that_of_their_best_at_each_cost():
    first = frame_of(trial(0, macs=1e6, val_top1=0.80), trial(1, macs=4e6, val_top1=0.90))
    second = frame_of(trial(0, macs=2e6, val_top1=0.95), trial(1, macs=3e6, val_top1=0.70))

    table = front_difference(first, second, {"error": "min", "macs": "min"}, "macs", "error", 5000)

    assert list(table["x"]) == [2e6, 4e6]
    assert np.allclose(table["difference"], [-0.15, -0.05], atol=0.005)  # of posterior means
    assert (table["low"] < table["difference"]).all() and (table["high"] < 0).all()
    assert "second is better at 2 of 2 steps" in conclusion(table, ("first", "second"), "macs", "error", "min")


def test_differences_that_the_images_cannot_show_are_called_none():
    first, second = (frame_of(trial(0, val_top1=top1)) for top1 in (0.80, 0.82))

    table = front_difference(first, second, {"error": "min"}, "macs", "error", 200)

    assert "nowhere do first and second differ" in conclusion(table, ("first", "second"), "macs", "error", "min")


def test_the_best_of_many_equal_networks_is_not_said_to_beat_another_study():
    """Twenty networks of equal error against one: the luck of the best of twenty is no difference."""
    rng = np.random.default_rng(3)
    accuracies = 0.9 + 0.012 * rng.standard_normal(20)
    many = frame_of(*(trial(i, macs=1e6, val_top1=float(top1)) for i, top1 in enumerate(accuracies)))
    single = frame_of(trial(0, macs=1e6, val_top1=0.9))

    table = front_difference(single, many, {"error": "min"}, "macs", "error", 600)

    lead = -float(table["difference"][0])
    assert lead < 0.8 * (accuracies.max() - 0.9)
    assert table["low"][0] < 0 < table["high"][0]
    assert "nowhere do one and many differ" in conclusion(table, ("one", "many"), "macs", "error", "min")


def test_serving_others_is_said_aloud_and_a_taken_port_is_refused(tmp_path, capsys, monkeypatch):
    served = []
    monkeypatch.setattr("streamlit.App.run", lambda _app, config: served.append(config))
    monkeypatch.setattr(sys, "argv", ["coatnet-search"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = call(capsys, "dashboard", tmp_path, "--port", taken.getsockname()[1])
        free = taken.getsockname()[1]

    here = call(capsys, "dashboard", tmp_path, "--port", free)
    wide = call(capsys, "dashboard", tmp_path, "--port", free, "--host", "0.0.0.0")

    assert (refused.code, here.code, wide.code) == (3, 0, 0)
    assert "no password" in wide.err and "no password" not in here.err
    assert [one["server.address"] for one in served] == ["127.0.0.1", "0.0.0.0"]
    assert served[0]["browser.gatherUsageStats"] is False


def test_dimensions_are_ranked_over_all_trials_and_asked_once_of_each_record(tmp_path, monkeypatch):
    frame = search(60)
    depths = [1 + number % 3 for number in frame["number"]]
    frame["candidate"] = [{"s1.depth": depth, "s2.depth": number % 2} for number, depth in enumerate(depths)]
    frame["val_loss"] = [0.3 * depth for depth in depths]
    write_run(tmp_path / "run", frame)
    asked, real = [], search_view.importance
    monkeypatch.setattr(search_view, "importance", lambda *given: asked.append(1) or real(*given))

    tests = [page(tmp_path, "search", run="run", view="dimensions", **more) for more in ({}, {"layouts": "C-C-C-C"})]

    ranked = [json.loads(test.get("plotly_chart")[0].proto.spec)["data"][1] for test in tests]
    assert asked == [1]
    assert [one["y"][-1] for one in ranked] == ["s1.depth", "s1.depth"]
    assert "comparable trials, whatever the filters" in said(tests[1]) and not tests[1].exception


def test_parallel_coordinates_are_of_the_dimensions_that_matter_or_of_those_picked(tmp_path):
    frame = search(60)
    frame["candidate"] = [{"s1.depth": 1 + number % 3, "s2.depth": number % 2, "s3.depth": 5} for number in range(60)]
    write_run(tmp_path / "run", frame)

    asked = {"run": "run", "view": "parallel"}
    usual, picked = (page(tmp_path, "search", **asked, **more) for more in ({}, {"dimensions": "s2.depth"}))

    axes = [[axis["label"] for axis in json.loads(test.get("plotly_chart")[0].proto.spec)["data"][0]["dimensions"]]
            for test in (usual, picked)]  # fmt: skip
    assert sorted(axes[0][1:3]) == ["s1.depth", "s2.depth"] and axes[1][:2] == ["layout", "s2.depth"]
    assert sorted(axes[0][3:]) == sorted(axes[1][2:]) == ["multiply-adds", "validation loss"]
    assert not usual.exception and not picked.exception


def test_of_many_trials_the_best_are_lines(monkeypatch):
    monkeypatch.setattr(insight_marks, "MOST_LINES", 7)
    frame = search(60)

    axes, rows = insight_marks.parallel(frame, STUDY["objectives"], [])

    assert sorted(rows["val_loss"]) == sorted(frame["val_loss"])[:7]
    assert {len(axis.places) for axis in axes} == {7}


def test_stages_are_timed_when_asked_and_a_network_too_large_for_that_is_named(tmp_path):
    write_run(tmp_path / "run", search(12))

    test = page(tmp_path, "architecture", run="run", networks="0,coatnet-5")
    before = set(test.dataframe[0].value)
    test.toggle[0].set_value(True).run()

    assert "time" not in before and "time" in set(test.dataframe[0].value)
    shares = [float(cell.split("(")[1].removesuffix("%)")) for cell in test.dataframe[0].value["time"]]
    assert len(shares) == 5 and 50 < sum(shares) <= 102 and min(shares) >= 0
    assert "time" not in set(test.dataframe[1].value)
    assert "one thread of this machine's CPU" in said(test) and "are timed part by part" in said(test)


def test_networks_stand_among_the_peers_of_their_study(tmp_path):
    merge([PUBLISHED / "cifar10-peers.jsonl"], tmp_path / "run")

    test = page(tmp_path, "architecture", run="run")

    drawn = {trace["name"]: trace for trace in json.loads(test.get("plotly_chart")[1].proto.spec)["data"]}
    assert any("timm:" in name for name in drawn["networks of timm"]["text"])
    assert len(drawn["these networks"]["x"]) == 2


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://tracker:5000", "http://tracker:5000/#/experiments/1/runs/abc"),
        ("https://me:secret@tracker/a b?token=1", "https://tracker/a%20b/#/experiments/1/runs/abc"),
        ("http://[::1]:5000/", "http://[::1]:5000/#/experiments/1/runs/abc"),
        ("javascript:alert(1)", None), ("sqlite:///runs/mlflow.db", None), ("http://a\"><script>", None),
        ("http://host:port", None),
    ],
)  # fmt: skip
def test_the_link_to_mlflow_is_an_address_without_secrets(uri, link, tmp_path):
    run = write_run(tmp_path / "run", search(4), {**STUDY, "tracking": {"uri": uri}})
    (run / "mirror.json").write_text(json.dumps({"page": "#/experiments/1/runs/abc"}))

    test = page(tmp_path, "search", run="run")

    assert Site(tmp_path).open("run").mlflow == link
    assert [one.proto.url for one in test.get("link_button")] == ([link] if link else [])
    (run / "mirror.json").write_text(json.dumps({"page": "/../x#<script>"}))
    assert (Site(tmp_path).open("run").mlflow or "").count("script") == 0


def test_a_choice_at_an_amount_of_data_is_that_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    merge([PUBLISHED / "cifar10-scaling.jsonl"], tmp_path / "runs" / "own")

    test = page(Path("runs"), "choose", run="own", at="1000000")
    refused = said(test)
    test.checkbox[0].check().run()
    test.number_input(key="compute").set_value(1e16).run()
    command = shlex.split(test.code[0].value)
    done = call(capsys, *command[1:], "--json")

    assert "--beyond" in command and command[command.index("--at-data") + 1] == "1e+06"
    assert command[command.index("--at-compute") + 1] == "1e+16"
    assert "calibrated" in refused and not test.exception
    assert list(test.dataframe[0].value["trial"]) == [row["number"] for row in done.json]


@pytest.mark.parametrize("name", PAGES)
def test_a_record_that_is_newer_torn_or_gone_is_said_or_read_as_far_as_it_goes(name, tmp_path):
    newer, torn, gone = (write_run(tmp_path / kind, search(6)) for kind in ("newer", "torn", "gone"))
    (newer / "trials.jsonl").write_bytes(encode({"event": "started", "schema": 999, "number": 0, "key": "k"}))
    with (torn / "trials.jsonl").open("ab") as file:
        file.write(b'{"event": "started", "num')
    (gone / "trials.jsonl").unlink()

    tests = {kind: page(tmp_path, name, run=kind) for kind in ("newer", "torn", "gone")}

    assert {kind: list(test.exception) for kind, test in tests.items()} == {"newer": [], "torn": [], "gone": []}
    assert "newer" in said(tests["newer"])
    assert all(said(test) for test in tests.values())


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("search", {"trial": "9" * 30}), ("search", {"trial": "-1"}), ("search", {"trial": BAD, "view": "no-such"}),
        ("search", {"across": "__class__", "up": BAD, "layouts": BAD}), ("choose", {"top": "abc", "limits": BAD}),
        ("choose", {"top": "-3", "limit-macs": "nan"}), ("compare", {"with": "../run"}),
        ("architecture", {"networks": f"{BAD},{'9' * 30},-1,coatnet-99"}), ("scaling", {"at": "nan", "figure": BAD}),
    ],
)  # fmt: skip
def test_whatever_an_address_asks_for_a_page_is_shown(name, asked, tmp_path):
    write_run(tmp_path / "run", search(6))

    test = page(tmp_path, name, run="run", **asked)

    assert not test.exception
    assert said(test)
