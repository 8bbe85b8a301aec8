"""Runs from elsewhere: a CSV file becomes a run that all answers can be asked of; its mistakes are named by line."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import call
from mutations import mutated

from coatnet_search.analysis.scaling import fit_scaling
from coatnet_search.analysis.scaling_runs import scaling_runs
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_record
from coatnet_search.record.from_csv import Imported, import_runs

MAPPED = {"arm": "net", "num_images": "n", "error": "err"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scaling_csv(*, seeds: int = 2, extra: str = "") -> str:
    """Two layouts on five amounts of data."""
    lines = [f"net,n,err,seed,macs,epochs,train_loss,note{extra and ',more'}"]
    for seed in range(seeds):
        for name, factor, power in (("C-C-C-C", 2.0, 0.4), ("C-T-T-T", 4.0, 0.45)):
            for count in (500, 1000, 2000, 4000, 8000):
                error = (0.05 + factor * count**-power) * (1 + 0.01 * seed)
                lines.append(f"{name},{count},{error:.5f},{seed},4e6,10,{error:.3f},fine{extra}")
    return "\n".join(lines) + "\n"


def imported(text: str, columns: dict[str, str] | None = None, **options: Any) -> Path:
    file = Path("runs.csv")
    file.write_text(text, encoding="utf-8")
    return import_runs(file, columns or {}, Path("out"), **options).run


def refusal(text: str, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        imported(text, columns)
    assert not Path("out").exists()
    return str(caught.value)


def test_runs_become_a_record_with_their_numbers() -> None:
    run = imported(scaling_csv(), MAPPED)

    frame = read_record(run)
    row = frame.iloc[0]
    assert (len(frame), set(frame["state"]), frame.attrs["study"]) == (20, {"done"}, "runs")
    assert (row["layout"], row["num_images"], row["seed"], row["epochs"]) == ("C-C-C-C", 500, 0, 10)
    assert row["error"] + row["val_top1"] == pytest.approx(1)
    assert (row["macs"], row["train_loss"]) == (4e6, pytest.approx(row["error"], abs=1e-3))
    assert frame["key"].is_unique
    assert frame["arch_id"].nunique() == 2


def test_a_scaling_study_can_be_made_of_them() -> None:
    run = imported(scaling_csv(), MAPPED, num_val=1000)

    scaling = fit_scaling(read_record(run), num_val=1000)

    assert scaling.arms == ("C-C-C-C", "C-T-T-T")
    assert scaling.num_images == [500, 1000, 2000, 4000, 8000]
    assert scaling.noise["seed_sd"].notna().all()


def test_report_scaling_and_choose_work_on_them(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.csv").write_text(scaling_csv(extra=",1"))

    made = call(capsys, "import", "mine.csv", "--columns", "arm=net,num_images=n,error=err", "--json")
    report = call(capsys, "report", "runs/mine", "--json")
    scaling = call(capsys, "scaling", "runs/mine", "--json")
    chosen = call(capsys, "choose", "runs/mine", "--at-data", "16000", "--json")
    front = call(capsys, "choose", "runs/mine")

    assert [one.code for one in (made, report, scaling, chosen, front)] == [0] * 5, report.err + front.err
    assert made.json["states"] == {"done": 20}
    assert made.json["ignored"] == ["note", "more"]
    section = report.json["scaling"]
    for ours, theirs in zip(section["answers"][0]["arms"], scaling.json["answers"][0]["arms"], strict=True):
        assert ours == theirs
    assert section["verdicts"][0].startswith("At 8,000 images")
    assert section["num_images"] == scaling.json["num_images"]
    assert section["settings"][0].startswith("runs imported from mine.csv: how they were trained")
    assert chosen.json[0]["rank"] == 1
    assert "no files: runs from elsewhere have no architectures" in front.err
    page = Path("runs/mine/report.html").read_text()
    assert "coatnet-search import mine.csv --columns arm=net,num_images=n,error=err --out runs/mine" in page


def test_results_of_a_search_have_a_front() -> None:
    run = imported("layout,val_top1,params,latency_ms\nA,0.9,1e6,3\nB,0.8,5e5,2\nC,0.7,9e5,4\n")

    study = yaml.safe_load((run / "study.yaml").read_text())
    frame = read_record(run)
    assert study["objectives"] == {"error": "min", "latency_ms": "min"}
    assert study["imported"]["assumed"] == []
    assert frame["arch_id"].nunique() == 3
    assert frame["num_images"].isna().all()
    with pytest.raises(InputError, match="no scaling study"):
        scaling_runs(frame)


def test_a_run_without_a_result_is_a_failed_one() -> None:
    run = imported("arm,num_images,error,epochs\nA,10,0.5,1\nA,20,nan,1\nA,40,,1\nB,10,0.4,1\n")

    frame = read_record(run)
    assert frame["state"].tolist() == ["done", "failed", "failed", "done"]
    assert frame["failure_message"].tolist()[1] == "line 3 has no result"


def test_without_seeds_nothing_is_taken_for_a_pair_and_without_epochs_it_is_said() -> None:
    run = imported("arm,num_images,error\nA,10,0.5\nA,10,0.52\nB,10,0.4\nB,20,0.3\nA,20,0.4\n")

    frame = read_record(run)
    study = yaml.safe_load((run / "study.yaml").read_text())
    assert frame["seed"].tolist() == [0, 1, 2, 3, 4]
    assert frame["epochs"].tolist() == [1] * 5
    assert [text.split(" are")[0] for text in study["imported"]["assumed"]] == ["seeds", "epochs"]


def test_sizes_instances_and_states_keep_their_meaning() -> None:
    text = "arm,size,instance,num_images,error,seed,state\nA,1,1,10,0.5,0,done\nA,2,2,10,0.4,0,stopped\n"

    frame = read_record(imported(text))

    assert frame["state"].tolist() == ["done", "stopped"]
    assert [(one["size"], one["instance"]) for one in frame["attributes"]] == [(1.0, 1), (2.0, 2)]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", {}, "runs.csv:1: expected a heading"),
        ("a;b;c\n1;2;3\n", {}, "separated by ';'"),
        ("arm,error\n", {}, "runs.csv: no run below the heading"),
        ("a,error\nA,0.1\n", {}, "which column says what was trained? Give --columns arm=COLUMN; it has a, error"),
        ("arm,e\nA,0.1\n", {}, "which column has the result?"),
        ("arm,error,error\nA,0.1,0.1\n", {}, "two columns are named 'error'"),
        ("arm,error\nA,0.1\n", {"erorr": "error"}, "no quantity named 'erorr'; did you mean 'error'?"),
        ("arm,error\nA,0.1\n", {"num_images": "eror"}, "no column of runs.csv named 'eror'; did you mean 'error'?"),
        ("a,b,error\nA,B,0.1\n", {"arm": "a", "layout": "b"}, "arm is given twice"),
        ("arm,err\nA,0.1\nB,23.4\n", {"error": "err"},
         "runs.csv:3: error (column err): expected a fraction from 0 to 1, got 23.4; divide percents by 100"),
        ("arm,error\nA,inf\n", {}, "runs.csv:2: error: expected a fraction from 0 to 1, got inf; leave the cell"),
        ("arm,error\nA,-0.1\n", {}, "expected a fraction from 0 to 1, got -0.1"),
        ("arm,error\nA,0.1\nA,few\n", {}, "runs.csv:3: error: expected a number, got 'few'"),
        ("arm,error,macs\nA,0.1,inf\n", {}, "runs.csv:2: macs: expected a finite number, got inf"),
        ("arm,error,macs\nA,0.1,0\n", {}, "runs.csv:2: macs: expected a number above 0, got 0"),
        ("arm,error,num_images\nA,0.1,1.5\n", {}, "num_images: expected a whole number of at least 1, got 1.5"),
        ("arm,error,seed\nA,0.1,-1\n", {}, "seed: expected a whole number of at least 0, got -1"),
        ("arm,error,num_images\nA,0.1,\n", {}, "runs.csv:2: num_images is empty; each run needs one"),
        ("arm,error\n,0.1\n", {}, "runs.csv:2: arm is empty"),
        ("arm,error\nA,0.1,3\n", {}, "runs.csv:2: expected 2 cells as in the heading, got 3"),
        ("arm,error,state\nA,0.1,doen\n", {}, "runs.csv:2: state: no state named 'doen'; did you mean 'done'?"),
        ("arm,error,state\nA,,done\n", {}, "runs.csv:2: state is done and there is no result"),
        ("arm,error,val_top1\nA,0.1,0.7\n", {}, "error 0.1 and val_top1 0.7 are not of one measurement"),
        ("arm,error\nA,\nB,nan\n", {}, "runs.csv: no run has a result; expected a number in error"),
        ("arm,num_images,error,seed\nA,10,0.1,0\nB,10,0.1,0\nA,10,0.2,0\n", {},
         "runs.csv:4: the same arm, images and seed as in line 2"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line_and_nothing_is_written(
    text: str, columns: dict[str, str], message: str
) -> None:
    assert message in refusal(text, columns)


def read(text: str, columns: dict[str, str] | None = None) -> tuple[pd.DataFrame, Imported]:
    Path("runs.csv").write_text(text, encoding="utf-8")
    made = import_runs(Path("runs.csv"), columns or {}, Path("out"))
    return read_record(made.run), made


WORDS = {
    "optuna": ({"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed"}, ("RUNNING", "WAITING")),
    "optuna's enum": ({"TrialState.COMPLETE": "done", "TrialState.PRUNED": "stopped"}, ("TrialState.RUNNING",)),
    "mlflow": ({"FINISHED": "done", "FAILED": "failed", "KILLED": "stopped"}, ("RUNNING", "SCHEDULED")),
    "wandb": ({"finished": "done", "crashed": "failed", "failed": "failed", "killed": "stopped",
               "preempted": "stopped"}, ("running", "pending", "preempting")),
    "ray": ({"TERMINATED": "done", "ERROR": "failed"}, ("PENDING", "RUNNING", "PAUSED")),
    "ours": ({"done": "done", "failed": "failed", "stopped": "stopped"}, ()),
}  # fmt: skip


@pytest.mark.parametrize("tool", WORDS)
@pytest.mark.parametrize("title", ["state", "State", "status"])
def test_states_of_other_tools_are_read_and_it_is_said_how(tool: str, title: str) -> None:
    ended, going = WORDS[tool]
    lines = [f"A,0.{place},{word}" for place, word in enumerate([*ended, *going], 1)]

    frame, made = read("\n".join([f"arm,error,{title}", *lines]) + "\n")

    said = " ".join(made.assumed)
    assert frame["state"].tolist() == list(ended.values())
    assert [word for word, state in ended.items() if word != state and f"{word} for {state} (1)" not in said] == []
    assert (f"{len(going)} row" in said) == bool(going)
    assert not frame["failure_message"].dropna().str.contains("no result").any()


def test_a_table_of_optuna_is_read_as_it_is() -> None:
    text = "number,values_0,values_1,datetime_start,duration,params_layout,state\n"
    text += (
        "0,0.5,1e6,2026-01-01 00:00:00,0 days 00:01:00,C,FAIL\n1,0.4,2e6,,,T,COMPLETE\n2,,,,,C,PRUNED\n3,,,,,T,FAIL\n"
    )

    frame, made = read(text, {"arm": "params_layout", "error": "values_0", "macs": "values_1"})

    assert frame["state"].tolist() == ["failed", "done", "stopped", "failed"]
    assert frame["failure_message"].dropna().tolist() == ["line 2 says FAIL", "line 5 says FAIL"]
    assert made.ignored == ("number", "datetime_start", "duration")


def test_a_finished_run_of_another_tool_without_a_result_is_a_failed_one_and_that_is_said() -> None:
    frame, made = read("arm,error,status\nA,0.1,FINISHED\nB,,FINISHED\n")

    assert frame["state"].tolist() == ["done", "failed"]
    assert made.assumed == ("states are read as ours: FINISHED for done (1), FINISHED for failed (1)",)


def test_the_column_of_states_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs.csv").write_text("arm,error,state\nA,0.1,odd\n")

    refused = call(capsys, "import", "runs.csv")
    taken = call(capsys, "import", "runs.csv", "--columns", "state=", "--json")

    assert "no state named 'odd'" in refused.error
    assert (taken.json["states"], taken.json["ignored"]) == ({"done": 1}, ["state"])


@pytest.mark.parametrize("blank", ["", ",,,", " , ,\t,", ",,,,,,", '"","","",""'])
def test_empty_rows_are_passed_over_and_lines_keep_their_numbers(blank: str) -> None:
    frame, made = read(f"arm,num_images,seed,error\nA,10,0,0.1\n{blank}\nB,10,0,0.2\n{blank}\n{blank}\n")

    assert frame["layout"].tolist() == ["A", "B"]
    assert [one["line"] for one in frame["attributes"]] == [2, 4]
    assert "empty" not in " ".join(made.assumed)


def test_rows_that_are_no_runs_are_left_out_and_counted() -> None:
    text = ",arm,num_images,error,seed\n0,A,10,0.1,0\n1,,,,\nx,arm,num_images,error,seed\n2,,10,,1\n3,B,10,0.2,0\n"

    frame, made = read(text)

    assert frame["layout"].tolist() == ["A", "B"]
    assert made.assumed[:3] == (
        "1 row left out: empty in all columns that are used", "1 row left out: the heading once more",
        "1 row left out: arm is empty, and there is no result",
    )  # fmt: skip


def test_columns_without_a_name_and_doubles_that_nobody_uses_do_no_harm() -> None:
    frame, made = read(",arm,error,,note,note,\n0,A,0.1,,x,y,\n1,B,0.2,,x,y,\n")

    assert frame["error"].tolist() == [0.1, 0.2]
    assert made.ignored == ("column 1 (no name)", "column 4 (no name)", "note", "note", "column 7 (no name)")


def test_a_comma_in_the_name_of_a_column_is_of_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.csv").write_text('net,"error, last epoch","n, in all"\nA,0.1,10\nA,0.08,20\nB,0.2,10\nB,0.1,20\n')
    words = ["--columns", "arm=net,error=error, last epoch,num_images=n, in all", "--json"]

    made = call(capsys, "import", "mine.csv", *words)
    report = call(capsys, "report", "runs/mine")

    assert (made.code, report.code) == (0, 0), made.err + report.err
    assert made.json["arms"] == ["A", "B"]
    page = Path("runs/mine/report.html").read_text()
    assert "arm=net,error=error, last epoch,num_images=n, in all" in page


@pytest.mark.parametrize(
    ("title", "cells"),
    [("accuracy (%)", ("93.4", "50")), ("val_acc_pct", ("93.4", "50")), ("acc percent", ("93.4", "50")),
     ("acc", ("93.4%", "50 %")), ("acc", ("0.934", "50%")), ("acc %", ("93.4%", "0.5e2"))],
)  # fmt: skip
def test_percents_that_are_named_as_such_are_divided_by_100(title: str, cells: tuple[str, str]) -> None:
    frame, made = read(f"arm,{title}\nA,{cells[0]}\nB,{cells[1]}\n", {"val_top1": title})

    assert frame["val_top1"].tolist() == pytest.approx([0.934, 0.5])
    named = any(f"val_top1 is the column {title!r}: percents, divided by 100" in text for text in made.assumed)
    assert named == (title != "acc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm,acc %\nA,0.93\nB,0.5\n", "val_top1 (column acc %) is named as percents and holds nothing above 1"),
        ("arm,acc %\nA,193\n", "runs.csv:2: val_top1 (column acc %): expected a percentage from 0 to 100, got 193"),
        ("arm,acc %\nA,few\n", "expected a number, got 'few'"),
    ],
)
def test_percents_that_may_be_none_are_refused(text: str, message: str) -> None:
    assert message in refusal(text, {"val_top1": "acc %"})


def test_percentiles_and_other_words_are_no_percents() -> None:
    frame, made = read("arm,error percentile\nA,0.1\n", {"error": "error percentile"})

    assert (frame["error"].tolist(), made.assumed) == ([0.1], ())


def test_text_in_another_encoding_is_refused() -> None:
    Path("runs.csv").write_bytes("arm,error\nCölln,0.1\n".encode("latin-1"))

    with pytest.raises(InputError, match="expected text in UTF-8"):
        import_runs(Path("runs.csv"), {}, Path("out"))


def test_a_run_that_is_there_is_not_written_over() -> None:
    imported("arm,error\nA,0.1\n")

    with pytest.raises(InputError, match="out holds a study already"):
        imported("arm,error\nA,0.1\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv"], "none.csv: No such file or directory"),
        (["a.csv", "--columns", "arm"], "--columns: expected NAME=COLUMN,... such as arm=layout,error=err, got 'arm'"),
        (["a.csv", "--columns", "arm=a,arm=b"], "--columns: a name is given twice"),
        (["a.csv", "--num-val", "0"], "--num-val: expected a whole number of at least 1, got '0'"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("arm,error\nA,0.1\n")

    assert message in call(capsys, "import", *words).error


def test_a_mutated_table_is_imported_or_refused_in_one_line(tmp_path: Path) -> None:
    rng = random.Random(0)
    table = "number,arm,num_images,seed,error (%),state,macs\n" + "".join(
        f"{row},{name},{count},{seed},{1000 / count + row % 7:.3f},COMPLETE,1e6\n"
        for row, (name, count, seed) in enumerate((n, c, s) for n in "AB" for c in (20, 40, 80) for s in (0, 1))
    )
    said = []
    for number in range(200):
        (tmp_path / "t.csv").write_bytes(mutated(rng, table))
        try:
            made = import_runs(tmp_path / "t.csv", {"error": "error (%)"}, tmp_path / str(number))
            assert len(read_record(made.run)) == made.rows
        except InputError as error:
            said.append(str(error))

    assert 0 < len(said) < 200
    assert not [text for text in said if "\n" in text or not ("t.csv" in text or text.startswith("--columns"))]
