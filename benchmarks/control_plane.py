"""What the driver of a search costs: seconds, memory and disk a trial; reading, resuming, reporting. One machine, once.

    python benchmarks/control_plane.py --trials 2000            # trials are made up, see simulated.py; no Ray
    python benchmarks/control_plane.py --trials 200 --plain 40  # and 40 trials on Ray beside plain Ray Tune

The driver's time of a trial is all that happens between its proposal and its end, five reports included; how much of it
is the strategy's is timed too. ``--plain`` compares a whole study on Ray, mirrored to MLflow, with Ray Tune,
OptunaSearch and MLflowLoggerCallback, both with trials that report five times and take no time.
"""

import argparse
import contextlib
import json
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch
from simulated import metrics, search, study_of

from coatnet_search.analysis.front import hypervolume_over_trials, pareto_front
from coatnet_search.cli.main import main as command
from coatnet_search.record.fold import encode, read_events, read_record
from coatnet_search.search.run import run
from coatnet_search.search.session import Session
from coatnet_search.search.task import Task
from coatnet_search.study.load import load_study
from coatnet_search.training.guard import resident_bytes

QUIET = ("space=cifar-small", "tracking.enabled=false")
OBJECTIVES = {"val_loss": "min", "macs": "min"}
EPOCHS = 5


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def timed(name: str, work: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds: on a busy machine the second is what the work took."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {f"{name}, wall s": time.perf_counter() - wall, f"{name}, CPU s": time.process_time() - cpu}


class Clock:
    """Adds up the time in a method of Session, which it wraps."""

    def __init__(self, name: str) -> None:
        self.total, method = 0.0, getattr(Session, name)

        def timed(*given: Any) -> Any:
            begin = time.perf_counter()
            try:
                return method(*given)
            finally:
                self.total += time.perf_counter() - begin

        setattr(Session, name, timed)


def load(trials: int, runs: Path) -> dict[str, float]:
    """A search of so many trials on an empty record, then the same command again."""
    strategy, study = Clock("_propose"), study_of(trials, "random", *QUIET)
    search(study_of(50, "random", *QUIET), runs / "warm")  # imports, counts and caches that every study pays once
    strategy.total = 0.0
    before = resident_bytes(os.getpid())
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    wall = seconds(lambda: search(study, runs))
    used = resource.getrusage(resource.RUSAGE_SELF)
    grown = resident_bytes(os.getpid()) - before
    busy = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    return {
        "driver and strategy, wall s a trial": wall / trials,
        "driver and strategy, CPU s a trial": busy / trials,
        "of this the strategy's, wall s a trial": strategy.total / trials,
        "memory growth, kB a trial": grown / trials / 1000,
        "record, kB a trial": (runs / "quickstart" / "trials.jsonl").stat().st_size / trials / 1000,
        **timed("resume of the whole", lambda: search(study, runs)),
    }


def copied(source: Path, target: Path, trials: int) -> None:
    """A record of so many trials, made of another's by giving its trials new numbers and keys."""
    events = [event for event in read_events(source) if event.get("number") is not None]
    count = 1 + max(event["number"] for event in events)
    target.mkdir(parents=True)
    (target / "study.yaml").write_text((source / "study.yaml").read_text())
    with (target / "trials.jsonl").open("wb") as file:
        for start in range(0, trials, count):
            for event in events:
                if (number := event["number"] + start) < trials:
                    file.write(encode({**event, "number": number, "key": f"{event['key']}-{start}"}))


def large(source: Path, target: Path, trials: int) -> dict[str, float]:
    """Reading, analysing and reporting a study of so many trials."""
    copied(source, target, trials)
    frame = read_record(target)
    return {
        **timed(f"{trials:,} trials read", lambda: read_record(target)),
        **timed(
            f"{trials:,} trials: front and hypervolume",
            lambda: (pareto_front(frame, OBJECTIVES), hypervolume_over_trials(frame, OBJECTIVES)),
        ),
        **timed(f"{trials:,} trials reported (page and pictures)", lambda: reported(target)),
    }


def reported(run_folder: Path) -> None:
    """What ``report RUN`` does, with what it prints thrown away."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        command(["report", str(run_folder)])


def five_reports(arch: Any, budget: Any, data: Any, device: Any) -> Iterator[Mapping[str, float]]:
    """A trainer that takes no time."""
    task = Task(number=0, key="", arch=arch, budget=budget)
    for epoch in range(1, EPOCHS + 1):
        yield {name: value for name, value in metrics(task, epoch).items() if name != "epoch"}


def plain(config: dict[str, Any]) -> None:
    for epoch in range(1, EPOCHS + 1):
        tune.report({"val_loss": config["x"] / epoch, "macs": config["y"]})


def beside_plain(trials: int, folder: Path) -> dict[str, float]:
    """Wall seconds a trial on two workers of Ray, both mirrored to an SQLite file of MLflow."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    given = (f"search.trials={trials}", f"recipe.epochs={EPOCHS}", "measure=[]", "search.strategy=tpe")
    study = load_study("quickstart", given, f"{__name__}:five_reports")
    ours = seconds(lambda: run(study, workers=2, runs=folder / "ours"))
    database = f"sqlite:///{folder}/plain.db"
    tuner = tune.Tuner(
        tune.with_resources(plain, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(search_alg=OptunaSearch(metric=["val_loss", "macs"], mode=["min", "min"]),
                                    num_samples=trials, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0, callbacks=[
            MLflowLoggerCallback(tracking_uri=database, experiment_name="plain")]),
    )  # fmt: skip
    theirs = seconds(tuner.fit)
    ray.shutdown()
    return {
        f"ours on Ray, mirrored, {trials} trials, wall s a trial": ours / trials,
        f"Ray Tune + OptunaSearch + MLflowLoggerCallback, {trials} trials, wall s a trial": theirs / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--large", type=int, default=10_000, help="trials of the record that is read and reported")
    parser.add_argument("--plain", type=int, default=0, help="trials on Ray, ours and plain")
    given = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = load(given.trials, folder)
        rows |= large(folder / "quickstart", folder / "large", given.large)
        rows |= beside_plain(given.plain, folder) if given.plain else {}
    for name, value in rows.items():
        print(f"{name:90}{value:>10.4f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    import control_plane  # workers import the trainer by this file's name

    control_plane.main()
