"""How long a strategy thinks: `suggest` of a batch with a long history in a CoAtNet space, on one core.

    OMP_NUM_THREADS=1 python benchmarks/suggest_speed.py --space cifar-small --trials 1000

The history has made-up errors that follow from the candidates. Times are CPU seconds of this process (what else runs on
the machine hardly changes them), the median of the repeats; the first call of each strategy is not counted.
"""

import argparse
import statistics
import time

import numpy as np

from coatnet_search import load_space
from coatnet_search.record.trial import Trial
from coatnet_search.strategies import Problem, make_strategy


def problem_of(name: str) -> Problem:
    space = load_space(name)
    return Problem(
        choices=space.choices,
        objectives={"error": "min", "macs": "min"},
        exact=space.exact,
        problems=space.build_problems,
        canonical=space.canonical,
        limits=space.limits,
    )


def history_of(problem: Problem, trials: int, rng: np.random.Generator) -> list[Trial]:
    drawn = make_strategy("random").suggest(problem, [], rng, trials)
    found = []
    for number, candidate in enumerate(drawn):
        exact = problem.exact(candidate)
        error = 0.9 - 0.05 * np.log(exact["macs"]) + rng.normal(0, 0.01)
        found.append(Trial(candidate, {"error": float(error), **exact}, "done", number=number))
    return found


def seconds(name: str, problem: Problem, history: list[Trial], batch: int, repeats: int) -> float:
    strategy, taken = make_strategy(name), []
    for repeat in range(repeats + 1):
        begin = time.process_time()
        strategy.suggest(problem, history, np.random.default_rng(repeat), batch)
        taken.append(time.process_time() - begin)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", nargs="+", default=["cifar-small", "imagenet-layouts"])
    parser.add_argument("--strategies", nargs="+", default=["predictor"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    for space in given.space:
        problem = problem_of(space)
        history = history_of(problem, given.trials, np.random.default_rng(0))
        for name in given.strategies:
            took = seconds(name, problem, history, given.batch, given.repeats)
            print(
                f"space={space}  strategy={name}  trials={len(history)}  batch={given.batch}  cpu_s={took:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
