"""How well curves are extrapolated and ordered: exact ones, simulated ones, published ones, and tables of decisions.

    python benchmarks/curve_fits.py --exact                      # curves without noise: is the truth followed?
    python benchmarks/curve_fits.py --simulated 12               # so many curves a form and cell of noise and seeds
    python benchmarks/curve_fits.py --decisions lcdb_development.parquet --every 4
    python benchmarks/curve_fits.py --published development.csv --every 4
    python benchmarks/curve_fits.py --chinchilla chinchilla_points.csv

What each constant of the prediction was chosen on stands beside it (``curves/posterior.py``, ``curves/arms.py``).
Errors are of log error or log loss.

--simulated: six sizes over a factor of 32, log-normal noise. ``inside`` is the share of truths in the 90 % interval at
2, 4, 8 and 16 times the last size; ``width`` that of the interval of the log, beside that of a fit of the form that the
curve has (``known``; a curve of a shifted form has none).
--decisions: per data set with a largest size T of 1,000 or more and for f = 2, 4, 8, 16, the last six sizes up to T / f
with three seeds, arms that have all of them (five or more); the truth is the mean error at T. ``right`` is the share of
pairs in the right order (a tie is wrong; ``halves`` counts it as a half), ``regret`` what the choice costs. Baselines:
the largest run, and each arm's own line through its last four sizes; their probabilities are of a normal error of the
size that is best for them on this very table.
--published: curves of a file (family, group, curve, x, loss, fit): the root mean square on the rows with fit = 0, and
six points with 1 % of noise before a factor of 2 to 16.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.stats import norm

from coatnet_search.curves.fitting import fit_form
from coatnet_search.curves.predict import fit_curve, fit_curves
from coatnet_search.curves.summary import Curve

FACTORS = np.array([2.0, 4.0, 8.0, 16.0])
Law = Callable[[np.ndarray], np.ndarray]

EXACT: dict[str, Law] = {  # of t = x / last x
    "power .35": lambda t: 0.25 * t**-0.35,
    "power .15": lambda t: 0.3 * t**-0.15,
    "power .6": lambda t: 0.1 * t**-0.6,
    "power 1": lambda t: 0.05 * t**-1.0,
    "floor .1 of last": lambda t: 0.02 + 0.18 * t**-0.4,
    "floor .2 of last": lambda t: 0.05 + 0.2 * t**-0.25,
    "floor .3 of last": lambda t: 0.06 + 0.14 * t**-0.5,
    "floor .5 of last": lambda t: 0.1 + 0.1 * t**-0.7,
    "levels off, no floor": lambda t: 0.2 * ((1 / t + 0.5) / 1.5) ** 0.5,
    "slow start": lambda t: 0.2 * ((t + 0.2) / 1.2) ** -0.6,
}


def exact() -> pd.DataFrame:
    """Median over truth, and whether the truth is inside."""
    x, rows = np.array([1000.0, 2000, 4000, 8000, 16000]), {}
    for name, law in EXACT.items():
        found = fit_curve(x, law(x / x[-1])).predict(FACTORS * x[-1])
        truth = law(FACTORS)
        inside = (found.low <= truth) & (truth <= found.high)
        rows[name] = {
            **{f"ratio {f:g}x": round(r, 4) for f, r in zip(FACTORS, found.value / truth, strict=True)},
            "inside": inside.tolist(),
            "width 16x": round(float(np.log(found.high[-1] / found.low[-1])), 3),
        }
    return pd.DataFrame(rows).T


# --- simulated curves -------------------------------------------------------------------------------------------------

FORMS = {"power": "power", "floor": "floor", "shifted": None, "broken": "broken"}
RELATIVE = np.array([1.0, 2, 4, 8, 16, 32]) / 32


def law_of(form: str, rng: np.random.Generator) -> Law:
    """A curve of this form; a shifted one begins slowly or levels off; a break may lie in what is seen or beyond."""
    c, last = rng.uniform(0.15, 0.7), rng.uniform(0.1, 0.3)
    if form == "power":
        return lambda t: last * t**-c
    if form == "floor":
        floor = rng.uniform(0.05, 0.6)
        return lambda t: last * (floor + (1 - floor) * t**-c)
    if form == "shifted":
        if rng.random() < 0.5:
            g = np.exp(rng.uniform(-4, 0))
            return lambda t: last * ((1 / t + g) / (1 + g)) ** c
        d = np.exp(rng.uniform(-3, 0))
        return lambda t: last * ((t + d) / (1 + d)) ** -c
    after, d, f = rng.uniform(0.1, 0.7), np.exp(rng.uniform(-2.5, 1.0)), rng.uniform(0.1, 0.7)
    return lambda t: last * t**-c * ((1 + (t / d) ** (1 / f)) / (1 + d ** (-1 / f))) ** (-(after - c) * f)


def simulated(count: int, noises: list[float]) -> pd.DataFrame:
    rows = []
    for noise in noises:
        for seeds in (1, 2, 5):
            for place, (form, known) in enumerate(FORMS.items()):
                for i in range(count):
                    rng = np.random.default_rng([11, place, i, seeds, int(noise * 1000)])
                    law = law_of(form, rng)
                    x = np.repeat(RELATIVE * 32_000, seeds)
                    y = law(x / 32_000) * np.exp(noise * rng.standard_normal(len(x)))
                    labels = [f"{i}" for i in range(len(x))]
                    found = fit_curve(x, y, labels).predict(FACTORS * 32_000)
                    row = {"noise": noise, "seeds": seeds, "form": form}
                    truth = law(FACTORS)
                    row.update({f"inside {f:g}": i for f, i in
                                zip(FACTORS, (found.low <= truth) & (truth <= found.high), strict=True)})  # fmt: skip
                    row.update(
                        {f"width {f:g}": w for f, w in zip(FACTORS, np.log(found.high / found.low), strict=True)}
                    )
                    if known:
                        own = fit_curve(x, y, labels, form=known).predict(FACTORS * 32_000)
                        row.update({f"known {f:g}": w for f, w in
                                    zip(FACTORS, np.log(own.high / own.low), strict=True)})  # fmt: skip
                    rows.append(row)
    return pd.DataFrame(rows)


def show_simulated(rows: pd.DataFrame) -> None:
    inside, width, known = ([f"{name} {f:g}" for f in FACTORS] for name in ("inside", "width", "known"))
    print("inside, over four forms\n" + rows.groupby(["noise", "seeds"])[inside].mean().round(2).to_string())
    print("inside, by form and noise\n" + rows.groupby(["form", "noise"])[inside].mean().round(2).to_string())
    both = rows[rows["form"].map(FORMS).notna()]
    groups = both.groupby(["noise", "seeds"])
    ratio = groups[width].mean().to_numpy() / groups[known].mean()
    print("mean width beside that of a fit that knows the form\n" + ratio.round(2).to_string())


# --- decisions --------------------------------------------------------------------------------------------------------


def cases(path: Path) -> Iterator[tuple[int, np.ndarray, float, list[str], np.ndarray, np.ndarray, np.ndarray]]:
    """(factor, sizes, T, arms, errors (arms, sizes, seeds), truth (arms,), mean error of all runs at the last size
    (arms,)) of each data set and factor."""
    table = pd.read_parquet(path)
    for _, rows in table.groupby("dataset"):
        top = float(rows["x"].max())
        if top < 1000:
            continue
        names = ["error_mean", *(name for name in rows if name.startswith("seed") and name != "seeds")]
        grids = [rows.pivot(index="arm", columns="x", values=name) for name in names]
        for factor in FACTORS.astype(int):
            sizes = [x for x in grids[0].columns if x <= top / factor][-6:]
            stack = np.stack([grid[sizes].to_numpy(dtype=float) for grid in grids[1:]], axis=2)
            truth = grids[0][top].to_numpy(dtype=float)
            keep = np.isfinite(stack).all(axis=(1, 2)) & np.isfinite(truth)
            if keep.sum() >= 5 and len(sizes) >= 3:
                arms = [str(arm) for arm in grids[0].index[keep]]
                shown = grids[0][sizes[-1]].to_numpy(dtype=float)
                yield factor, np.array(sizes, float), top, arms, stack[keep], truth[keep], shown[keep]


def decisions(path: Path, every: int) -> pd.DataFrame:
    rows = []
    for number, (factor, x, top, arms, errors, truth, _) in enumerate(cases(path)):
        if number // len(FACTORS) % every:
            continue
        seeds = errors.shape[2]
        labels = [f"seed {i}" for i in range(seeds)] * len(x)
        given = [Curve(arm, np.repeat(x, seeds), np.maximum(each, 1e-3).ravel(), labels)
                 for arm, each in zip(arms, errors, strict=True)]  # fmt: skip
        try:
            samples = fit_curves(given).predict([top], beyond=True)[:, :, 0]
        except ValueError as error:
            print(f"# refused, not in the table: {error}")
            continue
        low, high = np.quantile(samples, [0.05, 0.95], axis=0)
        a, b = np.triu_indices(len(truth), 1)
        a, b = a[truth[a] != truth[b]], b[truth[a] != truth[b]]
        won = truth[a] < truth[b]
        chance = (samples[:, a] < samples[:, b]).mean(axis=0)
        logs = np.log(np.maximum(errors.mean(axis=2), 1e-3))
        last = logs[:, -1]
        line = np.array([np.polyval(np.polyfit(np.log(x[-4:]), each[-4:], 1), np.log(top)) for each in logs])
        row = {"factor": factor, "right": right(np.log(samples).mean(axis=0), truth, a, b),
               "brier": float(((chance - won) ** 2).mean()),
               "regret": truth[(samples - samples.min(axis=1, keepdims=True)).mean(axis=0).argmin()] - truth.min(),
               "inside": float(((low <= truth) & (truth <= high)).mean())}  # fmt: skip
        for name, scores in (("largest", last), ("line", line)):
            row[f"{name} right"] = right(scores, truth, a, b)
            row[f"{name} halves"] = right(scores, truth, a, b, tie=0.5)
            row[f"{name} regret"] = truth[scores.argmin()] - truth.min()
            for sd in SPREADS:
                row[f"{name} {sd:.3f}"] = float(((norm.cdf((scores[b] - scores[a]) / sd) - won) ** 2).mean())
        rows.append(row)
    return pd.DataFrame(rows)


SPREADS = np.geomspace(0.02, 1.5, 16)


def right(scores: np.ndarray, truth: np.ndarray, a: np.ndarray, b: np.ndarray, tie: float = 0.0) -> float:
    gap = scores[a] - scores[b]
    return float(np.where(gap == 0, tie, np.sign(gap) == np.sign(truth[a] - truth[b])).mean())


def show_decisions(rows: pd.DataFrame) -> None:
    means = rows.groupby("factor").mean()
    for name in ("largest", "line"):
        means[f"{name} brier"] = means[[f"{name} {sd:.3f}" for sd in SPREADS]].min(axis=1)
    columns = ["right", "largest right", "largest halves", "line right", "brier", "largest brier", "line brier",
               "regret", "largest regret", "line regret", "inside"]  # fmt: skip
    print(means[columns].assign(cases=rows.groupby("factor").size()).round(4).to_string())


# --- published curves -------------------------------------------------------------------------------------------------


def published(path: Path, every: int) -> None:
    split, six = [], []
    for number, ((family, _, name), rows) in enumerate(pd.read_csv(path).groupby(["family", "group", "curve"])):
        if family != "width" and number % every:
            continue
        rows = rows.groupby("x", as_index=False).agg(y=("loss", "mean"), fit=("fit", "min"))
        x, y, fit = rows["x"].to_numpy(dtype=float), rows["y"].to_numpy(), rows["fit"].to_numpy(dtype=bool)
        if (~fit).any():
            begin = time.perf_counter()
            value = fit_curve(x[fit], y[fit]).predict(x[~fit], beyond=True).value
            error = float(np.sqrt(np.mean(np.log(value / y[~fit]) ** 2)))
            split.append({"family": family, "rmse": error, "seconds": time.perf_counter() - begin})
        for factor in FACTORS:
            chosen = six_points(x, factor)
            if chosen is not None:
                rng = np.random.default_rng([crc32(str(name).encode()), int(factor)])
                noisy = y[chosen] * np.exp(0.01 * rng.standard_normal(len(chosen)))
                found = fit_curve(x[chosen], noisy).predict(x[-1:], beyond=True)
                six.append({"family": family, "factor": factor, "error": abs(np.log(found.value[0] / y[-1])),
                            "inside": found.low[0] <= y[-1] <= found.high[0],
                            "last value": abs(np.log(noisy[-1] / y[-1]))})  # fmt: skip
    print("held-out rows\n" + pd.DataFrame(split).groupby("family").agg(["size", "mean"]).round(4).to_string())
    print("six points, 1 % noise\n" + pd.DataFrame(six).groupby(["family", "factor"]).mean().round(3).to_string())


def six_points(x: np.ndarray, factor: float) -> list[int] | None:
    """Places of six points before the end / factor, about even in log x over at most 64-fold."""
    places = list(np.flatnonzero(x <= x[-1] / factor * 1.0001))
    if len(places) < 6:
        return None
    last, chosen = x[places[-1]], []
    for wanted in np.geomspace(last, max(x[0], last / 64), 6):
        chosen.append(min(places, key=lambda place: abs(np.log(x[place] / wanted))))
        places.remove(chosen[-1])
    chosen.sort()
    return chosen if x[chosen[-1]] / x[chosen[0]] >= 4 else None


def chinchilla(path: Path) -> None:
    rows = pd.read_csv(path).sort_values("loss").iloc[:-5]
    x = np.stack([rows.params, rows.flops / (6 * rows.params)], axis=1)
    fit = fit_form("joint", x, rows.loss.values, huber=1e-3)
    errors = np.sqrt(np.diag(fit.covariance))
    words = [
        f"{name} = {value:.6g} ({error:.2g})"
        for (name, value), error in zip(fit.parameters.items(), errors, strict=True)
    ]
    exponent = fit.parameters["beta"] / (fit.parameters["alpha"] + fit.parameters["beta"])
    print(f"\nJoint form on {len(rows)} Chinchilla runs, Huber 1e-3: {', '.join(words)}; a = {exponent:.4f};")
    print(f"sum of losses {fit.objective:.9f}; {fit.optima.share:.0%} of {fit.optima.num_starts} starts ended there")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--simulated", type=int, metavar="CURVES")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03, 0.08, 0.2], help="of --simulated")
    parser.add_argument("--decisions", type=Path, metavar="FILE")
    parser.add_argument("--published", type=Path, metavar="FILE")
    parser.add_argument("--chinchilla", type=Path, metavar="FILE")
    parser.add_argument("--every", type=int, default=1, help="use each n-th data set or curve alone (1)")
    given = parser.parse_args()
    pd.set_option("display.width", 250, "display.max_columns", 30)
    if given.exact:
        print(exact().to_string())
    if given.simulated:
        show_simulated(simulated(given.simulated, given.noise))
    if given.decisions:
        show_decisions(decisions(given.decisions, given.every))
    if given.published:
        published(given.published, given.every)
    if given.chinchilla:
        chinchilla(given.chinchilla)


if __name__ == "__main__":
    main()
