"""Trials that several workers train: the same networks and numbers as with one, also when a worker is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from quickstarts import study

from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_events, read_trials
from coatnet_search.record.trial import Trial
from coatnet_search.search.ray.tune import _SETTINGS
from coatnet_search.search.run import run
from coatnet_search.search.stop_rules import device_hours
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import make_plan
from coatnet_search.study.sections import Resources

# a BatchNorm sees 32 images, whoever trains; stochastic depth would drop other blocks on each worker
SHARED = ("recipe.batch_size=64", "recipe.micro_batch=32", "recipe.drop_path=0.0", "recipe.epochs=3",
          "data.num_images=640")  # fmt: skip
TWO = (*SHARED, "resources.workers=2")


@pytest.fixture(scope="module")
def ray_here():
    import ray

    os.environ.update(_SETTINGS)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, ray_here):
    """The record of an unbroken trial that two workers train."""
    return run(study(1, None, *TWO), runs=tmp_path_factory.mktemp("whole")).run


def learned(folder):
    return [[(row["epoch"], row["train_loss"], row["val_loss"]) for row in trial.curve]
            for trial in read_trials(folder)]  # fmt: skip


@pytest.mark.ray
def test_two_workers_train_a_trial_as_one_does(tmp_path, whole):
    alone = run(study(1, None, *SHARED), local=True, runs=tmp_path).run

    one, two = read_trials(alone), read_trials(whole)
    assert [(trial.key, trial.state) for trial in two] == [(trial.key, "done") for trial in one]
    for mine, theirs in zip(learned(alone), learned(whole), strict=True):
        assert [epoch for epoch, *_ in theirs] == [1, 2, 3]
        for before, after in zip(mine, theirs, strict=True):
            assert after[1] == pytest.approx(before[1], rel=0.01)
            assert after[2] == pytest.approx(before[2], rel=0.1)  # running statistics are the first worker's


@pytest.mark.ray
@pytest.mark.full
def test_a_trial_whose_second_worker_is_killed_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path, whole):
    killer = threading.Thread(target=_kill_mate, args=(tmp_path,), daemon=True)
    killer.start()

    outcome = run(study(1, None, *TWO), runs=tmp_path)

    events = [(event["event"], (event.get("failure") or {}).get("kind")) for event in read_events(outcome.run)]
    assert outcome.complete and outcome.failed == 0
    assert [event for event in events if event[0] == "interrupted"] == [("interrupted", "killed")]
    assert learned(outcome.run) == learned(whole)


def _kill_mate(runs: Path) -> None:
    """Once a trial has reported an epoch."""
    while not any(b'"report"' in record.read_bytes() for record in runs.rglob("trials.jsonl")):
        time.sleep(0.01)
    mate = next(one for one in _below(os.getpid()) if b"ray::Mate" in Path(f"/proc/{one}/cmdline").read_bytes())
    os.kill(mate, signal.SIGKILL)


def _below(pid: int) -> Iterator[int]:
    """Processes that this one started, and those that these did."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _below(int(child))


def test_the_hours_of_all_workers_are_counted():
    trial = Trial(candidate={}, metrics={}, state="done", timings={"wall_s": 1800.0})

    assert device_hours([trial], Resources(gpus=1, workers=4)) == 2.0
    assert device_hours([trial], Resources(cpus=8, workers=4)) == 2.0


def test_a_plan_knows_the_workers_of_a_trial():
    training = make_plan(load_study("quickstart", TWO)).training

    assert (training.at_once, training.workers) == (max(1, usable_cores() // 2), 2)
    assert training.hours == pytest.approx(training.device_hours / training.at_once / 2)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (("recipe.batch_size=64",), "2 workers share a batch of 64 in parts of recipe.micro_batch"),
        (("recipe.batch_size=96", "recipe.micro_batch=32"), "it is 32, write a number that divides 48"),
        (("evaluate=measured", "objectives={macs: min}", "choose={}"), "nothing is trained in a trial"),
        (("resources.gpus=0.5",), "resources.gpus: each of several workers has a GPU to itself"),
    ],
)
def test_what_several_workers_cannot_do_is_refused(sets, told):
    with pytest.raises(InputError, match=told):
        load_study("quickstart", ["resources.workers=2", *sets])


def test_a_trainer_of_the_users_and_a_run_without_ray_have_one_process(tmp_path):
    with pytest.raises(InputError, match="a trainer of your own is one process"):
        study(2, "good", *TWO)
    with pytest.raises(InputError, match="--local has one process"):
        run(study(1, None, *TWO), local=True, runs=tmp_path)


@pytest.mark.ray
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_a_trial(tmp_path):
    outcome = run(study(2, None, *TWO, "resources.gpus=1", "measure=[throughput]"), runs=tmp_path)

    trials = read_trials(outcome.run)
    assert outcome.complete and [trial.state for trial in trials] == ["done", "done"]
    assert all("cpu" not in trial.device and trial.metrics["throughput_images_per_s"] > 0 for trial in trials)
