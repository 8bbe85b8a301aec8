"""A search whose trials are made up: all of the driver (strategy, record, lock, mirror), none of the training.

    python benchmarks/simulated.py RUNS --trials 500 --faults 0.05 --seed 0

What becomes of a trial follows from the seed and its number: most end well; with probability ``--faults`` each it is
killed once, is killed always, has a NaN, or hangs. Four are under way at a time, and their reports come in mixed order.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

from coatnet_search.record.trial import Failure
from coatnet_search.search import run as run_module
from coatnet_search.search.session import Session
from coatnet_search.search.task import Report, Task
from coatnet_search.study.load import load_study

EPOCHS = 5
AT_ONCE = 4
KILLED = Failure(kind="killed", message="its process has died")
ENDS = {"nan": Failure(kind="nan", message="val_loss is nan in epoch 3"),
        "hang": Failure(kind="timeout", message="no report for 10 minutes (faults.silent_minutes)")}  # fmt: skip


def study_of(trials: int, strategy: str, *settings: str) -> Any:
    """The quickstart's space and data, with a trainer that is never called."""
    given = ("measure=[]", f"recipe.epochs={EPOCHS}", f"search.trials={trials}", f"search.strategy={strategy}")
    return load_study("quickstart", [*given, *settings], "simulated:never")


def never(arch: Any, budget: Any, data: Any, device: Any) -> None:
    raise AssertionError("trials are simulated here")


def metrics(task: Task, epoch: int) -> dict[str, float]:
    """What a trial of this network reports: smooth in its cost, with a little of its own."""
    own = int(task.arch.id[:4], 16) / 65536
    error = 0.6 / (epoch + own) + 0.1 * own
    return {"epoch": epoch, "train_loss": error * 2, "val_loss": error * 3, "val_top1": 1 - error, "val_top5": 1.0}


class Simulation:
    """Drives a session as Ray's hooks do: reports of several trials, mixed; deaths; ends."""

    def __init__(self, session: Session, seed: int, faults: float, pause_s: float) -> None:
        self.session, self.seed, self.faults, self.pause_s = session, seed, faults, pause_s
        self.order = random.Random(seed)
        self.running: dict[int, tuple[Task, int]] = {}

    def fate(self, number: int) -> str:
        kinds = ("killed once", "killed always", "nan", "hang")
        draw = random.Random(f"{self.seed} {number}").random() / self.faults if self.faults else len(kinds)
        return kinds[int(draw)] if draw < len(kinds) else "well"

    def drive(self) -> None:
        while True:
            while len(self.running) < AT_ONCE and (task := self.session.next()):
                self.running[task.number] = (task, len(self.session.trials[task.number].curve))
            if not self.running:
                return
            self.step(self.order.choice(sorted(self.running)))
            time.sleep(self.pause_s)

    def step(self, number: int) -> None:
        """One report of a trial, or its end."""
        task, epoch = self.running[number]
        fate, tried = self.fate(number), self.session._tries[number]
        if epoch == 2 and (fate == "killed always" or (fate == "killed once" and not tried)):
            del self.running[number]
            self.session.interrupted(task, KILLED, counts=True)
        elif epoch == 2 and fate in ENDS:
            del self.running[number]
            self.session.take(task, Report(metrics={}, state="failed", failure=ENDS[fate], timings={"wall_s": 1.0}))
        elif epoch < EPOCHS:
            self.running[number] = (task, epoch + 1)
            self.session.take(task, Report(metrics=metrics(task, epoch + 1)))
        else:
            del self.running[number]
            costs = self.session.study.space.cost(self.session.trials[number].candidate).as_metrics()
            last = {name: value for name, value in metrics(task, EPOCHS).items() if name != "epoch"}
            final = {**costs, **last, "error": 1 - last["val_top1"]}
            self.session.take(task, Report(metrics=final, state="done", device="none", timings={"wall_s": 60.0}))


def search(study: Any, runs: Path, seed: int = 0, faults: float = 0.0, pause_s: float = 0.0) -> run_module.Outcome:
    """Runs or resumes a study on made-up trials."""

    def drive(session: Session, *_: Any) -> None:
        Simulation(session, seed, faults, pause_s).drive()

    original = run_module._drive
    run_module._drive = drive
    try:
        return run_module.run(study, local=True, runs=runs)
    finally:
        run_module._drive = original


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two events")
    parser.add_argument("--set", dest="sets", nargs="+", default=["tracking.enabled=false"])
    given = parser.parse_args()
    study = study_of(given.trials, given.strategy, "space=cifar-small", *given.sets)
    outcome = search(study, given.runs, given.seed, given.faults, given.pause)
    print(f"{outcome.run}: {outcome.finished} trials, {outcome.failed} failed")


if __name__ == "__main__":
    main()
