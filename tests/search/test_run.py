"""A study's trials in this process: faults of trials, resuming, stopping, what may not change."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from quickstarts import SMALL, results, study

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.fold import Record, driver_lock, read_events, read_record, read_trials
from coatnet_search.record.merge import merge
from coatnet_search.record.trial import TERMINAL
from coatnet_search.search.progress import Progress
from coatnet_search.search.run import run
from coatnet_search.study.load import load_study
from coatnet_search.training.measurements.conditions import MeasurementFailed


def test_a_study_runs_to_its_end_and_a_second_run_does_nothing(tmp_path):
    first = run(study(3), local=True, runs=tmp_path)
    lines = len(read_events(first.run))

    again = run(study(3), local=True, runs=tmp_path)

    assert first.complete and again.complete and again.finished == 3
    assert [event["event"] for event in read_events(first.run)[lines:]] == ["session"]
    frame = read_record(first.run)
    assert list(frame["state"]) == ["done"] * 3
    assert frame["val_loss"].notna().all() and frame["macs"].gt(0).all()
    assert not (first.run / "checkpoints").exists() or not any((first.run / "checkpoints").iterdir())


def test_the_same_seed_gives_the_same_record_and_another_seed_another_one(tmp_path):
    one = run(study(3), local=True, runs=tmp_path / "one").run
    two = run(study(3), local=True, runs=tmp_path / "two").run
    other = run(study(3, None, "search.seed=1"), local=True, runs=tmp_path / "other").run

    assert results(one) == results(two)
    assert [key for _, key, _, _ in results(one)] != [key for _, key, _, _ in results(other)]


@pytest.mark.parametrize("strategy", ["random", "tpe", "nsga2"])
def test_a_search_in_two_parts_equals_one_in_a_go(tmp_path, strategy):
    whole = run(study(8, "good", f"search.strategy={strategy}"), local=True, runs=tmp_path / "whole").run
    run(study(3, "good", f"search.strategy={strategy}"), local=True, runs=tmp_path / "parts")

    parts = run(study(8, "good", f"search.strategy={strategy}"), local=True, runs=tmp_path / "parts").run

    assert results(parts) == results(whole)


@pytest.mark.parametrize(
    ("trainer", "kind", "words"),
    [
        ("half_raise", "error", "ZeroDivisionError: no luck"),
        ("nan_in_epoch_two", "nan", "val_loss is nan in epoch 2"),
    ],
)
def test_a_trial_that_fails_is_a_row_that_says_why_and_the_search_goes_on(tmp_path, trainer, kind, words):
    outcome = run(study(8, trainer), local=True, runs=tmp_path)

    frame = read_record(outcome.run)
    failed = frame[frame["state"] == "failed"]
    assert outcome.complete and 0 < len(failed) < 8 and outcome.failed == len(failed)
    assert set(failed["failure_kind"]) == {kind}
    assert failed["failure_message"].str.contains(words).all()
    assert set(frame["state"]) == {"done", "failed"}


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ("raises", "ZeroDivisionError: the third layer fell off"),
        ("infinite", "val_loss is inf in epoch 1"),
        ("no_objective", "no val_loss"),
        ("never_reports", "without a single report"),
        ("text", "val_loss is a str in epoch 1, not a number"),
        ("array", "val_loss is a ndarray in epoch 1, not a number"),
        ("accuracy_in_percent", "val_top1 is 93 in epoch 1"),
        ("out_of_memory", "out of memory"),
        ("exits", "exit"),
    ],
)
def test_a_search_whose_trials_all_fail_alike_stops_after_three_and_says_why(tmp_path, trainer, words):
    with pytest.raises(SetupError, match=r"the first 3 trials failed alike \(.*device-hours"):
        run(study(8, trainer), local=True, runs=tmp_path)

    trials = read_trials(tmp_path / "quickstart")
    assert [trial.state for trial in trials] == ["failed"] * 3
    assert all(words in trial.failure.message for trial in trials)
    assert all("val_loss" not in trial.metrics or trial.metrics["val_loss"] < 1 for trial in trials)


def test_numbers_of_torch_and_numpy_are_numbers(tmp_path):
    frame = read_record(run(study(1, "scalars"), local=True, runs=tmp_path).run)

    row = frame.iloc[0]
    assert (row["state"], row["val_loss"], row["val_top1"], row["error"]) == ("done", 0.5, 0.25, 0.75)


def test_a_space_with_fewer_networks_than_trials_ends_cleanly(tmp_path):
    point = "{image_size: 8, stages: [{block: C, depth: [1, 2], width: 8}], stem: {width: 8, stride: 1}}"

    outcome = run(study(9, "good", f"space={point}"), local=True, runs=tmp_path)

    assert outcome.complete and outcome.finished == 2


def test_minutes_that_are_over_leave_work_for_the_next_run(tmp_path):
    outcome = run(study(12, "slow", "recipe.epochs=4"), local=True, minutes=0.05, runs=tmp_path)
    left = [trial.state for trial in read_trials(outcome.run)]

    rest = run(study(5, "slow", "recipe.epochs=4"), local=True, runs=tmp_path)

    assert not outcome.complete and len(left) < 12 and left.count("running") <= 1
    assert rest.complete and {trial.state for trial in read_trials(rest.run)} == {"done"}


def test_a_signal_lets_the_epoch_end_and_work_is_left(tmp_path, monkeypatch):
    handlers = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with it ignored

    def interrupt(self, number):
        if not handlers:
            signal.raise_signal(signal.SIGINT)
        handlers.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(Progress, "saw", interrupt)

    outcome = run(study(3, "good"), local=True, runs=tmp_path)

    signal.signal(signal.SIGINT, before)
    running = [trial for trial in read_trials(outcome.run) if trial.state not in TERMINAL]
    assert not outcome.complete and len(running) == 1 and len(running[0].curve) == 1
    assert handlers == [signal.default_int_handler], "a second signal would end at once"


def test_an_interrupted_training_goes_on_from_its_checkpoint_to_the_same_result(tmp_path, monkeypatch):
    whole = run(study(1, None, "recipe.epochs=4"), local=True, runs=tmp_path / "whole").run
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "saw", lambda self, number: setattr(self._session, "stopping", True))
        cut = run(study(1, None, "recipe.epochs=4"), local=True, runs=tmp_path / "cut")
    epochs_before = len(read_trials(cut.run)[0].curve)

    rest = run(study(1, None, "recipe.epochs=4"), local=True, runs=tmp_path / "cut")

    assert 0 < epochs_before < 4 and not cut.complete and rest.complete
    assert results(rest.run) == results(whole)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("recipe.epochs=3", "recipe.epochs: 2 -> 3"),
        ("search.seed=7", "search.seed: 0 -> 7"),
        ("search.strategy=tpe", "search.strategy: 'random' -> 'tpe'"),
        ("objectives={error: min, macs: min}", "objectives.val_loss"),
        ("space=cifar-tiny", "space.image_size"),
        ("data.val_fraction=0.3", "data.val_fraction"),
    ],
)
def test_a_changed_study_is_refused_with_the_difference_and_nothing_changes(tmp_path, change, told):
    folder = run(study(1, "good"), local=True, runs=tmp_path).run
    before = {path: path.read_bytes() for path in folder.iterdir() if path.suffix in (".yaml", ".jsonl")}

    with pytest.raises(InputError, match="holds another study") as error:
        run(study(1, "good", change), local=True, runs=tmp_path)

    assert told in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


def test_another_trainer_is_a_changed_study(tmp_path):
    run(study(1, "good"), local=True, runs=tmp_path)

    with pytest.raises(InputError, match="evaluator"):
        run(study(1, "slow"), local=True, runs=tmp_path)


def test_a_changed_study_under_another_name_starts_with_the_trials_that_are_the_same_work(tmp_path, capsys):
    old = run(study(5, "good"), local=True, runs=tmp_path).run
    lines = len(read_events(old))

    outcome = run(study(8, "good", "objectives={val_loss: min, params: min}"), local=True, fork="again", runs=tmp_path)
    again = run(study(8, "good", "objectives={val_loss: min, params: min}"), local=True, fork="again", runs=tmp_path)

    assert outcome.run == again.run == tmp_path / "again" and outcome.finished == again.finished == 8
    assert [trial.key for trial in read_trials(outcome.run)][:5] == [trial.key for trial in read_trials(old)]
    started = [event["number"] for event in read_events(outcome.run) if event["event"] == "started"]
    assert sorted(started) == list(range(8)) and len(read_events(old)) == lines
    assert "again starts with 5 of the 5 trials" in capsys.readouterr().err


def test_a_fork_takes_nothing_that_would_be_other_work_and_needs_a_record(tmp_path):
    run(study(3, "good"), local=True, runs=tmp_path)

    outcome = run(study(3, "good", "recipe.epochs=1"), local=True, fork="shorter", runs=tmp_path)

    assert {trial.budget.epochs for trial in read_trials(outcome.run)} == {1} and outcome.finished == 3
    with pytest.raises(InputError, match="nothing to start from"):
        run(study(3, "good"), local=True, fork="more", runs=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "more" / "study.yaml").exists()


def test_a_raised_number_of_trials_goes_on(tmp_path):
    run(study(2, "good"), local=True, runs=tmp_path)

    outcome = run(study(5, "good"), local=True, runs=tmp_path)

    assert outcome.complete and outcome.finished == 5


def test_the_study_file_of_a_run_resumes_it(tmp_path):
    folder = run(study(2, "good"), local=True, runs=tmp_path).run

    outcome = run(load_study(folder / "study.yaml", ["search.trials=4"]), local=True, runs=tmp_path)

    assert outcome.run == folder and outcome.finished == 4


def test_a_second_driver_is_refused_while_the_first_holds_the_study(tmp_path):
    (tmp_path / "quickstart").mkdir()

    with driver_lock(tmp_path / "quickstart"), pytest.raises(SetupError, match="is being run by pid"):
        run(study(1, "good"), local=True, runs=tmp_path)


def test_a_gpu_that_is_not_there_is_told_before_any_trial(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SetupError, match="GPU"):
        run(study(1, None, "resources.gpus=1"), local=True, runs=tmp_path)

    assert read_trials(tmp_path / "quickstart") == []


def test_a_measured_limit_refuses_a_network_before_it_is_trained(tmp_path):
    limited = study(2, None, "measure=[throughput]", "limits={throughput_images_per_s: 1.0e+9}",
                    "objectives={val_loss: min, throughput_images_per_s: max}")  # fmt: skip

    outcome = run(limited, local=True, runs=tmp_path)

    trials = read_trials(outcome.run)
    assert [trial.state for trial in trials] == ["refused"] * 2
    assert all(trial.curve == () and "throughput_images_per_s" in trial.failure.message for trial in trials)


def test_a_number_that_is_not_known_is_left_out_and_what_is_no_mapping_is_told(tmp_path):
    known = read_trials(run(study(1, "half_known"), local=True, runs=tmp_path / "known").run)[0]
    wrong = read_trials(run(study(1, "no_mapping"), local=True, runs=tmp_path / "wrong").run)[0]

    assert known.state == "done" and known.metrics["val_top1"] == 0.5 and "val_top5" not in known.metrics
    assert wrong.failure.message.startswith("the trainer gave 'val_loss' in epoch 1; it is to yield a mapping")


def test_a_study_that_only_measures_trains_nothing(tmp_path):
    measured = load_study("quickstart", [*SMALL, "measure=[throughput]", "search.trials=2", "evaluate=measured",
                                         "objectives={throughput_images_per_s: max, macs: min}"])  # fmt: skip

    frame = read_record(run(measured, local=True, runs=tmp_path).run)

    assert list(frame["state"]) == ["done"] * 2
    assert frame["throughput_images_per_s"].gt(0).all() and frame["val_loss"].isna().all()


def test_measuring_says_under_which_conditions_and_how_calmly(tmp_path):
    measured = study(1, "good", "measure=[latency, throughput]", "conditions={batch_size: 4, precision: bfloat16}")

    row = read_record(run(measured, local=True, runs=tmp_path).run).iloc[0]

    conditions = row["attributes"]["conditions"]
    assert set(conditions) == {"latency", "throughput"}
    assert {name: how["batch_size"] for name, how in conditions.items()} == {"latency": 1, "throughput": 4}
    assert all(how["precision"] == "bfloat16" and how["device"] == "cpu" for how in conditions.values())
    assert all(how["repeats"] >= 5 and 1 <= how["tries"] <= 3 for how in conditions.values())
    assert row["attributes"].get("disturbed", []) == [name for name, how in conditions.items() if how["disturbed"]]
    assert row["latency_ms"] > 0 and row["throughput_images_per_s"] > 0


def test_what_is_measured_stands_where_a_trainer_tells_the_same_name(tmp_path):
    measured = study(1, None, "measure=[train_throughput]")

    trial = read_trials(run(measured, local=True, runs=tmp_path).run)[0]

    assert "train_images_per_s_spread" in trial.metrics
    assert trial.metrics["train_images_per_s"] != trial.curve[-1]["train_images_per_s"]


def test_a_network_too_large_to_measure_is_a_trial_that_says_so(tmp_path, monkeypatch):
    def measure(name, *given):
        raise MeasurementFailed("out_of_memory", "out of memory at batch size 32 (8 pixels, float32, cpu)")

    monkeypatch.setattr("coatnet_search.search.evaluate.measure_calmly", measure)

    with pytest.raises(SetupError, match="failed alike"):
        run(study(4, "good", "measure=[throughput]"), local=True, runs=tmp_path)

    failure = read_trials(tmp_path / "quickstart")[0].failure
    assert (failure.kind, failure.traceback) == ("out_of_memory", None)
    assert failure.message == "out of memory at batch size 32 (8 pixels, float32, cpu)"


@pytest.mark.parametrize("key", ["recipe", "conditions"])
def test_graphs_of_a_cpu_are_told_before_any_trial(tmp_path, key):
    with pytest.raises(SetupError, match="compile: graphs asks for CUDA graphs, and cpu has none"):
        run(study(1, "good", "measure=[throughput]", f"{key}.compile=graphs"), local=True, runs=tmp_path)


def test_compilation_without_a_compiler_is_told_before_any_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(SetupError, match="no compiler here"):
        run(study(1, "good", "measure=[throughput]", "conditions.compile=true"), local=True, runs=tmp_path)

    assert read_trials(tmp_path / "quickstart") == []


AT_THE_END = ("measure=[throughput]", "measure_when=end", "objectives={val_loss: min, macs: min}")


def test_measuring_at_the_end_comes_after_the_search_and_adds_to_each_finished_trial(tmp_path):
    outcome = run(study(8, "half_raise", *AT_THE_END), local=True, runs=tmp_path)

    frame = read_record(outcome.run)
    done = frame["state"] == "done"
    assert outcome.complete and 0 < done.sum() < 8
    assert frame[done]["throughput_images_per_s"].gt(0).all() and frame[~done]["throughput_images_per_s"].isna().all()
    assert frame[done]["val_loss"].notna().all() and frame[done]["wall_s"].notna().all()
    ends = [event for event in read_events(outcome.run) if event["event"] == "terminal"]
    assert all("throughput_images_per_s" not in event["metrics"] for event in ends[:8])
    assert len(ends) == 8 + done.sum()


def test_measuring_at_the_end_is_resumed_where_it_was_stopped(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("coatnet_search.search.run._measure_finished", lambda *given: None)
        cut = run(study(3, "good", *AT_THE_END), local=True, runs=tmp_path)

    rest = run(study(3, "good", *AT_THE_END), local=True, runs=tmp_path)
    again = run(study(3, "good", *AT_THE_END), local=True, runs=tmp_path)

    assert not cut.complete and cut.finished == 3
    assert rest.complete and read_record(rest.run)["throughput_images_per_s"].gt(0).all()
    ends = [event["number"] for event in read_events(again.run) if event["event"] == "terminal"]
    assert ends == [0, 1, 2, 0, 1, 2]


@pytest.mark.ray
def test_on_a_cluster_a_worker_with_a_trials_device_measures_at_the_end(tmp_path, monkeypatch):
    def here(*_given):
        raise AssertionError("measured by the driver")

    monkeypatch.setattr("coatnet_search.search.run._evaluator", here)

    outcome = run(study(2, "good", *AT_THE_END), local=False, runs=tmp_path)

    assert outcome.complete and read_record(outcome.run)["throughput_images_per_s"].gt(0).all()


def test_one_that_cannot_be_measured_at_the_end_keeps_its_result_and_says_why(tmp_path, monkeypatch):
    def measure(name, *given):
        raise MeasurementFailed("out_of_memory", "out of memory at every batch size")

    monkeypatch.setattr("coatnet_search.search.evaluate.measure_calmly", measure)

    outcome = run(study(1, "good", *AT_THE_END), local=True, runs=tmp_path)

    trial = read_trials(outcome.run)[0]
    assert outcome.complete and trial.state == "done" and trial.metrics["val_loss"] < 1
    assert trial.attributes["not_measured"] == "out of memory at every batch size"


@pytest.mark.parametrize(
    ("changes", "block"),
    [
        (["objectives={val_loss: min, throughput_images_per_s: max}"], "objectives"),
        (["objectives={val_loss: min}", "limits={throughput_images_per_s: 5}"], "limits"),
    ],
)
def test_measuring_at_the_end_is_refused_where_the_search_needs_the_numbers(changes, block):
    with pytest.raises(
        InputError, match=f"measure_when: throughput_images_per_s is measured after .* and {block} need"
    ):
        study(3, None, "measure=[throughput]", "measure_when=end", *changes)


HELPERS = Path(__file__).parents[1] / "helpers"
DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from quickstarts import study
from coatnet_search.search.run import run
run(study({trials}, {trainer!r}, "search.strategy=nsga2", *{more}), local=True, runs=Path({runs!r}))
"""


def _driver(tmp_path, trials, trainer="slow", *more):
    code = DRIVER.format(tests=str(HELPERS), trials=trials, trainer=trainer, more=more, runs=str(tmp_path))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_a_killed_driver_loses_nothing_and_repeats_nothing(tmp_path):
    whole = run(study(10, "good", "search.strategy=nsga2"), local=True, runs=tmp_path / "whole").run

    for seconds in (3.5, 4.6, 5.3):
        driver = _driver(tmp_path / "cut", 10)
        with pytest.raises(subprocess.TimeoutExpired):
            driver.wait(seconds)
        driver.kill()
        driver.wait()
    outcome = run(study(10, "slow", "search.strategy=nsga2"), local=True, runs=tmp_path / "cut")

    keys = [key for _, key, _, _ in results(outcome.run)]
    assert outcome.complete and len(set(keys)) == 10
    ends = [event["number"] for event in read_events(outcome.run) if event["event"] == "terminal"]
    assert sorted(ends) == list(range(10))
    assert [metrics for *_, metrics in results(outcome.run)] == [metrics for *_, metrics in results(whole)]


ODD = {
    "wordless": "error: Wordless: Wordless (it fails to describe itself)",
    "exits_without_words": "exit: the trainer called exit with code Wordless (it fails to describe itself)",
    "yields_what_has_no_words": "bad_report: the trainer gave Wordless (it fails to describe itself) in epoch 1",
    "names_a_metric_without_words": "measurement: Wordless (it fails to describe itself) is a str in epoch 1",
    "raises_no_exception": "error: Stray: NoException: odd",
}


@pytest.mark.parametrize("trainer", ODD)
def test_what_a_trainer_raises_or_gives_is_its_failure_whatever_it_says_of_itself(trainer, tmp_path):
    outcome = run(study(1, trainer), local=True, runs=tmp_path)

    assert str(read_trials(outcome.run)[0].failure).startswith(ODD[trainer])


def test_a_trainer_that_changes_the_folder_and_closes_the_streams_does_so_for_itself(tmp_path):
    code = DRIVER.replace("Path({runs!r})", "Path('runs')").format(
        tests=str(HELPERS), trials=2, trainer="goes_elsewhere_and_closes_the_streams", more=(), runs="")  # fmt: skip
    code += "print('all is said', Path.cwd())"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"a word after all\na word after all\nall is said {tmp_path}\n")
    assert "[2/2]" in done.stderr
    assert [trial.state for trial in read_trials(tmp_path / "runs" / "quickstart")] == ["done", "done"]


def killed(number, *, here=True, epochs=(), event="started"):
    """Events of a trial whose process was killed, after it had reported these epochs."""
    first = {"event": event, "number": number, "key": f"k{number}", "candidate": {"a": 1}, "here": here}
    return [first, *({"event": "report", "number": number, "metrics": {"epoch": epoch}} for epoch in epochs)]


@pytest.mark.parametrize(
    ("events", "tries"),
    [
        (killed(0), 1),
        (killed(0) + killed(0, event="resumed"), 2),
        (killed(0, epochs=[1]) + killed(0, event="resumed", epochs=[1]), 2),  # a trainer without checkpoints
        (killed(0, epochs=[1]) + killed(0, event="resumed", epochs=[2]), 1),  # it gets further each time
        (killed(0, here=False) + killed(0, here=False, event="resumed"), 0),  # Ray's driver was killed, not the trial
        ([*killed(0), {"event": "interrupted", "number": 0, "counts": False}], 0),  # the driver was told to stop
        (killed(0, here=False) + [{"event": "interrupted", "number": 0, "counts": True}] * 2, 2),  # Ray's worker
    ],
)
def test_tries_are_counted_from_the_record(events, tries, tmp_path):
    with Record(tmp_path) as record:
        for event in events:
            record.append(event)

    assert read_trials(tmp_path)[0].tries == tries


def test_a_trial_that_ends_its_process_fails_after_its_tries_and_the_search_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINERS_MARKS", str(tmp_path))

    first = _driver(tmp_path, 3, "first_ends_the_process", "faults.retries=0").wait()
    second = _driver(tmp_path, 3, "first_ends_the_process", "faults.retries=0").wait()

    trials = read_trials(tmp_path / "quickstart")
    assert (first, second) == (7, 0)
    assert [trial.state for trial in trials] == ["failed", "done", "done"]
    assert trials[0].failure.kind == "killed" and "ended once" in trials[0].failure.message


def test_changed_code_is_recorded_and_told(tmp_path, monkeypatch, capsys):
    run(study(1, "good"), local=True, runs=tmp_path)
    monkeypatch.setattr("coatnet_search.search.run.code_version", lambda: "9.9.9+feedbeef")

    run(study(2, "good"), local=True, runs=tmp_path)

    assert "the code has changed" in capsys.readouterr().err


def test_a_merged_record_goes_on_where_its_parts_ended(tmp_path):
    first = run(study(3, "good"), local=True, runs=tmp_path / "one").run
    (tmp_path / "two").mkdir()
    merged = merge([first], tmp_path / "two" / first.name)

    outcome = run(study(5, "good"), local=True, runs=tmp_path / "two")

    assert outcome.run == merged and outcome.complete and outcome.finished == 5
    assert [trial.key for trial in read_trials(merged)][:3] == [trial.key for trial in read_trials(first)]
