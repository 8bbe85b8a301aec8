"""The command line: every verb's answer, every mistake's exit code and its one line."""

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Printed, call, digit_folder

from coatnet_search.architecture.cost import cost
from coatnet_search.cli import main as cli
from coatnet_search.core.document import dump
from coatnet_search.record.fold import read_trials
from coatnet_search.space.space import load_space
from coatnet_search.study.lookup import load_arch

SMALL = ("--set", "search.trials=3", "recipe.epochs=1", "data.num_images=200", "tracking.enabled=false",
         "search.strategy=random", "measure=[]")  # fmt: skip
STUDY = """\
question: Which digit network is best?
space: digits
data: {name: digits}
recipe: {name: digits, epochs: 1}
objectives: {val_loss: min, macs: min}
search: {strategy: random, trials: 2}
tracking: {enabled: false}
"""
SPACE = """\
image_size: 8
in_channels: 1
stem: {kind: conv, depth: 1, width: 8, stride: 1}
stages:
  - {block: [C, T], depth: [1, 2], width: [8, 16], stride: 2}
head_size: 8
"""
TRAINER = """\
def broken(arch, budget, data, device):
    yield {"val_loss": 1.0}
    raise RuntimeError("the lamp went out")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/quickstart``, three trials long."""
    place = tmp_path_factory.mktemp("finished")
    assert cli.main(["run", "quickstart", *SMALL, "--local", "--runs", str(place / "runs")]) == 0
    return place


# --- help and mistakes on the command line itself --------------------------------------------------------------------


def test_help_imports_no_torch_timm_or_ray() -> None:
    code = (
        "import sys; from coatnet_search.cli.main import main; code = main(['--help']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "profile" in done.stdout
    heavy = {"torch", "torchvision", "timm", "ray", "mlflow", "optuna", "numpy", "pandas", "pydantic", "plotly"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize("verb", ["choose", "report", "scaling"])
def test_a_verb_that_only_reads_a_record_starts_without_torch_and_ray(verb: str) -> None:
    code = f"import sys, coatnet_search.cli.commands.{verb}; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"torch", "torchvision", "timm", "ray", "mlflow"} & set(done.stdout.split())


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, verb, "--help")

    assert shown.code == 0
    assert shown.out.startswith(f"usage: coatnet-search {verb}")
    assert shown.err == ""


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "--version")

    assert shown.code == 0
    assert shown.out.startswith("coatnet-search 0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a verb: new, spaces"),
        (["rnu", "quickstart"], "no verb named 'rnu'; did you mean 'run'?"),
        (["run", "quickstart", "--worker", "2"], "no option of run named '--worker'; did you mean '--workers'?"),
        (["--json", "spaces"], "--json comes after the verb"),
        (["report"], "the following arguments are required: RUN"),
        (["spaces", "digits"], "spaces takes no further argument, got 'digits'"),
        (["run", "quickstart", "--minutes", "soon"], "--minutes: expected a number, got 'soon'"),
        (["run", "quickstart", "--minutes", "nan"], "--minutes: expected a finite number, got 'nan'"),
        (["run", "quickstart", "--minutes=-1"], "--minutes: expected a number above 0, got '-1'"),
        (["run", "quickstart", "--workers", "1.5"], "--workers: expected a whole number of at least 1, got '1.5'"),
        (["choose", "runs/x", "--limit", "macs"], "--limit: expected METRIC=NUMBER such as macs=4.2e9, got 'macs'"),
        (["choose", "runs/x", "--limit", "macs=few"], "--limit: macs: expected a number, got 'few'"),
        (["profile", "coatnet-0", "--counter", "thop"], "--counter: invalid choice: 'thop'"),
        (["new"], "the following arguments are required: --data"),
        (["doctor", "--set", "a=1"], "--set: there is no STUDY to set it in"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, *words)

    assert shown.code == 2
    assert message in shown.error


def test_numbers_are_read_as_float_reads_them() -> None:
    given = cli.parse(["run", "x", "--minutes", "1e1", "--workers", "2.0"])
    chosen = cli.parse(
        ["choose", "x", "--limit", "macs=4.2e9", "params=2e-3", "--limit", "latency_ms=7", "--top", "3e0"]
    )

    assert (given.minutes, given.workers) == (10.0, 2)
    assert (dict(chosen.limit), chosen.top) == ({"macs": 4.2e9, "params": 2e-3, "latency_ms": 7.0}, 3)


# --- mistakes in files -----------------------------------------------------------------------------------------------


def changed(old: str, new: str, text: str = STUDY) -> str:
    assert old in text
    return text.replace(old, new)


BAD_STUDIES = {
    "unknown key": (changed("search:", "serach:"), ":6: serach: no key named 'serach'; did you mean 'search'?"),
    "missing key": (changed("question: Which digit network is best?\n", ""), "question: this key is missing"),
    "text for a number": (changed("trials: 2", "trials: many"), ":6: search.trials: expected a whole number"),
    "yaml's 2e-3": (changed("epochs: 1", "lr: 2e-3"), "2e-3"),
    "no trials": (changed("trials: 2", "trials: 0"), ":6: search.trials: expected a number of at least 1"),
    "unknown strategy": (changed("random", "rondom"), ":6: search.strategy: no strategy named 'rondom'; did you mean"),
    "unknown recipe": (changed("{name: digits, epochs", "{name: digit, epochs"), "no recipe named 'digit'; did"),
    "unknown recipe key": (changed("epochs: 1", "epoch: 1"), "no key of a recipe named 'epoch'; did"),
    "unknown data": (changed("data: {name: digits}", "data: {name: didgits}"), ":3: data.name: no data set named"),
    "unknown metric": (changed("val_loss: min", "val_los: min"), ":5: objectives.val_los: no metric of this study"),
    "unknown direction": (changed("macs: min", "macs: least"), ":5: objectives.macs: expected 'min' or 'max'"),
    "unknown space": (changed("space: digits", "space: digit"), "did you mean 'digits'?"),
    "unmeasured limit": (STUDY + "limits: {taste: 3}\n", ":8: limits.taste: no metric of this study"),
    "unknown measurement": (STUDY + "measure: [speed]\n", ":8: measure.0: no measurement named 'speed'"),
    "duplicate key": (STUDY + "space: digits\n", ":8: "),
    "tab": (changed("data: {", "data:\n\t{"), "tab"),
    "python object": (STUDY + "choose: !!python/object/apply:os.system ['touch canary']\n", ":8"),
    "not a mapping": ("- 1\n", "expected a mapping"),
    "empty": ("", "empty"),
    "password in the uri": (changed("enabled: false", "uri: 'http://me:secret1@host'"), "URI without password"),
    "limits that nothing keeps": (STUDY + "limits: {macs: 10}\n", "limits"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_STUDIES)
def test_a_mistake_in_a_study_file_names_its_place(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = BAD_STUDIES[what]
    Path("mine.yaml").write_text(text, encoding="utf-8")

    shown = call(capsys, "plan", "mine.yaml")

    assert shown.code == 2
    assert message in shown.error
    assert "mine" in shown.error
    assert "secret1" not in shown.err
    assert sorted(path.name for path in Path().iterdir()) == ["mine.yaml"]


BAD_SPACES = {
    "unknown key": (changed("head_size", "head_sizes", SPACE), ":6: head_sizes: no key named 'head_sizes'"),
    "empty list": (changed("[1, 2]", "[]", SPACE), ":5: stages.0.depth: "),
    "unknown block": (changed("[C, T]", "[C, X]", SPACE), ":5: stages.0.block"),
    "unknown option": (changed("width: [8, 16]", "width: 8, kernal: 3", SPACE), ":5: stages.0.kernal"),
    "odd stride": (changed("stride: 2}", "stride: 3}", SPACE), ":5: stages.0.stride"),
    "size and strides": (changed("image_size: 8", "image_size: 9", SPACE), "is not a multiple of the strides' product"),
    "few tokens": (changed("[C, T]", "T", changed("image_size: 8", "image_size: 4", SPACE)), "tokens"),
    "heads and width": (changed("[C, T]", "T", changed("[8, 16]", "12", SPACE)), "head"),
    "value listed twice": (changed("[8, 16]", "[8, 8]", SPACE), ":5: stages.0.width.1: expected different values"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_SPACES)
def test_a_mistake_in_a_space_file_names_its_place(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = BAD_SPACES[what]
    Path("room.yaml").write_text(text, encoding="utf-8")
    Path("mine.yaml").write_text(changed("space: digits", "space: room.yaml"), encoding="utf-8")

    shown = call(capsys, "plan", "mine.yaml")

    assert shown.code == 2
    assert message in shown.error
    assert "room" in shown.error


def test_a_file_that_is_not_text_or_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("latin.yaml").write_bytes(STUDY.encode().replace(b"best", b"b\xe9st"))
    Path("huge.yaml").write_text(STUDY + "# " + "x" * 2_000_000)

    latin, huge = call(capsys, "plan", "latin.yaml"), call(capsys, "plan", "huge.yaml")
    absent, name = call(capsys, "plan", "absent.yaml"), call(capsys, "plan", "quickstrat")

    assert [shown.code for shown in (latin, huge, absent, name)] == [2, 2, 2, 2]
    assert "latin.yaml:1: expected text in UTF-8" in latin.error
    assert "at most 1,000,000 bytes" in huge.error
    assert "absent.yaml: no such file; bundled: " in absent.error and ", cifar10-layouts, " in absent.error
    assert "no study named 'quickstrat'; did you mean 'quickstart'?" in name.error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.trails=3", "--set search.trails: no key named 'trails'; did you mean 'trials'?"),
        ("search.trials", "--set 'search.trials': expected KEY=VALUE"),
        ("search.trials=few", "--set search.trials: expected a whole number"),
        ("objectives.error=down", "--set objectives.error: expected 'min' or 'max'"),
        ("question.x=1", "--set question.x: "),
    ],
)
def test_a_mistake_in_a_setting_is_named_as_one(setting: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "run", "quickstart", "--local", "--set", setting)

    assert shown.code == 2
    assert message in shown.error
    assert not Path("runs").exists()


# --- data and devices that are not there -----------------------------------------------------------------------------


def bad_data(kind: str) -> tuple[str, str]:
    """(data block, what the error says) of a faulty data set made here."""
    folder = Path("images")
    if kind == "missing":
        return "{name: image_folder, path: nowhere}", "nowhere does not exist"
    if kind == "no path":
        return "{name: image_folder}", "--set data.path=..."
    if kind == "holes in the labels":
        image = pa.array([{"bytes": b"x", "path": None}] * 4)
        pq.write_table(pa.table({"image": image, "label": pa.array([0, 1, None, 1])}), "train.parquet")
        return "{name: parquet, path: train.parquet}", "row 2 has no label"
    if kind == "no column":
        pq.write_table(pa.table({"one": [b"x"], "two": [b"x"], "label": [0]}), "train.parquet")
        return "{name: parquet, path: train.parquet}", "no column 'image' or 'img'"
    digit_folder(folder, 40)
    if kind == "corrupt":
        for path in list(folder.glob("*/*.png"))[:20]:
            path.write_bytes(path.read_bytes()[:60])
        return "{name: image_folder, path: images}", "images cannot be used"
    (folder / "empty").mkdir()
    return "{name: image_folder, path: images}", "class 'empty'"


@pytest.mark.parametrize(
    ("kind", "code"),
    [("missing", 3), ("no path", 3), ("holes in the labels", 2), ("no column", 2), ("corrupt", 2), ("empty class", 2)],
)
def test_a_run_on_faulty_data_says_so_and_leaves_nothing(
    kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    block, message = bad_data(kind)
    Path("mine.yaml").write_text(changed("{name: digits}", block), encoding="utf-8")

    shown = call(capsys, "run", "mine.yaml", "--local")

    assert shown.code == code
    assert message in shown.error
    assert not Path("runs/mine/study.yaml").exists()


def test_a_folder_without_images_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nothing").mkdir()
    Path("mine.yaml").write_text(changed("{name: digits}", "{name: image_folder, path: nothing}"), encoding="utf-8")

    shown = call(capsys, "run", "mine.yaml", "--local")

    assert shown.code == 2
    assert "no images below" in shown.error


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_a_gpu_that_is_not_there_ends_a_run_before_its_first_trial(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "run", "quickstart", *SMALL, "resources.gpus=1", "--local")

    assert shown.code == 3
    assert "set resources.gpus to 0" in shown.error
    assert read_trials(Path("runs/quickstart")) == []


# --- a run and what follows ------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone_when_it_is_run_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = finished / "runs/quickstart/trials.jsonl"
    before = [trial.key for trial in read_trials(record)]

    shown = call(capsys, "run", "quickstart", *SMALL, "--local", "--runs", finished / "runs")

    assert shown.code == 0
    assert "3 trials finished" in shown.out
    assert f"next: coatnet-search report {finished}/runs/quickstart" in shown.out
    assert [trial.key for trial in read_trials(record)] == before


def test_a_changed_study_is_refused_with_the_difference(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [word.replace("recipe.epochs=1", "recipe.epochs=2") for word in SMALL]

    shown = call(capsys, "run", "quickstart", *other, "--local", "--runs", finished / "runs")

    assert shown.code == 2
    assert "recipe.epochs: 1 -> 2" in shown.error


def test_a_run_that_is_out_of_time_prints_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quickstart", *SMALL, "--local"]

    cut = call(capsys, "run", *words, "--minutes", "1e-4", "--json")
    resumed = call(capsys, "run", *words, "--json")

    assert cut.code == 130
    assert not cut.json["complete"]
    assert cut.json["resume"] == shlex.join(["coatnet-search", "run", *words, "--minutes", "0.0001"])
    assert (resumed.code, resumed.json["finished"], resumed.json["resume"]) == (0, 3, None)


def test_failed_trials_end_a_run_with_their_causes(place: Path, capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (place / "lamp_trainer.py").write_text(TRAINER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ("quickstart", *SMALL, "search.trials=2", "--evaluator", "lamp_trainer:broken", "--local")

    shown = call(capsys, "run", *words)
    told = call(capsys, "run", *words, "--json")

    assert (shown.code, told.code) == (4, 4)
    assert "2 trials finished, 2 of them failed" in shown.out
    assert "RuntimeError: the lamp went out" in shown.out
    assert [(cause["count"], cause["kind"]) for cause in told.json["failures"]] == [(2, "error")]


def test_a_message_of_a_trainer_is_text_whatever_it_says(place: Path, capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    message = "loss[/x] of [bold]shape[/bold] [0, 1] \x1b]0;title\x07\x1b[2J :smile: \u202e"
    (place / "odd_trainer.py").write_text(
        f"def broken(arch, budget, data, device):\n    raise ValueError({message!r})\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))

    words = ("run", "quickstart", *SMALL, "search.trials=2", "--evaluator", "odd_trainer:broken", "--local")
    shown = call(capsys, *words)
    reported = call(capsys, "report", "runs/quickstart")

    for printed in (shown, reported):
        assert "loss[/x] of [bold]shape[/bold] [0, 1] \\x1b]0;title\\x07\\x1b[2J :smile: \\u202e" in printed.out
        assert not {"\x1b", "\x07", "\u202e"} & set(printed.out + printed.err)
    assert shown.code == 4
    assert shown.err.count("loss[/x] of [bold]shape[/bold]") == 2


def test_the_current_folder_is_imported_from_only_for_an_evaluator(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(place))])

    call(capsys, "plan", "absent.yaml")
    without = str(place) in sys.path
    shown = call(capsys, "run", "quickstart", "--evaluator", "no_such_trainer:f", "--local")

    assert not without
    assert shown.code == 2
    assert "--evaluator no_such_trainer:f: No module named 'no_such_trainer'" in shown.error
    assert not Path("runs").exists()


def test_a_report_writes_its_files_and_prints_the_front(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished / "runs/quickstart"

    shown, told = call(capsys, "report", run), call(capsys, "report", run, "--json")
    markdown = call(capsys, "report", run, "--markdown")

    assert [shown.code, told.code, markdown.code] == [0, 0, 0]
    assert "validation loss" in shown.out
    assert "digits is a demonstration" in shown.out
    assert told.json["paths"]["report"] == str(run / "report.html")
    assert all(Path(path).is_file() for path in [*told.json["paths"]["figures"], run / "trials.csv"])
    assert told.json["num_val"] == 359
    assert {row["number"] for row in told.json["front"]} <= {0, 1, 2}
    assert markdown.out.startswith("## ")


def test_choices_are_files_that_profile_reads(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished / "runs/quickstart"

    chosen = call(capsys, "choose", run, "--top", "2", "--limit", "macs=1e9", "--json")
    shown = call(capsys, "choose", run, "--top", "1")
    looked = call(capsys, "profile", chosen.json[0]["path"], "--json")

    assert [chosen.code, shown.code, looked.code] == [0, 0, 0]
    assert len(chosen.json) == 2
    assert "written: " in shown.out
    assert "next: coatnet-search profile " in shown.out
    assert looked.json[0]["id"] == chosen.json[0]["arch_id"]
    assert looked.json[0]["macs"] == chosen.json[0]["macs"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["choose", "{run}", "--limit", "mac=1"], "no metric named 'mac'; did you mean 'macs'?"),
        (["choose", "{run}", "--limit", "macs=2e6", "--limit", "macs=1e6"], "--limit macs: given twice"),
        (["choose", "{run}", "--limit", "macs=1"], "no trial keeps macs <= 1; the nearest is trial"),
        (["report", "{run}x"], "no such folder"),
        (["report", "{run}/.."], "study.yaml: no such file"),
        (["merge", "{run}", "{run}/..", "--out", "joined"], "there is no record to merge"),
        (["merge", "{run}", "--out", "{run}"], "there is a record already"),
        (["mirror", "{run}x"], "no such folder"),
        (["profile", "{run}:99"], "it has trials 0 to 2"),
    ],
)
def test_a_mistake_about_a_run_is_one_line(
    words: list[str], message: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished / "runs/quickstart"

    shown = call(capsys, *(word.format(run=run) for word in words))

    assert shown.code == 2
    assert message in shown.error


def test_records_merge_into_a_run_that_reports(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished / "runs/quickstart"

    merged = call(capsys, "merge", run, run, "--out", "joined")
    report = call(capsys, "report", "joined", "--json")

    assert [merged.code, report.code] == [0, 0]
    assert "joined: 3 done, out of 2 records" in merged.out
    assert len(report.json["trials"]) == 3


def test_a_merged_record_without_a_study_says_so(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = Path("bare.jsonl")
    bare.write_bytes((finished / "runs/quickstart/trials.jsonl").read_bytes())

    merged = call(capsys, "merge", bare, "--out", "restored")

    assert merged.code == 0 and "report and choose need restored/study.yaml" in merged.err


# --- what comes with the package -------------------------------------------------------------------------------------


def test_bundled_studies_are_listed_with_what_they_cost(capsys: pytest.CaptureFixture[str]) -> None:
    told, shown = call(capsys, "studies", "--json"), call(capsys, "studies")

    assert [told.code, shown.code] == [0, 0]
    assert {"quickstart", "cifar10-layouts", "imagenet-layouts"} <= {row["name"] for row in told.json}
    assert all(row["question"] and row["networks"] > 1 and row["macs"][0] <= row["macs"][1] for row in told.json)
    assert "98,304" in shown.out


def test_bundled_spaces_are_listed_with_their_size(capsys: pytest.CaptureFixture[str]) -> None:
    told, shown = call(capsys, "spaces", "--json"), call(capsys, "spaces")

    assert [told.code, shown.code] == [0, 0]
    assert {row["name"]: row["networks"] for row in told.json}["digits"] == 98304
    assert all(row["description"] in shown.out for row in told.json)


# --- profile ---------------------------------------------------------------------------------------------------------


def test_profile_gives_the_cost_of_names_and_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "profile", "coatnet-0", "C-C-C-T", "--image-size", "2.24e2", "--json")

    assert shown.code == 0
    arch = load_arch("coatnet-0", image_size=224)
    assert shown.json[0] == {"name": "coatnet-0", "id": arch.id, "image_size": 224} | {
        name: int(value) for name, value in cost(arch).as_metrics().items()
    }
    assert shown.json[1]["name"] == "C-C-C-T"


def test_profile_counts_timm_networks_without_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "profile", "timm:resnet18", "--json")

    assert shown.code == 0
    row = shown.json[0]
    assert (row["name"], row["image_size"], row["params"]) == ("timm:resnet18", 224, 11689512)
    assert row["macs"] == pytest.approx(1.814e9, rel=1e-3)


def test_both_counters_agree(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("profile", arch_file(), "--json")

    ours, theirs = call(capsys, *words), call(capsys, *words, "--counter", "fvcore")

    assert theirs.json[0]["counter"] == "fvcore"
    assert theirs.json[0]["macs"] == pytest.approx(ours.json[0]["macs"], rel=1e-3)


def arch_file() -> Path:
    """A small network as a file."""
    space = load_space("digits")
    arch = space.decode(space.sample(np.random.default_rng(0)))
    path = Path("small.yaml")
    path.write_text(dump({"arch": arch.to_dict()}))
    return path


def test_a_named_device_is_measured_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "profile", arch_file(), "--device", "cpu", "--json")

    assert shown.code == 0
    row = shown.json[0]
    assert row["throughput_images_per_s"] > 0
    assert row["throughput_images_per_s_spread"] >= 0
    assert row["conditions"]["device"].startswith("cpu")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One try with few repeats."""
    monkeypatch.setattr("coatnet_search.training.measurements.timing.MIN_SECONDS", 0.02)
    monkeypatch.setattr("coatnet_search.training.measurements.repeat_until_calm.TRIES", 1)


def test_the_best_setting_of_a_device_is_found_among_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compile", lambda model, **options: model)
    quick(monkeypatch)

    shown = call(capsys, "profile", arch_file(), "--device", "cpu", "--batch-size", "2", "--best", "--json")

    rows = shown.json
    settings = {(row["precision"], row["memory_format"], row["fold"], row["compile"]) for row in rows}
    assert shown.code == 0 and len(settings) == len(rows) == 10
    assert [row["compile"] for row in rows] == ([False] * 4 + [True]) * 2
    assert max(rows, key=lambda row: row["throughput_images_per_s"])["best"]
    assert sum(row["best"] for row in rows) == 1
    assert all(row["batch_size"] == 2 for row in rows)
    assert "bfloat16" in shown.err and "channels_last" in shown.err and "best" in shown.err


def test_a_setting_without_a_compiler_has_a_reason_in_place_of_a_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    quick(monkeypatch)

    shown = call(capsys, "profile", arch_file(), "--device", "cpu", "--batch-size", "1", "--best", "--json")

    compiled = [row for row in shown.json if row["compile"]]
    assert shown.code == 0 and len(compiled) == 2
    assert all(row["throughput_images_per_s"] is None and "no compiler here" in row["note"] for row in compiled)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["coatnet-9"], 2, "no architecture named 'coatnet-9'; did you mean"),
        (["C-C-X-T"], 2, "no architecture named 'C-C-X-T'"),
        (["coatnet-0", "--image-size", "100"], 2, "image_size 100 is not a multiple of the strides' product 32"),
        (["timm:resnet81"], 2, "timm knows no network 'resnet81'; did you mean resnet"),
        (["timm:resnet18", "--counter", "fvcore"], 2, "counts this package's architectures alone"),
        (["coatnet-0", "--device", "tpu"], 2, "--device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (["coatnet-0", "--device", "cuda:77"], 3, "--device cuda:77: torch sees"),
        (["absent.yaml"], 2, "absent.yaml: no such file"),
        (["coatnet-0", "--best"], 2, "--best measures: name the device, such as --device cpu"),
        (["coatnet-0", "--device", "cpu", "--batch-size", "0"], 2, "expected a whole number of at least 1, got '0'"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_profiled_is_named(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, "profile", *words)

    assert shown.code == code
    assert message in shown.error


# --- what nobody expected --------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """``spaces`` raises."""

    def fail(_given: object) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module("coatnet_search.cli.commands.spaces"), "main", fail)


def test_an_unexpected_error_is_a_line_and_a_file(place: Path, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("tempfile.tempdir", str(place))
    failing(monkeypatch, KeyError("who did this"))

    shown = call(capsys, "spaces")

    assert shown.code == 1
    assert "unexpected KeyError: 'who did this'; the traceback is in " in shown.error
    assert "Traceback" in Path(shown.error.rpartition(" ")[2]).read_text()


def test_the_traceback_of_an_unexpected_error_is_shown_on_request(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setenv("COATNET_SEARCH_DEBUG", "1")
    failing(monkeypatch, KeyError("who did this"))

    shown = call(capsys, "spaces")

    assert shown.code == 1
    assert "Traceback (most recent call last)" in shown.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "runs/x"), 3, "runs/x: No space left on device"),
        (PermissionError(13, "Permission denied", "/root/x"), 3, "/root/x: Permission denied"),
    ],
)
def test_an_interruption_and_the_machine_s_refusals_are_lines(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)

    shown = call(capsys, "spaces")

    assert shown.code == code
    assert shown.error == message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'ray'"), "No module named 'ray'; `coatnet-search doctor` tells the mend"),
        (RuntimeError("operator torchvision::nms does not exist"), "torch and torchvision do not match"),
    ],
)
def test_a_library_that_does_not_import_points_to_the_doctor(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str) -> Printed:
        raise error

    monkeypatch.setattr("coatnet_search.cli.main.importlib.import_module", refuse)

    shown = call(capsys, "spaces")

    assert shown.code == 3
    assert message in shown.error


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    done = subprocess.run([sys.executable, "-m", "coatnet_search", "--help"], stdout=write, stderr=subprocess.PIPE,
                          text=True, check=False, env=environment)  # fmt: skip
    os.close(write)

    assert done.returncode == 141
    assert done.stderr == ""


def test_what_libraries_print_does_not_spoil_json(capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    module = importlib.import_module("coatnet_search.cli.commands.spaces")
    counted = module.space_row
    monkeypatch.setattr(module, "space_row", lambda name: sys.stdout.write(f"loading {name}\n") and counted(name))

    shown = call(capsys, "spaces", "--json")

    assert len(shown.json) >= 4
    assert "loading digits" in shown.err
