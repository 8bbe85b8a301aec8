"""Seconds of driver a trial: trials that train for no time, on Ray, beside plain Ray Tune. One run, one machine.

    python benchmarks/driver_overhead.py --trials 500 --plain 30

``ours`` is a whole study: strategy, exact costs, record, live counts, two workers. ``plain`` is a Ray Tune function
that reports one number, with a fresh process a trial (Tune's default) and with processes reused.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from coatnet_search.search.run import run
from coatnet_search.study.load import load_study

SETTINGS = ("search.strategy=random", "measure=[]", "recipe.epochs=1", "tracking.enabled=false")


def no_time(arch: Any, budget: Any, data: Any, device: Any) -> Iterator[Mapping[str, float]]:
    """A trainer that returns at once."""
    yield {"train_loss": 1.0, "val_loss": int(arch.id, 16) / 16**10, "val_top1": 0.5}


def plain(config: dict[str, Any]) -> None:
    tune.report({"val_loss": config["x"]})


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours(trials: int, runs: Path) -> float:
    study = load_study("quickstart", [*SETTINGS, f"search.trials={trials}"], f"{__name__}:no_time")
    return seconds(lambda: run(study, workers=2, runs=runs))


def tuned(trials: int, reuse: bool, folder: Path) -> float:
    tuner = tune.Tuner(
        tune.with_resources(plain, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    return seconds(tuner.fit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--plain", type=int, default=30, help="trials with fresh processes, which take longer")
    given = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "ours": ours(given.trials, Path(folder) / "ours") / given.trials,
            "plain Ray Tune, fresh processes": tuned(given.plain, False, Path(folder) / "fresh") / given.plain,
            "plain Ray Tune, processes reused": tuned(given.trials, True, Path(folder) / "reused") / given.trials,
        }
    print(f"{'':36}{'s a trial':>10}{'ratio to ours':>15}")
    for name, value in rows.items():
        print(f"{name:36}{value:>10.3f}{value / rows['ours']:>15.1f}")
    print("the start of the worker processes is in all figures")


if __name__ == "__main__":
    import driver_overhead  # workers import the trainer by this file's name

    driver_overhead.main()
