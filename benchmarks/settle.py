"""Does ``settle`` find the better layout for fewer GPU-hours than a grid, or than the largest runs that fit?

    python benchmarks/settle.py                                       # worlds with a known truth
    python benchmarks/settle.py --record studies/records/cifar10-scaling.jsonl  # replay of real runs

A world has a power law with a floor for each layout, which cross; networks of a layout differ by a factor that stays
with them, seeds by another. Runs are bought on a grid of layouts, instances, data sizes and seeds; the choice is for
a data size four times the largest. Regret: the true error there of the layout that was chosen less that of the best,
in points. ``settle`` buys in its own order and stops when it is settled; ``grid`` buys one instance and seed after
another, data sizes ascending; both choose by the same predictor, and before that has enough sizes by the largest size
that all layouts have; ``largest`` trains all layouts on the largest data
size that the hours allow, repeats what is left over, and chooses the smallest mean error. Intervals are 95 %, by
bootstrap over repetitions; differences are paired.

A record is a RUN folder, a published record, or JSON lines with layout, num_images, error and any of instance (or
arch_id), size, seed and hours (or wall_s). Its largest data size is held out: the truth is the mean error there; each
repetition hides a random half of the repeats of each cell.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.curves.next_run import MIN_SIZES, Beliefs, Run
from coatnet_search.record.fold import read_record

LAYOUTS = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T")
SIZES = (700, 1400, 2800, 5600, 11250, 22500, 45000)
TARGET = 180_000
BUDGETS = (1.0, 2.0, 4.0, 8.0, 16.0)
HOURS = (0.02, 1 / 45_000)  # of a run: to start it, and for each image
INSTANCES, SEEDS = 3, 3
SEED_SD, INSTANCE_SD = 0.015, 0.025  # of log error
Buy = Callable[[Run], Run]


@dataclass(frozen=True)
class World:
    """What can be bought, what it costs, what comes out, and the true error of each layout at the target."""

    possible: Sequence[Run]
    hours: Callable[[Run], float]
    outcome: Mapping[tuple[object, ...], float]
    truth: Mapping[str, float]
    target: float

    def buy(self, run: Run) -> Run:
        return replace(run, error=self.outcome[run.key])

    def regret(self, layout: str | None) -> float:
        """In points; nothing chosen counts as a layout drawn at random."""
        errors = self.truth
        chosen = float(np.mean(list(errors.values()))) if layout is None else errors[layout]
        return 100 * (chosen - min(errors.values()))


def synthetic(seed: int) -> World:
    """Layouts that begin worse the more attention they have, and on average fall faster."""
    rng = np.random.default_rng([2026, seed])
    outcome, truth = {}, {}
    possible = [Run(layout=layout, num_images=size, instance=instance, seed=each)
                for layout, size, instance, each in itertools.product(LAYOUTS, SIZES, range(INSTANCES), range(SEEDS))
                ]  # fmt: skip
    for place, layout in enumerate(LAYOUTS):
        start = 0.5 * np.exp(0.10 * place + rng.normal(0, 0.05))
        exponent = 0.30 + 0.05 * place + rng.normal(0, 0.05)
        floor = rng.uniform(0.01, 0.05)
        effects = rng.normal(0, INSTANCE_SD, INSTANCES)

        def error(images: float, start: float = start, exponent: float = exponent, floor: float = floor) -> float:
            return float(floor + (start - floor) * (images / SIZES[0]) ** -exponent)

        truth[layout] = error(TARGET)
        for run in possible:
            if run.layout == layout:
                noise = effects[int(run.instance)] + rng.normal(0, SEED_SD)
                outcome[run.key] = error(run.num_images) * float(np.exp(noise))
    return World(possible, lambda run: HOURS[0] + HOURS[1] * run.num_images, outcome, truth, TARGET)


def replayed(rows: Sequence[tuple[Run, float]], seed: int) -> World:
    """A world of real runs: its largest data size is the target, a random half of each cell's repeats can be bought."""
    target = max(run.num_images for run, _ in rows)
    layouts = {run.layout for run, _ in rows}
    held = {layout: [run.error for run, _ in rows if (run.layout, run.num_images) == (layout, target)]
            for layout in layouts}  # fmt: skip
    truth = {layout: float(np.mean(errors)) for layout, errors in held.items() if errors}
    rng = np.random.default_rng([2027, seed])
    cells: dict[tuple[str, int], list[Run]] = {}
    for run, _ in rows:
        if run.num_images < target and run.layout in truth:
            cells.setdefault((run.layout, run.num_images), []).append(run)
    kept = [runs[place] for runs in cells.values() for place in rng.permutation(len(runs))[: (len(runs) + 1) // 2]]
    costs = {run.key: hours for run, hours in rows}
    return World([replace(run, error=None) for run in kept], lambda run: costs[run.key],
                 {run.key: float(run.error or 0) for run in kept}, truth, target)  # fmt: skip


# --- strategies: the regret after each budget ------------------------------------------------------------------------


def settle(world: World, budgets: Sequence[float], seed: int) -> tuple[list[float], dict[str, Any]]:
    """Regret at each budget, and how it ended."""
    observed: list[Run] = []
    spent, regrets, choice, chance, end = 0.0, [], None, 0.0, None
    for budget in budgets:
        while end is None:
            beliefs = Beliefs(observed, world.possible, world.target, seed=seed)
            answer = beliefs.answer(beyond=True)
            choice = answer.best[0] if answer.best and not beliefs.lacking else smallest(observed)
            chance = max(answer.probability_best.values(), default=0.0)
            if answer.settled:
                end = spent
                break
            ranked = beliefs.rank(world.possible, world.hours)
            if not ranked:
                end = spent
                break
            if spent + ranked[0].hours > budget:
                break
            observed.append(world.buy(ranked[0].run))
            spent += ranked[0].hours
        regrets.append(world.regret(choice))
    return regrets, {"hours": spent, "runs": len(observed), "settled": end is not None, "chance": chance,
                     "right": world.regret(choice) == 0}  # fmt: skip


def grid(world: World, budgets: Sequence[float], seed: int) -> list[float]:
    order = sorted(world.possible, key=lambda run: (str(run.instance), run.seed, run.num_images, run.layout))
    regrets = []
    for budget in budgets:
        total = np.cumsum([world.hours(run) for run in order])
        bought = [world.buy(run) for run in order[: int(np.searchsorted(total, budget, side="right"))]]
        regrets.append(world.regret(predicted(bought, world, seed)))
    return regrets


def largest(world: World, budgets: Sequence[float], seed: int) -> list[float]:
    sizes = sorted({run.num_images for run in world.possible}, reverse=True)
    regrets = []
    for budget in budgets:
        bought: list[Run] = []
        for size in sizes:
            cells = {layout: [run for run in world.possible if (run.layout, run.num_images) == (layout, size)]
                     for layout in world.truth}  # fmt: skip
            for repeat in zip(*(sorted(runs, key=lambda run: (run.seed, str(run.instance)))
                                for runs in cells.values()), strict=False):  # fmt: skip
                if sum(map(world.hours, (*bought, *repeat))) <= budget:
                    bought += repeat
            if bought:
                break
        regrets.append(world.regret(smallest([world.buy(run) for run in bought])))
    return regrets


def predicted(bought: Sequence[Run], world: World, seed: int) -> str | None:
    """The layout that the predictor prefers, where all have enough data sizes; else the best at the largest size."""
    arms = {run.arm for run in world.possible}
    if all(len({run.num_images for run in bought if run.arm == arm}) >= MIN_SIZES for arm in arms):
        best = Beliefs(bought, [], world.target, seed=seed).answer(beyond=True).best
        return best[0] if best else None
    return smallest(bought)


def smallest(bought: Sequence[Run]) -> str | None:
    """The layout of the smallest mean error at the largest data size that all layouts have."""
    layouts = {run.layout for run in bought}
    common = set.intersection(*({run.num_images for run in bought if run.layout == each} for each in layouts)) \
        if layouts else set()  # fmt: skip
    if not common:
        return None
    means = {each: float(np.mean([run.error for run in bought if (run.layout, run.num_images) == (each, max(common))]))
             for each in layouts}  # fmt: skip
    return min(means, key=means.__getitem__)


# --- reading and printing --------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[tuple[Run, float]]:
    """Runs with their hours, of a RUN or of JSON lines."""
    rows = [] if path.is_dir() else [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if not rows or "event" in rows[0]:
        frame = read_record(path)
        rows = frame[frame["state"] == "done"].to_dict("records")
    found: dict[tuple[object, ...], tuple[Run, float]] = {}
    for row in rows:
        error = row.get("error") if row.get("error") is not None else 1 - row.get("val_top1", np.nan)
        hours = row.get("hours") or (row.get("wall_s") or 0) / 3600
        if row.get("num_images") and error > 0 and hours > 0:
            run = Run(layout=str(row["layout"]), num_images=int(row["num_images"]), size=float(row.get("size") or 1),
                      instance=str(row.get("instance") or row.get("arch_id") or 0), seed=int(row.get("seed") or 0),
                      error=float(error))  # fmt: skip
            found[run.key] = (run, float(hours))
    if not found:
        raise InputError(f"{path}: no finished run with layout, num_images, an error above 0 and hours")
    return list(found.values())


def interval(values: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():6.2f} ({low:5.2f} to {high:5.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="GPU-hours (1 2 4 8 16)")
    parser.add_argument("--record", type=Path, help="replay real runs: a RUN folder or JSON lines")
    given = parser.parse_args()
    rows = read_rows(given.record) if given.record else []
    budgets = sorted(given.budgets)
    found: dict[str, list[list[float]]] = {"settle": [], "grid": [], "largest": []}
    ends = []
    for seed in range(given.repetitions):
        world = replayed(rows, seed) if rows else synthetic(seed)
        regrets, end = settle(world, budgets, seed)
        found["settle"].append(regrets)
        found["grid"].append(grid(world, budgets, seed))
        found["largest"].append(largest(world, budgets, seed))
        ends.append(end)
        print(f"# {seed}: {end} settle {regrets} grid {found['grid'][-1]} largest {found['largest'][-1]}", flush=True)
    table = {name: np.array(values) for name, values in found.items()}
    print("hours |" + "|".join(f" {name:24s}" for name in table) + "| settle - grid            | settle - largest")
    for place, budget in enumerate(budgets):
        own = table["settle"][:, place]
        cells = [interval(values[:, place]) for values in table.values()]
        cells += [interval(own - table[name][:, place]) for name in ("grid", "largest")]
        print(f"{budget:5g} | " + " | ".join(cells))
    done = [end for end in ends if end["settled"]]
    hours, runs = (float(np.mean([end[name] for end in ends])) for name in ("hours", "runs"))
    right = sum(end["right"] for end in done)
    print(f"settled: {len(done)} of {len(ends)}, of which right: {right}; mean hours {hours:.1f}, runs {runs:.0f}")


if __name__ == "__main__":
    main()
