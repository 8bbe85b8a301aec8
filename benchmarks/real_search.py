"""Whether a strategy beats random candidates in real searches: digits on Ray, the same number of trials, several seeds.

    python benchmarks/real_search.py OUT --workers 2        # again to go on, or to print the table of what is there

Half of the digits train for few epochs and the other half scores, so that errors differ by more than the noise of a few
hundred images. Shares are of the box from the best value of each objective in any run to 10 % of its range beyond the
worst, so that all runs are measured alike; they take validation errors as they were seen, luck included, which is the
same for every strategy. Intervals are 95 %, by t over seeds; differences are of runs with the same seed.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from coatnet_search.analysis.front import REFERENCE, running_volume
from coatnet_search.record.fold import read_trials
from coatnet_search.record.trial import TERMINAL, Trial

SETS = ("objectives={error: min, macs: min}", "measure=[]", "data.val_fraction=0.5", "tracking.enabled=false")
Losses = np.ndarray  # (trials, 2): error and multiply-adds, in order of number; infinite where a trial has none


def folder(out: Path, strategy: str, seed: int) -> Path:
    return out / f"{strategy}-{seed}"


def search(run: Path, strategy: str, seed: int, trials: int, epochs: int, workers: int) -> None:
    """One search from its beginning, or from where it was left, to its end."""
    sets = [*SETS, f"search.strategy={strategy}", f"search.seed={seed}", f"search.trials={trials}"]
    command = [sys.executable, "-m", "coatnet_search", "run", "quickstart", "--runs", str(run)]
    command += ["--workers", str(workers), "--set", *sets, f"recipe.epochs={epochs}"]
    subprocess.run(command, check=True)


def ended(run: Path) -> list[Trial]:
    """Its trials that have ended, in order of number; none where it has not begun."""
    trials = read_trials(run / "quickstart") if (run / "quickstart").is_dir() else []
    return sorted((trial for trial in trials if trial.state in TERMINAL), key=lambda trial: trial.number or 0)


def losses(trials: Sequence[Trial]) -> Losses:
    rows = []
    for trial in trials:
        values = [trial.metrics.get(name) for name in ("error", "macs")]
        rows.append(values if trial.state == "done" and None not in values else [np.inf, np.inf])
    return np.array(rows, dtype=float)


def shares(found: Mapping[tuple[str, int], Losses]) -> dict[tuple[str, int], np.ndarray]:
    """(trials,) of each run: the share of the common box that its first 1, 2, ... trials reach."""
    every = np.vstack(list(found.values()))
    every = every[np.isfinite(every).all(axis=1)]
    best, span = every.min(axis=0), np.ptp(every, axis=0)
    return {key: running_volume((values - best) / (REFERENCE * span)) for key, values in found.items()}


def interval(values: Sequence[float]) -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.3f}±{half:.3f}"


def table(found: Mapping[tuple[str, int], np.ndarray], strategies: Sequence[str], counts: Sequence[int]) -> None:
    seeds = {name: [seed for one, seed in found if one == name] for name in strategies}
    for count in counts:
        parts = [f"trials={count}"]
        for name in strategies:
            each = [found[name, seed][count - 1] for seed in seeds[name]]
            parts.append(f"{name}={interval(each)} ({' '.join(f'{value:.3f}' for value in each)})")
        base = strategies[-1]
        for name in strategies[:-1]:
            both = [seed for seed in seeds[name] if seed in seeds[base]]
            gaps = [found[name, seed][count - 1] - found[base, seed][count - 1] for seed in both]
            parts.append(f"{name}-{base}={interval(gaps)}" if gaps else f"{name}-{base}=no seed in common")
        print("  ".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--strategies", nargs="+", default=["predictor", "random"], help="the last is compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    runs = {}
    for seed, strategy in itertools.product(given.seeds, given.strategies):
        run = folder(given.out, strategy, seed)
        if len(ended(run)) < given.trials:
            search(run, strategy, seed, given.trials, given.epochs, given.workers)
        runs[strategy, seed] = losses(ended(run)[: given.trials])
    table(shares(runs), given.strategies, [count for count in (10, 20, 30, 40) if count <= given.trials])


if __name__ == "__main__":
    main()
