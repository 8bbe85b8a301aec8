"""Trainers share a device, a measurement has it alone; the dead leave nothing locked, the waiting are served."""

import contextlib
import multiprocessing
import os
import platform
import signal
import threading
import time

import pytest

from coatnet_search.training import device_lock
from coatnet_search.training.device_lock import DeviceLock

FORK = multiprocessing.get_context("fork")
PATIENCE_S = 30


class Holder:
    """A process that takes a lock, says so, and holds it until it is told to let go."""

    def __init__(self, folder, how, device="cpu"):
        self.inside, self.leave = FORK.Event(), FORK.Event()
        self.process = FORK.Process(target=self._hold, args=(folder, how, device), daemon=True)
        self.process.start()

    def _hold(self, folder, how, device):
        with getattr(DeviceLock(device, folder), how)():
            self.inside.set()
            self.leave.wait(PATIENCE_S)

    def is_inside(self, within_s=PATIENCE_S):
        return self.inside.wait(within_s)

    def let_go(self):
        self.leave.set()
        self.process.join(PATIENCE_S)
        return self.process.exitcode == 0


@pytest.fixture
def hold(tmp_path):
    holders = []

    def start(how, device="cpu"):
        holders.append(Holder(tmp_path, how, device))
        return holders[-1]

    yield start
    for holder in holders:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.process.pid, signal.SIGKILL)
        holder.process.join(PATIENCE_S)


def test_trainers_overlap(hold):
    one = hold("shared")
    assert one.is_inside()

    other = hold("shared")

    assert other.is_inside()
    assert one.let_go()
    assert other.let_go()


@pytest.mark.parametrize(("first", "second"), [("shared", "alone"), ("alone", "shared"), ("alone", "alone")])
def test_a_measurement_is_alone(hold, first, second):
    one = hold(first)
    assert one.is_inside()

    other = hold(second)

    assert not other.is_inside(0.3)
    assert one.let_go()
    assert other.is_inside()
    assert other.let_go()


def test_other_devices_are_not_waited_for(hold):
    assert hold("alone", "GPU-1").is_inside()

    assert hold("alone", "GPU-2").is_inside()


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_a_killed_holder_leaves_nothing_locked(hold, how):
    dead = hold(how)
    assert dead.is_inside()

    os.kill(dead.process.pid, signal.SIGKILL)

    assert hold("alone").is_inside()


def test_a_killed_waiter_leaves_nothing_locked(hold):
    trainer = hold("shared")
    assert trainer.is_inside()
    waiting = hold("alone")
    assert not waiting.is_inside(0.3)

    os.kill(waiting.process.pid, signal.SIGKILL)

    assert hold("shared").is_inside()


def test_a_waiting_measurement_keeps_new_trainers_out_and_comes_first(hold):
    trainer = hold("shared")
    assert trainer.is_inside()
    measurement = hold("alone")
    assert not measurement.is_inside(0.3)

    late = hold("shared")

    assert not late.is_inside(0.3)
    assert trainer.let_go()
    assert measurement.is_inside()
    assert not late.is_inside(0.3)
    assert measurement.let_go()
    assert late.is_inside()


def test_trainers_that_take_turns_without_a_pause_do_not_starve_a_measurement(tmp_path):
    lock, stop = DeviceLock("cpu", tmp_path), threading.Event()

    def train():
        while not stop.is_set():
            with lock.shared():
                time.sleep(0.01)

    trainers = [threading.Thread(target=train, daemon=True) for _ in range(4)]
    for trainer in trainers:
        trainer.start()
    measured = threading.Event()

    def measure():
        for _ in range(5):
            with lock.alone():
                time.sleep(0.01)
        measured.set()

    threading.Thread(target=measure, daemon=True).start()

    assert measured.wait(PATIENCE_S)
    stop.set()
    for trainer in trainers:
        trainer.join(PATIENCE_S)


def test_steps_of_trainers_and_measurements_never_overlap(tmp_path):
    lock, inside, wrong = DeviceLock("cpu", tmp_path), [], []

    def work(how):
        for _ in range(20):
            with getattr(lock, how)():
                inside.append(how)
                wrong.extend(inside[:] if "alone" in inside and len(inside) > 1 else [])
                time.sleep(0.001)
                inside.remove(how)

    threads = [threading.Thread(target=work, args=(how,)) for how in ("shared", "shared", "alone", "alone")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_an_error_inside_lets_go(tmp_path, hold, how):
    with pytest.raises(ZeroDivisionError), getattr(DeviceLock("cpu", tmp_path), how)():
        raise ZeroDivisionError

    assert hold("alone").is_inside()


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_a_process_that_was_forked_inside_does_not_hold_the_lock_on(tmp_path, hold, how):
    leave = FORK.Event()
    with getattr(DeviceLock("cpu", tmp_path), how)():
        child = FORK.Process(target=leave.wait, args=(PATIENCE_S,), daemon=True)
        child.start()

    assert hold("alone").is_inside()
    leave.set()
    child.join(PATIENCE_S)


def test_no_handles_are_left_open(tmp_path):
    lock = DeviceLock("cpu", tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    for _ in range(50):
        with lock.shared():
            pass
        with lock.alone():
            pass

    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("device", ["cpu", "GPU-8a/../../x", "cuda:0", "ü", "a" * 100])
def test_files_of_locks_stay_in_their_folder(tmp_path, device):
    folder = tmp_path / "locks"

    with DeviceLock(device, folder).shared():
        pass

    assert len(list(folder.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="this system does not say who holds a lock")
def test_who_waits_long_says_for_whom_and_that_it_was_stopped(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(device_lock, "PATIENCE_S", 0.2)
    monkeypatch.setattr(device_lock, "LOOK_S", 0.1)
    holder, told = hold("shared"), []
    assert holder.is_inside()
    pid = holder.process.pid
    os.kill(pid, signal.SIGSTOP)
    lock = DeviceLock("cpu", tmp_path, watch=lambda seconds, sentence: told.append((seconds, sentence)))
    waiting = threading.Thread(target=lambda: lock.alone().__enter__(), daemon=True)
    begun = time.monotonic()

    waiting.start()
    while not any(sentence for _, sentence in told) and time.monotonic() < begun + PATIENCE_S:
        time.sleep(0.05)
    os.kill(pid, signal.SIGCONT)
    assert holder.let_go()
    waiting.join(PATIENCE_S)

    said = [sentence for _, sentence in told if sentence]
    assert len(said) == 1 and said[0].startswith(f"waiting for the device cpu, which pid {pid} (")
    assert said[0].endswith(f"on {platform.node()} holds; {pid} was stopped: `kill -CONT {pid}` lets it go on")
    assert told[0][1] == "" and 0.1 <= told[-1][0] <= lock.waited_s() <= time.monotonic() - begun


def test_a_device_that_is_free_is_not_waited_for(tmp_path):
    lock = DeviceLock("cpu", tmp_path)

    with lock.shared():
        pass
    with lock.alone():
        pass

    assert lock.waited_s() == 0.0


def test_nobody_is_named_where_the_system_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(device_lock, "_LOCKS", tmp_path / "none")

    assert device_lock.holders(tmp_path / "lock") == f"which another process on {platform.node()} holds"
