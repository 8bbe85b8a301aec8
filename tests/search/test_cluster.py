"""Trials on Ray Tune: the same study as in this process, and processes that die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quickstarts import results, study

from coatnet_search.core.errors import SetupError
from coatnet_search.record.fold import read_events, read_trials
from coatnet_search.record.trial import TERMINAL
from coatnet_search.search.ray.nodes import capacity
from coatnet_search.search.ray.tune import _SETTINGS, joined
from coatnet_search.search.run import run
from coatnet_search.study.sections import Resources

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory):
    """One Ray of two CPUs for the module, whose workers find the tests' trainers."""
    import ray

    marks = tmp_path_factory.mktemp("marks")
    os.environ["TRAINERS_MARKS"] = str(marks)
    os.environ.update(_SETTINGS)  # as a Ray that the tool starts by itself has them
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    del os.environ["TRAINERS_MARKS"]


def test_ray_with_one_worker_gives_the_record_of_a_local_run(tmp_path, ray_here):
    here = run(study(6, "good", "search.strategy=nsga2"), local=True, runs=tmp_path / "here").run

    outcome = run(study(6, "good", "search.strategy=nsga2"), workers=1, runs=tmp_path / "ray")

    assert outcome.complete
    assert results(outcome.run) == results(here)


def test_real_training_on_two_workers_finishes_every_trial(tmp_path, ray_here):
    outcome = run(study(3, None, "measure=[throughput]"), workers=2, runs=tmp_path)

    trials = read_trials(outcome.run)
    assert outcome.complete and [trial.state for trial in trials] == ["done"] * 3
    assert all(trial.metrics["throughput_images_per_s"] > 0 for trial in trials)
    assert all(len(trial.curve) == 2 and "cpu" in trial.device for trial in trials)


def test_failing_trials_are_rows_and_the_search_goes_on(tmp_path, ray_here):
    outcome = run(study(8, "half_raise"), workers=2, runs=tmp_path)

    failed = [trial for trial in read_trials(outcome.run) if trial.state == "failed"]
    assert outcome.complete and 0 < len(failed) < 8
    assert all("ZeroDivisionError" in trial.failure.message and trial.failure.traceback for trial in failed)


def test_a_trial_whose_process_is_killed_is_tried_once_more(tmp_path, ray_here):
    outcome = run(study(6, "killed_once"), workers=2, runs=tmp_path)

    assert outcome.complete and outcome.failed == 0
    assert [trial.state for trial in read_trials(outcome.run)] == ["done"] * 6


@pytest.mark.parametrize("trainer", ["killed_always", pytest.param("segfaults", marks=pytest.mark.full)])
def test_a_trial_that_kills_its_process_again_fails_as_killed(tmp_path, ray_here, trainer):
    outcome = run(study(5, trainer), workers=2, runs=tmp_path)

    trials = read_trials(outcome.run)
    kinds = {trial.failure.kind for trial in trials if trial.failure}
    assert outcome.complete and kinds == {"killed"} and {trial.state for trial in trials} == {"done", "failed"}
    retried = [event["number"] for event in read_events(outcome.run) if event["event"] == "interrupted"]
    assert sorted(retried) == [trial.number for trial in trials if trial.failure]


def test_a_trial_that_sleeps_fails_as_timeout_and_its_process_goes_on_with_others(tmp_path, ray_here):
    outcome = run(study(6, "sleeps", "faults.silent_minutes=0.02"), workers=1, runs=tmp_path)

    failed = [trial for trial in read_trials(outcome.run) if trial.state == "failed"]
    assert outcome.complete and 0 < len(failed) < 6
    assert all(trial.failure.kind == "timeout" and "killed" not in trial.failure.message for trial in failed)


def test_a_trial_that_holds_the_interpreter_is_killed_with_its_children_and_its_slot_is_used_again(
    tmp_path, ray_here, monkeypatch
):
    monkeypatch.setattr("coatnet_search.search.ray.tune.HARD_GRACE_S", 1.0)

    outcome = run(study(6, "holds_the_interpreter", "faults.silent_minutes=0.05"), workers=1, runs=tmp_path)

    failed = [trial for trial in read_trials(outcome.run) if trial.state == "failed"]
    children = [int(path.name.split("-")[1]) for path in Path(os.environ["TRAINERS_MARKS"]).glob("child-*")]
    assert outcome.complete and 0 < len(failed) < 6 and len(children) == len(failed)
    assert all("timeout: no report for 0.05 minutes" in str(trial.failure) for trial in failed)
    _wait_for(lambda: not any(_runs(child) for child in children), 20)


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "told"),
    [
        (16, 0, None, "asks for 16 CPUs and the cluster has 4"),
        (1, 1, None, "asks for 1 GPUs and the cluster has 0"),
        (2, 0, 3, "3 trials at once do not fit: the cluster's CPUs and GPUs hold 2"),
    ],
)
def test_what_the_cluster_does_not_have_is_told(cpus, gpus, workers, told):
    with pytest.raises(SetupError, match=told):
        capacity({"CPU": 4.0}, Resources(cpus=cpus, gpus=gpus), workers)


def test_without_an_address_ray_starts_beside_a_cluster_that_runs_here(monkeypatch):
    asked = []
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **options: asked.append(options))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")

    with joined(None):
        pass

    assert [options["address"] for options in asked] == ["local"]


def test_as_many_trials_run_at_once_as_fit():
    assert capacity({"CPU": 8.0, "GPU": 2.0}, Resources(cpus=1, gpus=0.5), None) == 4
    assert capacity({"CPU": 8.0}, Resources(cpus=0.5), None) == 16
    assert capacity({"CPU": 8.0}, Resources(), 3) == 3
    assert capacity({"CPU": 8.0, "GPU": 6.0}, Resources(gpus=1, workers=4), None) == 1


def test_more_cpus_than_exist_are_told_before_any_trial(tmp_path, ray_here):
    with pytest.raises(SetupError, match="asks for 64 CPUs"):
        run(study(1, "good", "resources.cpus=64"), runs=tmp_path)

    assert read_trials(tmp_path / "quickstart") == []


HELPERS = Path(__file__).parents[1] / "helpers"
DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from quickstarts import study
from coatnet_search.search.run import run
outcome = run(study(12, "slow", "recipe.epochs=3"), workers=2, runs=Path({runs!r}))
sys.exit(0 if outcome.complete else 130)
"""


def _driver(runs):
    """A driver in a process of its own; all that it starts carries the folder's name in its environment."""
    code = DRIVER.format(tests=str(HELPERS), runs=str(runs))
    environment = {**os.environ, "STARTED_FOR": str(runs)}
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=environment)


def _started_for(runs):
    """The processes, Ray's own too, that a driver for this folder left behind."""
    mark, found = f"STARTED_FOR={runs}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # it has just ended, or is not ours
            continue
    return found


def _runs(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _wait_for(condition, seconds=200.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def _ends(folder):
    return [event["number"] for event in read_events(folder) if event["event"] == "terminal"]


def test_a_killed_driver_on_ray_is_resumed_and_leaves_no_process_behind(tmp_path):
    driver = _driver(tmp_path)
    _wait_for(lambda: len(_ends(tmp_path / "quickstart")) >= 2)
    driver.kill()
    driver.wait()
    _wait_for(lambda: not _started_for(tmp_path))
    finished = _ends(tmp_path / "quickstart")

    outcome = run(study(12, "slow", "recipe.epochs=3"), local=True, runs=tmp_path)

    assert outcome.complete and 2 <= len(finished) < 12
    assert sorted(_ends(outcome.run)) == list(range(12))


def test_a_signal_to_a_driver_on_ray_leaves_work_that_can_go_on(tmp_path):
    driver = _driver(tmp_path)
    _wait_for(lambda: len(_ends(tmp_path / "quickstart")) >= 1)
    driver.send_signal(signal.SIGTERM)

    assert driver.wait(120) == 130
    left = [trial for trial in read_trials(tmp_path / "quickstart") if trial.state not in TERMINAL]
    assert len(left) <= 2
    assert all(trial.state == "running" for trial in left)
