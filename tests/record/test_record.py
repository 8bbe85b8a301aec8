import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from coatnet_search.analysis.choose import choose
from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record import journal
from coatnet_search.record import line as line_of_record
from coatnet_search.record.fold import (
    Record,
    driver_lock,
    fold,
    read_events,
    read_record,
    read_trials,
    read_values,
    study_of,
)
from coatnet_search.record.follow import Follower
from coatnet_search.record.merge import merge
from coatnet_search.study.load import load_study
from coatnet_search.training.budget import Budget

RECORDS = Path(__file__).parents[2] / "studies" / "records"
ARCH = Arch(
    image_size=32,
    num_classes=10,
    stem=Stem(width=24, stride=1),
    stages=(Stage(block="C", depth=2, width=32, kernel=5), Stage(block="T", depth=3, width=64, stride=2)),
)


def started(number: int, key: str | None = None, **more: object) -> dict[str, object]:
    return {
        "event": "started",
        "number": number,
        "key": key or f"key{number}",
        "candidate": {"s1.block": "C", "s1.depth": 2},
        "arch": ARCH.to_dict(),
        "arch_id": ARCH.id,
        "layout": ARCH.layout,
        "budget": {"epochs": 2, "num_images": None, "image_size": None, "seed": 0, "draw": 0},
        "metrics": {"params": 1000, "macs": 20_000, "activations": 300},
        "attributes": {"generation": 1},
        "origin": "random",
        **more,
    }


def report(number: int, epoch: int, key: str | None = None, **metrics: float) -> dict[str, object]:
    return {"event": "report", "number": number, "key": key or f"key{number}", "metrics": {"epoch": epoch, **metrics}}


def terminal(number: int, state: str = "done", key: str | None = None, **more: object) -> dict[str, object]:
    return {
        "event": "terminal",
        "number": number,
        "key": key or f"key{number}",
        "state": state,
        "metrics": {"val_top1": 0.75, "val_loss": 0.5},
        "failure": None,
        "device": "cpu",
        "timings": {"wall_s": 1.5, "build_s": 0.25},
        "attributes": {},
        **more,
    }


def write(run: Path, *events: dict[str, object]) -> Path:
    with Record(run) as record:
        for event in events:
            record.append(event)
    return run / "trials.jsonl"


def whole_trial(number: int, **more: object) -> list[dict[str, object]]:
    return [started(number, **more), report(number, 1, **more), report(number, 2, **more), terminal(number, **more)]


def flip(path: Path, line: int, old: bytes, new: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_bytes(b"\n".join(lines))


def test_a_trial_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, started(0), report(0, 1, val_top1=0.5), report(0, 2, val_top1=0.75), terminal(0))

    (trial,) = read_trials(tmp_path)

    assert (trial.number, trial.key, trial.state, trial.device) == (0, "key0", "done", "cpu")
    assert trial.arch == ARCH
    assert trial.budget == Budget(epochs=2)
    assert trial.curve == ({"epoch": 1, "val_top1": 0.5}, {"epoch": 2, "val_top1": 0.75})
    assert trial.metrics == {
        "params": 1000, "macs": 20_000, "activations": 300, "val_top1": 0.75, "val_loss": 0.5, "error": 0.25,
    }  # fmt: skip
    assert trial.attributes == {"generation": 1}
    assert trial.timings == {"wall_s": 1.5, "build_s": 0.25}


def test_the_frame_has_the_documented_columns_even_for_an_empty_record(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: just begun\n")
    empty = read_record(tmp_path)
    write(tmp_path, *whole_trial(0))

    frame = read_record(tmp_path)

    assert [name for name in frame.columns if name not in empty.columns] == ["build_s"]
    assert len(empty) == 0
    assert {"number", "key", "val_top1", "throughput_images_per_s_spread", "draw", "epoch", "failure_kind"} < set(empty)


def test_the_frame_has_one_row_a_trial_in_order_of_number(tmp_path: Path) -> None:
    failure = {"kind": "nan", "message": "loss is nan in epoch 2, step 7", "traceback": None}
    write(
        tmp_path,
        {"event": "session", "code_version": "0.1.0"},
        started(1),
        started(0),
        report(1, 1, val_loss=2.0),
        terminal(0, metrics={"val_top1": 0.5, "latency_ms": 3.5}),
        terminal(1, "failed", metrics={}, failure=failure),
        {**started(2), "event": "terminal", "state": "refused", "metrics": {"macs": 7}},
        started(3),
    )
    (tmp_path / "study.yaml").write_text("name: small\n")

    frame = read_record(tmp_path)

    assert list(frame["number"]) == [0, 1, 2, 3]
    assert list(frame["state"]) == ["done", "failed", "refused", "running"]
    assert list(frame["macs"]) == [20_000, 20_000, 7, 20_000]
    assert frame["params"].isna().tolist() == [False, False, True, False]
    assert frame.loc[0, "latency_ms"] == 3.5
    assert frame.loc[1, "failure_message"] == "loss is nan in epoch 2, step 7"
    assert frame.loc[1, "epoch"] == 1
    assert frame.loc[1, "curve"] == [{"epoch": 1, "val_loss": 2.0}]
    assert frame["val_top1"].isna().tolist() == [False, True, True, True]
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    assert frame.attrs == {"run": str(tmp_path), "study": "small"}


def test_a_trial_that_starts_again_goes_on_with_its_curve_and_an_epoch_counts_once(tmp_path: Path) -> None:
    write(tmp_path, started(0), report(0, 1, val_loss=3.0), report(0, 2, val_loss=2.0))
    write(tmp_path, started(0), report(0, 2, val_loss=1.9), terminal(0))

    (trial,) = read_trials(tmp_path)

    assert [epoch["val_loss"] for epoch in trial.curve] == [3.0, 1.9]
    assert trial.state == "done"


def test_a_failed_trial_that_starts_again_is_running(tmp_path: Path) -> None:
    failure = {"kind": "killed", "message": "signal 9", "traceback": None}
    write(tmp_path, started(0), terminal(0, "failed", failure=failure), started(0))

    (trial,) = read_trials(tmp_path)

    assert (trial.state, trial.failure) == ("running", None)


def test_numbers_that_are_none_are_stored_as_null(tmp_path: Path) -> None:
    path = write(tmp_path, started(0), report(0, 1, val_loss=float("nan"), train_loss=float("inf")), terminal(0))

    (trial,) = read_trials(tmp_path)

    assert trial.curve == ({"epoch": 1, "val_loss": None, "train_loss": None},)
    assert b"NaN" not in path.read_bytes()


@pytest.mark.parametrize("cut", [1, 2, 20, 300])
def test_a_torn_last_line_is_dropped_on_read_and_kept_beside_the_record_on_the_next_write(
    tmp_path: Path, cut: int
) -> None:
    path = write(tmp_path, *whole_trial(0), *whole_trial(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    states = [trial.state for trial in read_trials(tmp_path)]
    write(tmp_path, started(2))

    only_the_newline_went = cut == 1
    assert states == ["done", "done" if only_the_newline_went else "running"]
    assert [trial.state for trial in read_trials(tmp_path)] == [*states, "running"]
    aside = list(tmp_path.glob("trials.jsonl.torn-*"))
    assert len(aside) == (0 if only_the_newline_went else 1)
    assert all(whole.endswith(copy.read_bytes() + whole[-cut:]) for copy in aside)


@pytest.mark.parametrize(("line", "event"), [(5, "started"), (6, "report"), (8, "terminal")])
def test_a_line_with_a_wrong_checksum_is_named_and_its_trial_is_not_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: int, event: str
) -> None:
    path = write(tmp_path, *whole_trial(0), *whole_trial(1), *whole_trial(2))
    before = path.read_bytes()
    flip(path, line, b'"schema":1', b'"schema":3')

    states = {trial.number: trial.state for trial in read_trials(tmp_path)}

    assert {number for number, state in states.items() if state == "done"} == {0, 2}
    assert f"{path}:{line}: wrong checksum; the line is left out, trial 1 runs again" in caplog.text
    assert len(path.read_bytes()) == len(before)


def test_a_damaged_line_is_set_aside_on_the_next_write_and_nothing_is_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, *whole_trial(0), *whole_trial(1))
    flip(path, 3, b'"number":0', b'"number":1')
    damaged = path.read_bytes()
    older = tmp_path / "trials.jsonl.damaged-1"
    older.write_bytes(b"an older copy")

    write(tmp_path, *whole_trial(2))
    caplog.clear()
    states = [trial.state for trial in read_trials(tmp_path)]
    write(tmp_path, *whole_trial(0))

    assert states == ["running", "done", "done"]
    assert caplog.text == ""
    assert [trial.state for trial in read_trials(tmp_path)] == ["done", "done", "done"]
    assert older.read_bytes() == b"an older copy"
    assert (tmp_path / "trials.jsonl.damaged-2").read_bytes() == damaged


def test_every_flipped_bit_of_a_line_is_noticed(tmp_path: Path) -> None:
    line = line_of_record.encode(terminal(0))[:-1]
    noticed = []

    for place in range(len(line)):
        for bit in (1, 32):
            changed = line[:place] + bytes([line[place] ^ bit]) + line[place + 1 :]
            path = tmp_path / "one.jsonl"
            path.write_bytes(changed + b"\n")
            found = journal.scan(path)
            noticed.append(found.events == [] or changed == line)

    assert all(noticed)


def test_an_append_that_fails_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, *whole_trial(0))
    before = path.read_bytes()
    record = Record(tmp_path)

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if len(data) < 200:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:-150])  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    record._file = Full(record._file)  # type: ignore[assignment]
    with pytest.raises(SetupError, match=r"trials.jsonl: the record cannot be written: No space left"):
        record.append(started(1))
    record.close()

    assert path.read_bytes() == before


def test_a_record_of_an_older_schema_is_read_by_migration_and_the_original_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, *whole_trial(0))
    old = path.read_bytes()
    monkeypatch.setattr(line_of_record, "SCHEMA", 2)
    monkeypatch.setattr(line_of_record, "MIGRATIONS", {1: lambda event: {**event, "origin": "migrated"}})

    write(tmp_path, *whole_trial(1))
    trials = read_record(tmp_path)

    assert list(trials["state"]) == ["done", "done"]
    assert list(trials["origin"]) == ["migrated", "random"]
    assert path.read_bytes().startswith(old)


def test_a_record_of_a_newer_schema_is_refused_with_the_version_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_of_record, "SCHEMA", 7)
    path = write(tmp_path, {"event": "session", "code_version": "3.2.0"}, *whole_trial(0))
    before = path.read_bytes()
    monkeypatch.undo()

    with pytest.raises(InputError, match=r"trials.jsonl:1: written in schema 7, .* install coatnet-search 3.2.0"):
        read_trials(tmp_path)
    with pytest.raises(InputError, match="schema 7"):
        Record(tmp_path)

    assert path.read_bytes() == before


def test_a_second_driver_is_refused_with_the_pid_and_host_of_the_first(tmp_path: Path) -> None:
    code = "import sys; from coatnet_search.record.journal import driver_lock\nwith driver_lock(sys.argv[1]): pass"

    with driver_lock(tmp_path):
        second = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    third = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)

    assert second.returncode != 0
    assert re.search(rf"is being run by pid {os.getpid()} on \S+ since 20\S+Z; wait for it or stop it", second.stderr)
    assert third.returncode == 0


def test_the_lock_of_a_killed_driver_is_recovered(tmp_path: Path) -> None:
    code = """
    import os, signal, sys
    from coatnet_search.record.journal import driver_lock
    with driver_lock(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], check=False)

    with driver_lock(tmp_path):
        held = (tmp_path / "driver.json").read_text()

    assert killed.returncode == -9
    assert f'"pid": {os.getpid()}' in held


def test_secrets_do_not_reach_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse-battery")
    failure = {
        "kind": "error",
        "message": "cannot reach https://ann:hunter22@host.example/x with hf_abcdefghijklmnopqrstuvwx",
        "traceback": "Authorization: Bearer abcdef1234567890 then correct-horse-battery and api_key=9f9f9f9f&x=1",
    }

    path = write(
        tmp_path, started(0, attributes={"s3": {"secret_key": "plain", "region": "eu"}}), terminal(0, failure=failure)
    )

    text = path.read_text()
    for secret in ("hunter22", "hf_abc", "abcdef1234567890", "correct-horse", "9f9f9f9f", "plain"):
        assert secret not in text
    assert "host.example/x" in text
    assert '"region":"eu"' in text


def test_ordinary_words_are_not_taken_for_secrets(tmp_path: Path) -> None:
    message = "stage 4 (T): attention on 4 tokens, fewer than 16; the key is https://example.org/a:b@c token: number"

    write(tmp_path, started(0, attributes={"num_tokens": "many", "key": "abc"}), terminal(0, failure={
        "kind": "error", "message": message, "traceback": None}))  # fmt: skip
    (trial,) = read_trials(tmp_path)

    assert trial.failure is not None
    assert trial.failure.message == message
    assert trial.attributes == {"num_tokens": "many", "key": "abc"}


def test_a_trial_of_five_reports_takes_at_most_4_kilobytes(tmp_path: Path) -> None:
    names = ("train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "lr", "epoch_s", "train_images_per_s")
    numbers = {name: 1 / 3 + place for place, name in enumerate(names)}
    candidate = {f"stage{stage}.{part}": 96 for stage in range(1, 5) for part in ("block", "depth", "width", "kernel")}

    path = write(
        tmp_path,
        started(1234, "0123456789abcdef", candidate=candidate),
        *(report(1234, epoch, "0123456789abcdef", **numbers) for epoch in range(1, 6)),
        terminal(1234, key="0123456789abcdef", metrics=numbers, timings={"wall_s": 1 / 3, "build_s": 1 / 3}),
    )

    assert path.stat().st_size <= 4096


def study(run: Path, **changes: object) -> None:
    value = {
        "name": "small",
        "space": {"image_size": 32, "stages": [{"block": ["C"], "width": [16, 24]}]},
        "data": {"name": "parquet", "path": f"/here/{run.name}", "seed": 0},
        "objectives": {"error": "min"},
        "recipe": {"name": "digits"},
        "search": {"strategy": "random", "trials": 4, "seed": 0},
        **changes,
    }
    (run / "study.yaml").write_text(yaml.safe_dump(value))


def test_merged_records_are_renumbered_and_of_one_key_the_finished_trial_is_kept(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, *whole_trial(0, key="a"), started(1, "b"), *whole_trial(2, key="c"))
    write(two, started(0, "a"), *whole_trial(1, key="b"), *whole_trial(2, key="d"))
    study(one)
    study(two, search={"strategy": "random", "trials": 9, "seed": 0})

    out = merge([one, two], tmp_path / "both")

    frame = read_record(out)
    assert sorted(frame["key"]) == ["a", "b", "c", "d"]
    assert list(frame["number"]) == [0, 1, 2, 3]
    assert set(frame["state"]) == {"done"}
    assert frame["started_at"].is_monotonic_increasing
    assert frame.attrs["study"] == "small"


def test_records_of_different_studies_are_not_merged(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, *whole_trial(0))
    write(two, *whole_trial(0))
    study(one)
    study(two, space={"image_size": 32, "stages": [{"block": ["C"], "width": [16, 32]}]})

    with pytest.raises(InputError, match=r"two is another study than .*one: space.stages.1.width is \[16, 32\], there"):
        merge([one, two], tmp_path / "both")

    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("published", sorted(RECORDS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_published_record_becomes_a_run_that_can_be_chosen_from(published: Path, tmp_path: Path) -> None:
    run = merge([published], tmp_path / "run")

    study, frame = load_study(run / "study.yaml"), read_record(run)

    assert study.name == published.stem and study.file.data.path is None
    assert len(choose(frame, study.file.objectives)) == min(3, len(frame))


def test_a_merge_never_writes_into_a_record_and_names_a_missing_one(tmp_path: Path) -> None:
    write(tmp_path / "one", *whole_trial(0))

    with pytest.raises(InputError, match="there is a record already"):
        merge([tmp_path / "one"], tmp_path / "one")
    with pytest.raises(InputError, match="there is no record to merge"):
        merge([tmp_path / "one", tmp_path / "none"], tmp_path / "both")

    assert not (tmp_path / "both").exists()


def test_reading_says_nothing_where_nothing_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *whole_trial(0))

    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        fold(read_events(tmp_path))
        read_record(tmp_path)

    assert caplog.text == ""


def test_where_no_run_is_the_record_is_no_empty_table_but_says_which_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "study.yaml").write_text("name: quickstart\n")

    with pytest.raises(InputError, match=r"quickstrat: no such folder; did you mean runs/quickstart\?"):
        read_record("quickstrat")
    with pytest.raises(InputError, match=r"runs: no record of a run is there; runs here: runs/quickstart"):
        read_record("runs")

    assert read_record("runs/quickstart").empty, "a study of which no trial was begun"


BOMBS = {
    "aliases": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)),
    "depth": "a: " + "[" * 5_000 + "]" * 5_000,
    "size": "a: '" + "x" * 2_000_000 + "'",
    "tags": "a: !!python/object/apply:os.getcwd []",
    "no mapping": "- 1",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_study_beside_a_record_that_is_meant_to_harm_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    write(tmp_path, started(0), terminal(0))
    (tmp_path / "study.yaml").write_text(BOMBS[kind])

    for read in (read_record, study_of, lambda run: read_values(run / "study.yaml")):
        with pytest.raises(InputError, match=r"study.yaml:\d+: .*expected|study.yaml:1: a: the tag") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def changed(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    path.write_bytes(change(path.read_bytes()))
    return path.read_bytes()


AROUND_LINES = {
    "line ends of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "a mark of the encoding": lambda text: b"\xef\xbb\xbf" + text,
    "empty lines": lambda text: text.replace(b"\n", b"\n\r\n") + b"\n\n",
    "blanks at the end": lambda text: text.replace(b"\n", b" \t\n"),
    "no last line end": lambda text: text.removesuffix(b"\n"),
    "line ends of Windows, the last missing": lambda text: text.replace(b"\n", b"\r\n").removesuffix(b"\n"),
}


@pytest.mark.parametrize("kind", AROUND_LINES)
def test_what_git_or_an_editor_puts_around_lines_does_no_damage(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_record(write(tmp_path, *whole_trial(0), *whole_trial(1)))
    changed(tmp_path / "trials.jsonl", AROUND_LINES[kind])

    after = read_record(tmp_path)
    write(tmp_path, *whole_trial(2))
    grown = read_record(tmp_path)

    pd.testing.assert_frame_equal(before, after)
    assert list(grown["state"]) == ["done"] * 3
    assert caplog.records == []
    assert [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"]


THROUGHOUT = {
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.decode().encode("utf-16-le"),
    "other blanks": lambda text: text.replace(b":", b": "),
    "line ends of old": lambda text: text.replace(b"\n", b"\r"),
    "a checksum of another kind": lambda text: text.replace(b'"crc":"', b'"crc":"f'),
}


@pytest.mark.parametrize("kind", THROUGHOUT)
def test_a_record_that_was_changed_throughout_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, *whole_trial(0), *whole_trial(1))
    whole = changed(path, THROUGHOUT[kind])

    for use in (read_record, read_trials, Record, lambda run: Follower(run).frame()):
        with pytest.raises(InputError, match=r"trials.jsonl: no line has a right checksum .*nothing is run again"):
            use(tmp_path)

    assert path.read_bytes() == whole
    assert [found.name for found in tmp_path.iterdir()] == ["trials.jsonl"]


def signed(body: bytes) -> bytes:
    return body[:-1] + b',"crc":"' + f"{zlib.crc32(body):08x}".encode() + b'"}\n'


ODD_LINES = [
    b"[1}", b'{"a":}', b"{}", b'{"schema":1}', b'{"schema":1,"event":7}', b'{"schema":"1","event":"started"}',
    b'{"schema":0,"event":"started"}', b'{"schema":-1,"event":"started"}', b'{"schema":null,"event":"session"}',
    b'{"schema":true,"event":"session"}', b'{"schema":1,"event":"session","time":"soon"}',
    b'{"schema":1,"event":"session","time":"2026-01-01"}', b'{"schema":1,"event":"session"}',
    b'{"schema":1,"event":"session","time":"2026-01-01T00:00:00Z","x":"\xff"}',
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]  # fmt: skip
ODD_VALUES = {
    "number": ("0", -1, 1.5, True, [0], 10**30), "key": (5, {"a": 1}), "state": ("odd", None, 3, ["done"]),
    "metrics": ([1], "x", {"val_loss": [1]}, {"val_loss": "low"}, {"macs": 10**30}, {"epoch": "one"},
                {"epoch": None}), "candidate": ("C", [1]), "arch": (3, "C-C"),
    "budget": ({"epochs": "2"}, {"ages": 2}, [2], {"epochs": -1}), "attributes": ("x", [1]), "layout": (5,),
    "failure": ("broken", {"kind": "nan"}, {"kind": 1, "message": "x"}, {"kind": "a", "message": "b", "c": 1}),
    "timings": ({"wall_s": "long"}, 5), "time": (5, "noon"), "device": ({},), "arch_id": (7,), "origin": ([],),
}  # fmt: skip


def refused_line(tmp_path: Path, line: bytes) -> str:
    path = write(tmp_path, *whole_trial(0))
    number = path.read_bytes().count(b"\n") + 1
    with path.open("ab") as file:
        file.write(line)
    found = set()
    for use in (read_record, read_trials, Record, lambda run: Follower(run).frame()):
        with pytest.raises(InputError) as caught:
            use(tmp_path)
        found.add(str(caught.value))
    (message,) = found
    assert message.startswith(f"{path}:{number}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("body", ODD_LINES, ids=lambda body: body[:40].decode(errors="replace"))
def test_a_line_with_a_right_checksum_and_odd_content_is_one_line_of_error(body: bytes, tmp_path: Path) -> None:
    assert "the checksum is right and the rest is no event of a record" in refused_line(tmp_path, signed(body))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, odd in ODD_VALUES.items() for value in odd])
def test_an_odd_value_in_an_event_is_named(name: str, value: object, tmp_path: Path) -> None:
    event = {**started(1), **terminal(1), "event": "terminal", "schema": 1, "time": "2026-01-01T00:00:00Z", name: value}

    message = refused_line(tmp_path, signed(json.dumps(event).encode()))

    assert f": {name}: expected " in message or f": {name} is missing" in message


@pytest.mark.parametrize(
    "arch", [{"stages": 5}, {"stem": 1}, {"odd": 1}, {"stages": [{"block": [1]}]}, {"image_size": "x"}]
)
def test_an_odd_architecture_of_a_record_is_named_with_its_file_and_trial(arch: object, tmp_path: Path) -> None:
    path = write(tmp_path, started(0, arch=arch, arch_id=None))

    with pytest.raises(InputError, match=f"^{path}: trial 0: ") as caught:
        read_trials(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_budget_without_epochs_is_no_budget(tmp_path: Path) -> None:
    write(tmp_path, started(0, budget={"seed": 3}), terminal(0))

    (trial,) = read_trials(tmp_path)

    assert trial.budget is None
    assert list(read_record(tmp_path)["seed"]) == [3]


def test_events_of_kinds_that_are_not_known_here_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, *whole_trial(0), {"event": "rested", "number": 0, "why": [1]})

    assert list(read_record(tmp_path)["state"]) == ["done"]
