"""Limits of one trial: time, silence, memory; trials that are slow, and failures that end a search."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from quickstarts import study

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.fold import read_events, read_record, read_trials
from coatnet_search.record.journal import Record
from coatnet_search.record.trial import Failure
from coatnet_search.search.ray import tune
from coatnet_search.search.run import run
from coatnet_search.search.session import Session
from coatnet_search.search.task import Report
from coatnet_search.study.study import larger
from coatnet_search.training import guard
from coatnet_search.training.device_lock import DeviceLock
from coatnet_search.training.guard import GIB, Allowance, Guard, Overrun, resident_bytes


@pytest.mark.parametrize(
    ("trainer", "limit", "words"),
    [
        ("sleeps", "faults.minutes=0.01", "timeout: not finished after 0.01 minutes"),
        ("sleeps", "faults.silent_minutes=0.01", "timeout: no report for 0.01 minutes"),
        ("swallows", "faults.silent_minutes=0.005", "timeout: no report"),
    ],
)
def test_a_trial_that_hangs_fails_as_timeout_and_the_search_goes_on(tmp_path, trainer, limit, words):
    outcome = run(study(5, trainer, limit, "faults.equal_failures=9"), local=True, runs=tmp_path)

    trials = read_trials(outcome.run)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert outcome.complete and failed and all(words in str(trial.failure) for trial in failed)
    assert all(trial.timings["wall_s"] < 30 and len(trial.curve) == 1 for trial in failed)
    assert len(failed) < 5 or trainer == "swallows"


def test_a_trial_that_takes_too_much_memory_fails_and_larger_networks_are_not_proposed(tmp_path, monkeypatch):
    usual = resident_bytes(os.getpid())
    limit = round((usual + GIB) / GIB, 2)

    outcome = run(study(12, "grows", f"faults.memory_gib={limit}"), local=True, runs=tmp_path)

    trials = read_trials(outcome.run)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert outcome.complete and failed and len(failed) < 12
    assert {trial.failure.kind for trial in failed} == {"memory"}
    assert all(f"took more than {limit:g} GiB" in trial.failure.message for trial in failed)
    done = [trial.metrics for trial in trials if trial.state == "done"]
    binding = [one for one in failed if not any(larger(other, one.metrics) for other in done)]
    assert not any(larger(trial.metrics, one.metrics) for one in binding for trial in trials[one.number + 1 :])


def test_a_network_that_ran_out_of_memory_is_no_bound_where_a_larger_one_was_trained():
    small, large = {"params": 1.0, "activations": 5.0}, {"params": 2.0, "activations": 5.0}

    asked = study(4, "good")
    free, bound = asked.problem(), asked.problem([{"params": 0.0, "activations": 0.0}])

    assert larger(large, small) and not larger(small, large) and not larger(small, small)
    candidate = asked.space.sample(np.random.default_rng(0))
    assert free.problems(candidate) == [] and bound.problems(candidate) == ["a smaller network ran out of memory"]


def test_outside_of_its_work_a_trial_is_not_interrupted():
    with Guard(Allowance(wall_s=0.05)) as watch:
        time.sleep(0.3)  # what the driver does meanwhile
        begin = time.monotonic()
        with pytest.raises(Overrun), watch.working():
            time.sleep(50)

    assert time.monotonic() - begin < 25


def test_a_wait_for_the_device_is_neither_silence_nor_wall_time(tmp_path):
    fork = multiprocessing.get_context("fork")
    held, leave = fork.Event(), fork.Event()

    def hold():
        with DeviceLock("cpu", tmp_path).alone():
            held.set()
            leave.wait(1.5)

    holder = fork.Process(target=hold, daemon=True)
    holder.start()
    assert held.wait(30)
    lock = DeviceLock("cpu", tmp_path)

    with Guard(Allowance(wall_s=0.5, silent_s=0.4), waited=lock.waited_s) as watch:
        with watch.working(), lock.shared():
            waited = lock.waited_s()
        begin = time.monotonic()
        with pytest.raises(Overrun), watch.working():
            time.sleep(50)

    assert waited > 0.6 and time.monotonic() - begin < 25


def test_on_ray_a_process_that_waits_is_not_killed_and_it_is_said_once_for_whom(monkeypatch):
    said, killed, waits = [], [], iter([(80.0, "waiting for pid 7"), (80.0, "waiting for pid 7"), (5.0, "")])
    monkeypatch.setattr(tune, "_waiting", lambda _trial: next(waits))
    monkeypatch.setattr(tune.ray, "kill", lambda actor, no_restart: killed.append(actor))
    monkeypatch.setattr(tune, "WAITING_LOOK_S", 0.0)
    session = SimpleNamespace(study=SimpleNamespace(allowance=Allowance(silent_s=30.0)))
    driver = tune._Driver(session, SimpleNamespace(say=said.append), None)
    trial = SimpleNamespace(trial_id="t", temporary_state=SimpleNamespace(ray_actor="its process"))
    driver._live["t"] = tune._Live(trial, time.monotonic() - 100)
    driver._tasks["t"] = SimpleNamespace(number=3)

    driver.kill_overdue()
    driver.kill_overdue()
    waiting = list(killed)
    driver.kill_overdue()

    assert (waiting, killed, said) == ([], ["its process"], ["trial 3 is waiting for pid 7"])


def test_no_limit_starts_no_thread_and_takes_no_signal():
    before = signal.getsignal(guard.SIGNAL)

    with Guard(Allowance()) as watch, watch.working():
        inside = signal.getsignal(guard.SIGNAL)

    assert inside == before and not watch._thread.is_alive()


def test_a_clock_that_jumps_is_no_timeout(tmp_path, monkeypatch):
    jumps = iter(range(0, 10**9, 86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))

    outcome = run(study(2, "good", "faults.minutes=5", "faults.silent_minutes=5"), local=True, runs=tmp_path)

    assert outcome.complete and outcome.failed == 0
    assert read_record(outcome.run)["wall_s"].between(0, 60).all()


def test_a_straggler_is_flagged_with_how_late_it_is(tmp_path, capsys):
    outcome = run(study(12, "late"), local=True, runs=tmp_path)

    slow = [trial for trial in read_trials(outcome.run) if "slow" in trial.attributes]
    usual = [trial for trial in read_trials(outcome.run) if "slow" not in trial.attributes]
    assert slow and all(5 < trial.attributes["slow"] < 15 and trial.timings["wall_s"] > 1.9 for trial in slow)
    assert len(usual) > len(slow)
    assert "times as long as usual" in capsys.readouterr().err


def _session(tmp_path, **changes):
    """The session of a study without trials, and its record."""
    record = Record(tmp_path)
    return Session(study(60, "good", *changes.get("sets", ())), tmp_path, record, [], []), record


def _end(session, failure=None):
    task = session.next()
    session.take(task, Report(metrics={"val_loss": 1.0}, state="failed" if failure else "done", failure=failure))


def test_failures_that_are_alike_end_a_search_that_went_well_before(tmp_path):
    session, record = _session(tmp_path)
    _end(session)
    for _ in range(11):
        _end(session, Failure(kind="error", message="no such mount"))

    with record, pytest.raises(SetupError, match=r"the last 12 trials failed alike \(error: no such mount\)"):
        _end(session, Failure(kind="error", message="no such mount"))


def test_failures_that_differ_or_come_between_good_trials_end_nothing(tmp_path):
    session, record = _session(tmp_path)

    with record:
        for number in range(20):
            _end(session, Failure(kind="error", message="no luck") if number % 2 else None)
        for number in range(20):
            _end(session, Failure(kind="error", message=f"no luck with {number}"))

    assert len(session.finished) == 40


def test_a_killed_trial_is_tried_as_often_as_asked_and_a_lost_node_counts_for_nothing(tmp_path):
    session, record = _session(tmp_path, sets=["faults.retries=2"])
    killed, lost = Failure(kind="killed", message="signal 9"), Failure(kind="lost", message="its node has died")
    task = session.next()

    with record:
        for failure in (lost, killed, lost, killed, lost, lost):
            session.interrupted(task, failure, failure is killed)
            assert session.next() == task
        session.interrupted(task, killed, True)

    trial = read_trials(tmp_path)[0]
    assert (trial.state, trial.failure) == ("failed", killed)
    causes = [event["failure"]["kind"] for event in read_events(tmp_path) if event["event"] == "interrupted"]
    assert causes == ["lost", "killed", "lost", "killed", "lost", "lost"]


@pytest.mark.parametrize(
    "setting", ["faults.minutes=0", "faults.retries=-1", "faults.memory_gib=many", "faults.minuts=3"]
)
def test_a_limit_that_makes_no_sense_is_refused(setting):
    with pytest.raises(InputError, match="faults"):
        study(1, "good", setting)


def test_memory_of_children_counts_and_what_has_ended_has_none():
    alone = resident_bytes(os.getpid())
    code = "kept = bytearray(10**8); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()

    together = resident_bytes(os.getpid())
    child.communicate(b"\n")

    assert together > alone + 10**8 and resident_bytes(child.pid) == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [("faults.reserve_gib=1e6", "GiB are free for"), ("faults.checkpoints_gib=1e-9", None)],
)
def test_no_trial_is_begun_without_room_on_the_disk_while_running_ones_end(tmp_path, setting, words):
    session, record = _session(tmp_path)
    task = session.next()
    (tmp_path / "checkpoints" / task.key).mkdir(parents=True)
    (tmp_path / "checkpoints" / task.key / "epoch-000001.safetensors").write_bytes(b"w" * 1000)
    session.study = study(60, "good", setting)

    with record:
        while_running = session.next()
        session.take(task, Report(metrics={"val_loss": 1.0}, state="done"))
        if words:
            with pytest.raises(SetupError, match=words):
                session.next()
        else:  # a final trial has no checkpoints: there is room again
            assert session.next() is not None

    assert while_running is None
    assert read_trials(tmp_path)[0].state == "done"


def test_paused_trials_that_take_all_that_checkpoints_may_end_a_search_with_what_helps(tmp_path):
    short = study(9, None, "search.halving={first: 1, factor: 3}", "recipe.epochs=3", "faults.checkpoints_gib=0.0005")

    with pytest.raises(SetupError, match=r"checkpoints_gib allows 0\.0005; allow more \(paused trials keep theirs\)"):
        run(short, local=True, runs=tmp_path)

    wide = study(9, None, "search.halving={first: 1, factor: 3}", "recipe.epochs=3", "faults.checkpoints_gib=1")
    assert run(wide, local=True, runs=tmp_path).complete


def test_a_disk_without_the_reserve_is_told_before_any_trial(tmp_path):
    with pytest.raises(SetupError, match=r"reserve_gib keeps 1e\+06; free some space and run again"):
        run(study(2, "good", "faults.reserve_gib=1e6"), local=True, runs=tmp_path)

    assert read_trials(tmp_path / "quickstart") == []


def test_a_place_for_runs_that_cannot_be_one_is_told_before_any_trial(tmp_path):
    (tmp_path / "runs").write_text("a file")

    with pytest.raises(SetupError, match="runs"):
        run(study(2, "good"), local=True, runs=tmp_path / "runs")
