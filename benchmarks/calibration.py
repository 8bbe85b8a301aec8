"""Whether every probability that the product prints holds: nominal beside actual rates in worlds whose truth is known.

``python benchmarks/calibration.py [--worlds 100] [--only NAME] [--macro FILE] [--write]``; about ten minutes on a core
for all of it. Worlds are simulated from seeds that no constant was chosen on. ``--macro``: NAS-Bench-Macro's table
(arch, test_acc_0..2, flops), for rows on real networks; its seeds are those that the prior of the noise between seeds
was looked up on, so these rows check the rest of the model. ``--write`` puts the table into the docs.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.front_noise import hypervolume, on_front, shares_of_box
from coatnet_search.analysis.insights import marginals
from coatnet_search.analysis.intervals import wilson
from coatnet_search.analysis.networks import networks
from coatnet_search.analysis.rank_agreement import draws, figure, kendall
from coatnet_search.analysis.too_short import too_short
from coatnet_search.curves.compare import expected_regret, probability_best, probability_better
from coatnet_search.curves.predict import fit_curve, fit_curves
from coatnet_search.curves.summary import Curve
from coatnet_search.full.scores import over_seeds

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "calibration.md"
MARK = "<!-- table -->"
BOTH = {"error": "min", "macs": "min"}
LAYOUTS = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T")
BINS = ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.01))
SEED = 50_000  # worlds of the table: nothing was developed on them (tests begin at 0, development at 20,000)
Told = list[tuple[float, float]]  # what was said of an event, and whether it was so


@dataclass(frozen=True)
class Row:
    """``nominal``: the rate that is said, or a mean; ``actual``: the one that came; ``error``: its standard error."""

    what: str
    world: str
    nominal: float
    actual: float
    error: float
    cases: int


def rate(what: str, world: str, nominal: float, inside: list[float]) -> Row:
    share = float(np.mean(inside))
    return Row(what, world, nominal, share, float(np.std(inside) / np.sqrt(len(inside))), len(inside))


def reliability(what: str, world: str, told: Told) -> Iterator[Row]:
    """A row a bin of probabilities: what was said on average, and how often it was so."""
    said, came = np.array(told).T
    for low, high in BINS:
        own = (said >= low) & (said < high)
        if own.sum() >= 20:
            error = float(np.sqrt(max(said[own].mean() * (1 - said[own].mean()), 1e-9) / own.sum()))
            name = f"{what} {low:g} to {min(high, 1):g}"
            yield Row(name, world, float(said[own].mean()), float(came[own].mean()), error, int(own.sum()))


# --- searches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A search of 24 networks: sd of networks at equal cost, of layouts, between seeds; validation images; whether the
    best five were trained with two more seeds."""

    spread: float
    layouts: float
    seeds: float
    num_val: int
    again: bool = False


WORLDS = {
    "equal networks": World(0.0, 0.0, 0.002, 450),
    "equal, best five again": World(0.0, 0.0, 0.002, 450, again=True),
    "like noise": World(0.010, 0.005, 0.004, 1000),
    "like noise, best five again": World(0.010, 0.005, 0.004, 1000, again=True),
    "more than noise": World(0.030, 0.015, 0.004, 5000),
    "more than noise, best five again": World(0.030, 0.015, 0.004, 5000, again=True),
}


def searched(world: World, seed: int, count: int = 24) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A record, the true errors by ``arch_id`` (its place), and what they would be on these images with many seeds:
    half of the images' noise is common to all networks."""
    rng = np.random.default_rng(SEED + seed)
    cost, layout = rng.uniform(13, 16, count), rng.integers(len(LAYOUTS), size=count)
    truth = 0.15 - (0.02 if world.spread else 0.0) * (cost - 14.5)
    truth = truth + world.layouts * rng.normal(size=len(LAYOUTS))[layout] + world.spread * rng.normal(size=count)
    truth = np.clip(truth, 0.02, 0.9)
    images = np.sqrt(truth * (1 - truth) / world.num_val / 2)
    common = rng.normal()

    def train(place: int) -> float:
        return float(truth[place] + images[place] * (common + rng.normal()) + world.seeds * rng.normal())

    first = [train(place) for place in range(count)]
    runs = [(place, 0, first[place]) for place in range(count)]
    if world.again:
        runs += [(int(place), seed, train(place)) for seed in (1, 2) for place in np.argsort(first)[:5]]
    rows = [{"number": number, "state": "done", "arch_id": str(place), "layout": LAYOUTS[layout[place]],
             "macs": float(np.exp(cost[place])), "error": error, "val_top1": 1 - error, "seed": seed, "epochs": 5,
             "candidate": {"width": int(place % 3)}} for number, (place, seed, error) in enumerate(runs)]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["num_val"] = world.num_val
    return frame, truth, truth + images * common


def search_rows(count: int) -> Iterator[Row]:
    """The chosen network's interval and bias, P(front), the hypervolume, P(layout better)."""
    pairs: Told = []
    for name, world in WORLDS.items():
        held: dict[str, list[float]] = {key: [] for key in ("chosen", "raw", "bias", "luck", "all", "volume")}
        fronts, regrets = [], []
        for seed in range(count):
            frame, truth, here = searched(world, seed)
            found = networks(comparable(frame, BOTH), BOTH)
            table, losses = found.table, found.losses()
            place = int(table["error"].argmin())
            own = truth[table["arch_id"].astype(int)]
            inside = (table["error_low"] <= own) & (own <= table["error_high"])
            held["chosen"].append(float(inside[place]))
            held["all"].append(float(inside.mean()))
            held["bias"].append(float(table["error"][place] - own[place]))
            best = frame.loc[frame["error"].idxmin()]
            low, high = (float(end[0]) for end in wilson(np.array([1 - best["error"]]), world.num_val))
            real = float(truth[int(best["arch_id"])])
            held["raw"].append(float(1 - high <= real <= 1 - low))
            held["luck"].append(float(best["error"] - real))
            exact = np.column_stack([here[table["arch_id"].astype(int)], table["macs"]])
            dominated = (exact[None] <= exact[:, None]).all(2) & (exact[None] < exact[:, None]).any(2)
            fronts += list(zip(on_front(losses), (~dominated.any(1)).astype(float), strict=True))
            _, low, high = hypervolume(losses)
            value = float(shares_of_box(exact[None], losses.mean(axis=0))[0])
            held["volume"].append(float(low - 1e-9 <= value <= high + 1e-9))
            if world.spread and (pair := _layout_pair(found.draws["error"], table, own)):
                pairs.append(pair)
            draws_ = found.draws["error"]
            said = float((draws_[:, place] - draws_.min(axis=1)).mean())
            regrets.append((said, float(own[place] - own.min())))
        yield rate("chosen network, 95 % interval", name, 0.95, held["chosen"])
        yield rate("every network, 95 % interval", name, 0.95, held["all"])
        if world.spread:  # of equal networks only the cheapest is on the front, whatever is measured
            yield rate("hypervolume on these images, 90 % interval", name, 0.90, held["volume"])
            yield from reliability("P(on the front)", name, fronts)
        yield rate("(before: best run, Wilson 95 %)", name, 0.95, held["raw"])
        yield _mean("chosen error less the truth, points", name, 0.0, 100 * np.array(held["bias"]))
        yield _mean("(before: best run less the truth, points)", name, 0.0, 100 * np.array(held["luck"]))
        said, came = np.array(regrets).T
        yield _mean("expected regret of the chosen, points", name, 100 * float(said.mean()), 100 * came)
    yield from reliability("P(best of one layout better)", "the last four", pairs)


def _mean(what: str, world: str, nominal: float, values: np.ndarray) -> Row:
    return Row(what, world, nominal, float(values.mean()), float(values.std() / np.sqrt(len(values))), len(values))


def _layout_pair(known: np.ndarray, table: pd.DataFrame, truth: np.ndarray) -> tuple[float, float] | None:
    """P that the best network of the first layout is better than that of the second, and whether it is; one of the two
    at random is the first, so that the probabilities are spread."""
    best = [own[known[:, own].mean(axis=0).argmin()] for name in LAYOUTS
            if len(own := np.flatnonzero(table["layout"] == name))]  # fmt: skip
    if len(best) < 2:
        return None
    a, b = (best[0], best[1]) if int(table["macs"].sum()) % 2 else (best[1], best[0])
    return float((known[:, a] < known[:, b]).mean()), float(truth[a] < truth[b])


def effect_rows(count: int) -> Iterator[Row]:
    """Tables of effects of choices that do nothing: how many are without a false one."""
    for networks_ in (12, 24, 60):
        clean = []
        for seed in range(count):
            frame, *_ = searched(WORLDS["equal networks"], seed, networks_)
            rng = np.random.default_rng(seed)
            frame["candidate"] = [{"width": int(rng.integers(3)), "depth": int(rng.integers(2)),
                                   "kernel": int(rng.integers(2))} for _ in range(len(frame))]  # fmt: skip
            clean.append(float(not marginals(frame, BOTH)["clear"].any()))
        yield rate("tables without a false effect", f"{networks_} networks", 0.95, clean)


# --- trainings, audits ------------------------------------------------------------------------------------------------


def training_rows(count: int) -> Iterator[Row]:
    """Means over seeds of full trainings, and points that are said to be trained too briefly."""
    for seeds, num_images in ((2, 359), (3, 359), (2, 10_000), (5, 10_000)):
        inside, t_inside = [], []
        for seed in range(10 * count):
            rng = np.random.default_rng(SEED + seed)
            truth, noise = rng.uniform(0.5, 0.95), 0.02 * float(np.exp(rng.normal()))
            images = np.sqrt(truth * (1 - truth) / num_images / 2)
            seen = truth + images * (rng.normal() + rng.normal(size=seeds))
            seen = np.clip(seen + noise * truth * (1 - truth) * rng.normal(size=seeds), 0, 1)
            for held, images_ in ((inside, num_images), (t_inside, None)):
                if held is inside and seed >= count:
                    continue
                found = over_seeds(seen.tolist(), num_images=images_)
                held.append(float(found["low"] <= truth <= found["high"]))
        yield rate("accuracy over seeds, 95 % interval", f"{seeds} seeds, {num_images:,} images", 0.95, inside)
        yield rate("(before: Student's t alone)", f"{seeds} seeds, {num_images:,} images", 0.95, t_inside)
    said = []
    for seed in range(10 * count):
        rng = np.random.default_rng(SEED + seed)
        base = pd.DataFrame({"arm": "a", "instance": 1, "num_images": 500, "seed": range(2), "draw": 0})
        noise = pd.DataFrame([{"num_images": 500, "seed_sd": 0.01, "binomial_sd": 0.005}])
        pair = [base.assign(error=0.3 + rng.normal(0, 0.01, 2)) for _ in range(2)]
        said.append(float(len(too_short(*pair, noise))))
    yield rate("'trained too briefly' though doubling gains nothing", "2 seeds", 0.05, said)


def audit_rows(count: int) -> Iterator[Row]:
    """The interval of Kendall's tau between inherited scores and two trainings alone."""
    for networks_, seeds, supernet in ((24, 0.5, 0.7), (36, 1.0, 0.7), (36, 0.3, 0.2)):
        rng, inside = np.random.default_rng(SEED), []
        truth = kendalltau(*_audited(20_000, seeds, supernet, rng)).statistic
        for _ in range(2 * count):
            inherited, alone = _audited(networks_, seeds, supernet, rng)
            found = figure(kendall(draws(networks_, rng), inherited, alone), networks_)
            inside.append(float((found.low or 0) <= truth <= (found.high or 0)))
        yield rate("audit's tau, 95 % interval", f"{networks_} networks, seeds {seeds:g}, supernet {supernet:g}", 0.95,
                   inside)  # fmt: skip


def _audited(count: int, seeds: float, supernet: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    quality = rng.normal(size=count)
    alone = quality[:, None] + seeds * rng.normal(size=(count, 2))
    return quality + supernet * rng.normal(size=count), alone.mean(axis=1)


# --- curves -----------------------------------------------------------------------------------------------------------

SIZES = np.array([700.0, 1400, 2800, 5600, 11200])
FACTORS = (2, 4, 8, 16)


def drawn_curve(rng: np.random.Generator, form: str) -> Callable[[np.ndarray], np.ndarray]:
    """A true curve of a form, errors between about .5 and .1 over the sizes that are seen."""
    start, slope, floor = rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.5), rng.uniform(0.02, 0.12)
    knee = float(np.exp(rng.uniform(np.log(2000), np.log(20_000))))
    forms: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "power": lambda x: start * (x / 700) ** -slope,
        "floor": lambda x: floor + (start - floor) * (x / 700) ** -slope,
        "shifted": lambda x: start * ((x + 500) / 1200) ** -slope,
        "one break": lambda x: (
            start * (x / 700) ** -slope * ((1 + (x / knee) ** 3) / (1 + (700 / knee) ** 3)) ** (slope / 6)
        ),
    }
    return forms[form]


def curve_rows(count: int) -> Iterator[Row]:
    """Predictions of single curves, and of which of four is the best."""
    inside: dict[tuple[str, int], list[float]] = {}
    for seed in range(count):
        for form in ("power", "floor", "shifted", "one break"):
            rng = np.random.default_rng(SEED + seed)
            truth = drawn_curve(rng, form)
            noise = float(rng.choice([0.01, 0.03, 0.08]))
            seen = np.concatenate([truth(SIZES) * np.exp(noise * rng.normal(size=len(SIZES))) for _ in range(2)])
            fit = fit_curve(np.tile(SIZES, 2), np.clip(seen, 1e-4, 0.99), [0] * 5 + [1] * 5)
            for factor in FACTORS:
                ahead = fit.predict([SIZES[-1] * factor], beyond=True)
                real = float(truth(np.array([SIZES[-1] * factor]))[0])
                held = inside.setdefault((form, factor), [])
                held.append(float(ahead.low[0] <= real <= ahead.high[0]))
    for (form, factor), held in inside.items():
        yield rate("curve's 90 % interval", f"{form}, {factor} times the data", 0.90, held)
    yield from _arm_rows(3 * count)  # most of what is said of four arms is nearly sure


def _arm_rows(count: int) -> Iterator[Row]:
    better: Told = []
    best: Told = []
    regret: list[tuple[float, float]] = []
    for seed in range(count):
        rng = np.random.default_rng(SEED + 1000 + seed)
        truths = [drawn_curve(rng, str(rng.choice(["power", "floor", "shifted"]))) for _ in range(4)]
        level, noise = rng.uniform(0.9, 1.1, 4), 0.03
        runs = [np.clip(level[place] * truth(np.tile(SIZES, 2)) * np.exp(noise * rng.normal(size=10)), 1e-4, 0.99)
                for place, truth in enumerate(truths)]  # fmt: skip
        fits = fit_curves([Curve(f"arm {place}", np.tile(SIZES, 2), own, [0] * 5 + [1] * 5)
                           for place, own in enumerate(runs)])  # fmt: skip
        at = SIZES[-1] * 4
        samples = fits.predict([at], beyond=True)
        real = np.array([level[place] * float(truth(np.array([at]))[0]) for place, truth in enumerate(truths)])
        better += [(float(probability_better(samples, a, b)[0]), float(real[a] < real[b]))
                   for a in range(4) for b in range(a)]  # fmt: skip
        chances, costs = probability_best(samples)[:, 0], expected_regret(samples)[:, 0]
        best += [(float(chances[place]), float(real.argmin() == place)) for place in range(4)]
        regret.append((float(costs.min()), float(real[costs.argmin()] - real.min())))
    yield from reliability("P(A better than B)", "4 times the data", better)
    yield from reliability("P(best of four)", "4 times the data", best)
    said, came = np.array(regret).T
    yield _mean("expected regret of the chosen arm, points", "4 times the data", 100 * float(said.mean()), 100 * came)


# --- real networks ----------------------------------------------------------------------------------------------------


def macro_rows(path: Path, count: int) -> Iterator[Row]:
    """24 random networks of NAS-Bench-Macro, one seed shown; the truth is the mean of the other two (same images, and
    with noise of its own: a little less is inside than would be of the truth)."""
    table = pd.read_csv(path, dtype={"arch": str})
    errors = 1 - table[["test_acc_0", "test_acc_1", "test_acc_2"]].to_numpy() / 100
    held: dict[str, list[float]] = {"chosen": [], "bias": [], "luck": []}
    for seed in range(count):
        picked = np.random.default_rng(SEED + seed).choice(len(table), 24, replace=False)
        rows = [{"number": n, "state": "done", "arch_id": table["arch"][at], "layout": "macro", "epochs": 5,
                 "macs": float(table["flops"][at]), "error": errors[at, 0], "val_top1": 1 - errors[at, 0],
                 "candidate": {str(place): int(letter) for place, letter in enumerate(table["arch"][at])}}
                for n, at in enumerate(picked)]  # fmt: skip
        frame = pd.DataFrame(rows)
        frame.attrs["num_val"] = 10_000
        found = networks(comparable(frame, BOTH), BOTH).table
        place, truth = int(found["error"].argmin()), errors[picked][:, 1:].mean(axis=1)
        held["chosen"].append(float(found["error_low"][place] <= truth[place] <= found["error_high"][place]))
        held["bias"].append(float(found["error"][place] - truth[place]))
        held["luck"].append(float(errors[picked, 0].min() - truth[errors[picked, 0].argmin()]))
    yield rate("chosen network, 95 % interval", "NAS-Bench-Macro", 0.95, held["chosen"])
    yield _mean("chosen error less the truth, points", "NAS-Bench-Macro", 0.0, 100 * np.array(held["bias"]))
    yield _mean("(before: best run less the truth, points)", "NAS-Bench-Macro", 0.0, 100 * np.array(held["luck"]))


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "search": search_rows, "effects": effect_rows, "trainings": training_rows, "audit": audit_rows,
    "curves": curve_rows,
}  # fmt: skip


def markdown(rows: list[Row]) -> str:
    lines = ["| what | world | said | came | cases |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.world} | {row.nominal:.2f} | {row.actual:.2f} ± {row.error:.2f} | {row.cases} |"
              for row in rows]  # fmt: skip
    return "\n".join(lines)


def write(rows: list[Row], page: Path = PAGE) -> None:
    """The table into the page, between its marks."""
    head, _, rest = page.read_text(encoding="utf-8").partition(MARK)
    tail = rest.partition(MARK)[2]
    page.write_text(f"{head}{MARK}\n\n{markdown(rows)}\n\n{MARK}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone")
    parser.add_argument("--macro", type=Path, help="NAS-Bench-Macro's table")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    given = parser.parse_args()
    rows: list[Row] = []
    parts = {name: part for name, part in PARTS.items() if not given.only or name in given.only}
    for name, part in parts.items():
        begun = time.monotonic()
        rows += part(given.worlds)
        print(f"# {name}: {time.monotonic() - begun:.0f} s", flush=True)
    if given.macro:  # last, so that the table's other rows are there whatever the file is
        rows += macro_rows(given.macro, given.worlds)
    print(markdown(rows))
    if given.write:
        write(rows)


if __name__ == "__main__":
    main()
