"""Trainers as a user would write them, well and badly; Ray's workers import them by name."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

GOOD = {"train_loss": 1.0, "val_loss": 0.5, "val_top1": 0.9, "val_top5": 1.0}


def score(arch):
    """A number that follows from the network alone."""
    return int(arch.id[:6], 16) / 0xFFFFFF


def good(arch, budget, data, device):
    for _ in range(budget.epochs):
        yield {**GOOD, "val_loss": score(arch)}


def slow(arch, budget, data, device):
    for _ in range(budget.epochs):
        time.sleep(0.25)
        yield {**GOOD, "val_loss": score(arch)}


def unlucky(arch):
    return int(arch.id[-1], 16) % 2 == 0


def raises(arch, budget, data, device):
    yield GOOD
    raise ZeroDivisionError("the third layer fell off")


def half_raise(arch, budget, data, device):
    yield GOOD
    if unlucky(arch):
        raise ZeroDivisionError(f"no luck with {arch.id}")


def nan_in_epoch_two(arch, budget, data, device):
    yield {**GOOD, "val_loss": score(arch)}
    yield {**GOOD, "val_loss": float("nan") if unlucky(arch) else score(arch)}


def infinite(arch, budget, data, device):
    yield {**GOOD, "val_loss": float("inf")}


def no_objective(arch, budget, data, device):
    yield {"train_loss": 1.0}


def never_reports(arch, budget, data, device):
    return iter(())


def scalars(arch, budget, data, device):
    yield {**GOOD, "val_loss": torch.tensor(0.5), "val_top1": np.float32(0.25), "train_loss": np.array([1.5])}


def text(arch, budget, data, device):
    yield {**GOOD, "val_loss": "0.5"}


def array(arch, budget, data, device):
    yield {**GOOD, "val_loss": np.zeros(3)}


def accuracy_in_percent(arch, budget, data, device):
    yield {**GOOD, "val_top1": 93.0}


def out_of_memory(arch, budget, data, device):
    yield GOOD
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def exits(arch, budget, data, device):
    yield GOOD
    sys.exit(3)


def _once(arch):
    """True the first time it is asked for a network; TRAINERS_MARKS names a folder."""
    mark = Path(os.environ["TRAINERS_MARKS"]) / arch.id
    if mark.exists():
        return False
    mark.touch()
    return True


def killed_once(arch, budget, data, device):
    yield {**GOOD, "val_loss": score(arch)}
    if unlucky(arch) and _once(arch):
        os.kill(os.getpid(), signal.SIGKILL)
    yield {**GOOD, "val_loss": score(arch)}


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class NoException(BaseException):
    pass


def wordless(arch, budget, data, device):
    yield GOOD
    raise Wordless


def exits_without_words(arch, budget, data, device):
    yield GOOD
    raise SystemExit(Wordless())


def yields_what_has_no_words(arch, budget, data, device):
    yield Wordless()


def names_a_metric_without_words(arch, budget, data, device):
    yield {Wordless(): "text"}


def raises_no_exception(arch, budget, data, device):
    yield GOOD
    raise NoException("odd")


def goes_elsewhere_and_closes_the_streams(arch, budget, data, device):
    os.chdir("/")
    sys.stdout.close()
    sys.stderr.close()
    yield {**GOOD, "val_loss": score(arch)}
    assert os.getcwd() == "/"
    sys.stdout.write("a word after all\n")
    os.close(1)
    yield {**GOOD, "val_loss": score(arch)}


def first_ends_the_process(arch, budget, data, device):
    """The first network that it is ever asked for; TRAINERS_MARKS names a folder."""
    mark = Path(os.environ["TRAINERS_MARKS"]) / "first"
    if not mark.exists():
        mark.write_text(arch.id)
    yield {**GOOD, "val_loss": score(arch)}
    if mark.read_text() == arch.id:
        os._exit(7)
    yield {**GOOD, "val_loss": score(arch)}


def killed_always(arch, budget, data, device):
    yield GOOD
    if unlucky(arch):
        os.kill(os.getpid(), signal.SIGKILL)
    yield GOOD


def segfaults(arch, budget, data, device):
    yield GOOD
    if unlucky(arch):
        ctypes.string_at(0)
    yield GOOD


def sleeps(arch, budget, data, device):
    """Hangs in its second epoch, where Python can still be interrupted."""
    yield {**GOOD, "val_loss": score(arch)}
    if unlucky(arch):
        time.sleep(1e9)
    yield {**GOOD, "val_loss": score(arch)}


def holds_the_interpreter(arch, budget, data, device):
    """Hangs in C code that never lets go of Python, with a child process beside it."""
    yield {**GOOD, "val_loss": score(arch)}
    if unlucky(arch):
        child = subprocess.Popen(["sleep", "1000"])
        (Path(os.environ["TRAINERS_MARKS"]) / f"child-{child.pid}").touch()
        ctypes.PyDLL(None).sleep(100_000)
    yield {**GOOD, "val_loss": score(arch)}


def swallows(arch, budget, data, device):
    """Goes on after whatever exception, and never ends."""
    yield {**GOOD, "val_loss": score(arch)}
    while True:
        try:
            time.sleep(1e9)
        except Exception:
            continue


def grows(arch, budget, data, device):
    """Takes half a GiB more every 0.1 s."""
    kept = []
    yield {**GOOD, "val_loss": score(arch)}
    while unlucky(arch):
        kept.append(np.ones(2**26))
        time.sleep(0.1)
    yield {**GOOD, "val_loss": score(arch)}


def late(arch, budget, data, device):
    """Ten times as slow where it has no luck."""
    for _ in range(budget.epochs):
        time.sleep(1.0 if unlucky(arch) else 0.1)
        yield {**GOOD, "val_loss": score(arch)}


def learns(arch, budget, data, device):
    """A loss that falls with every epoch to the network's own score, faster where convolutions come first."""
    for epoch in range(1, budget.epochs + 1):
        late = 0.3 if "T" in arch.layout else 0.05
        yield {**GOOD, "val_loss": 0.1 + score(arch) / 5 + late * (1 - epoch / budget.epochs) + 1 / (1 + epoch)}


def half_known(arch, budget, data, device):
    yield {"val_loss": 1.0, "val_top1": 0.5, "val_top5": None}


def no_mapping(arch, budget, data, device):
    return {"val_loss": 1.0, "val_top1": 0.5}
