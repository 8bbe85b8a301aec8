"""How well curves are extrapolated: published learning curves, split as their file splits them and by six noisy points.

    python benchmarks/curve_fits.py learning_curves/               # every table
    python benchmarks/curve_fits.py learning_curves/ --calibrate   # and the table that the package ships

The folder holds CSV files of curves (columns group, curve, x, loss or error; family and fit where known) and, for the
last table, ``chinchilla_points.csv`` (params, flops, loss). Errors are of log loss.

(a) Forms fitted to the rows with fit = 1, scored by the root mean square on the rest, beside a log-log line through the
last octave; intervals of differences by a bootstrap over curves (paired) and over groups.
(b) Six points a curve, about even in log x over at most 64-fold, each with log-normal noise, the last of them the
factor before the curve's end, which is predicted. ``coverage`` is of the 90 % interval, widened by what the other
groups ask for. Pairs of one group at their common end: the Brier score of P(A < B) and the regret of choosing the one
that is expected to be better, in log loss. Baselines choose by the last value or by a log-log line through the last
octave (two points at least); their probability is 0 or 1 (hard), or that of a normal error as large as theirs in the
other groups (normal).
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.stats import norm

from coatnet_search.core.errors import InputError
from coatnet_search.curves import FORMS, compare, load_form
from coatnet_search.curves.calibration import BOUND_SCORE, CORE_SCORE, FILE, NONE, Calibration, published_calibration
from coatnet_search.curves.fitting import fit_form
from coatnet_search.curves.predict import fit_curve, fit_curves
from coatnet_search.curves.summary import Curve

FACTORS = (2.0, 4.0, 8.0, 16.0)
NOISES = (0.003, 0.01, 0.03)  # of the calibration; the tables print the one that --noise names
NUM_POINTS, SPAN, LEAST_SPAN = 6, 64.0, 4.0
MOST_PAIRS, PAIR_DRAWS = 12, 500  # pairs of one group at one factor, and the draws of each
ASKED = {0.9: 0.94, 0.5: 0.5}  # of calibrated intervals: groups differ, and the next curves are of none of these
POINTS_FILE = "chinchilla_points.csv"


@dataclass(frozen=True)
class Known:
    """A published curve: x ascending and distinct, y, and which rows a form may see."""

    family: str
    group: str
    name: str
    x: np.ndarray
    y: np.ndarray
    fit: np.ndarray

    def at(self, x: float) -> float:
        return float(np.interp(np.log(x), np.log(self.x), np.log(self.y)))


def read_curves(path: Path) -> list[Known]:
    files = sorted(file for file in path.glob("*.csv") if file.name != POINTS_FILE) or [path]
    found = []
    for file in files:
        table = pd.read_csv(file).rename(columns={"error": "loss"})
        table = table.assign(
            **{name: value for name, value in (("family", file.stem), ("fit", 1)) if name not in table}
        )
        for (family, group, name), rows in table.groupby(["family", "group", "curve"], sort=True):
            rows = rows.groupby("x", as_index=False).agg(loss=("loss", "mean"), fit=("fit", "min")).sort_values("x")
            found.append(Known(family, group, name, rows.x.values, rows.loss.values, rows.fit.values.astype(bool)))
    return found


def six(curve: Known, factor: float, noise: float, end: float | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """x and noisy y of the six points before end / factor, or None where the curve has not as many."""
    places = list(np.flatnonzero(curve.x <= (end or curve.x[-1]) / factor * 1.0001))
    if len(places) < NUM_POINTS:
        return None
    last = curve.x[places[-1]]
    chosen = []
    for wanted in np.geomspace(last, max(curve.x[0], last / SPAN), NUM_POINTS):
        chosen.append(min(places, key=lambda place: abs(np.log(curve.x[place] / wanted))))
        places.remove(chosen[-1])
    chosen.sort()
    x = curve.x[chosen]
    if x[-1] / x[0] < LEAST_SPAN:
        return None
    rng = np.random.default_rng([crc32(curve.name.encode()), int(factor), int(noise * 1e6)])
    return x, curve.y[chosen] * np.exp(noise * rng.standard_normal(NUM_POINTS))


def octave_line(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Log y at x_new by a log-log line through the points of the last octave, two at least."""
    use = (x >= x[-1] / 2.001) | (np.arange(len(x)) >= len(x) - 2)
    return np.polyval(np.polyfit(np.log(x[use]), np.log(y[use]), 1), np.log(x_new))


# (a) the split of the file


def split_rows(curves: Sequence[Known]) -> pd.DataFrame:
    """A row a curve: the error of each form, of the default predictor and of the line; seconds of the default."""
    rows = []
    for curve in curves:
        x, y, x_new, truth = curve.x[curve.fit], curve.y[curve.fit], curve.x[~curve.fit], np.log(curve.y[~curve.fit])
        if len(x_new) == 0 or len(x) < 2:
            continue
        row = {"family": curve.family, "group": curve.group, "last octave": octave_line(x, y, x_new)}
        begin = time.perf_counter()
        row["default"] = np.log(fit_curve(x, y).predict(x_new, beyond=True).value)
        seconds = time.perf_counter() - begin
        for name in FORMS:
            form = load_form(name)
            if len(form.columns) == 1:
                enough = len(x) >= form.min_sizes
                row[name] = (
                    np.log(fit_form(name, x, y, weights=x / x[-1]).value(x_new)) if enough else row["last octave"]
                )
        scores = {key: np.sqrt(np.mean((v - truth) ** 2)) if isinstance(v, np.ndarray) else v for key, v in row.items()}
        rows.append({**scores, "seconds": seconds})
    return pd.DataFrame(rows)


def split_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean errors by family, and the default less the line with 95 % intervals over curves and over groups."""
    lines = {}
    for family, part in rows.groupby("family"):
        gap = (part["default"] - part["last octave"]).values
        low, high = interval([gap[i : i + 1] for i in range(len(gap))])
        group_low, group_high = interval([gap[part.group.values == group] for group in part.group.unique()])
        means = part.drop(columns=["family", "group", "seconds"]).mean().round(4).to_dict()
        lines[family] = {
            "curves": len(part),
            **means,
            "gap": f"{gap.mean():+.4f}",
            "by curves": f"[{low:+.4f}, {high:+.4f}]",
            "by groups": f"[{group_low:+.4f}, {group_high:+.4f}]",
            "slowest s": round(part.seconds.max(), 2),
        }
    return pd.DataFrame(lines)


def interval(clusters: Sequence[np.ndarray], repeats: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean, clusters drawn with replacement."""
    rng = np.random.default_rng(0)
    sums, counts = np.array([part.sum() for part in clusters]), np.array([len(part) for part in clusters])
    drawn = rng.integers(len(clusters), size=(repeats, len(clusters)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


# (b) six noisy points


def single_rows(curves: Sequence[Known], noise: float) -> pd.DataFrame:
    """A row a curve and factor: signed errors at the end, and ``needed`` and ``needed half``, the factors by which the
    unwidened 90 % and 50 % intervals would have to grow to hold the truth."""
    rows = []
    for factor, curve in itertools.product(FACTORS, curves):
        points = six(curve, factor, noise)
        if points is None:
            continue
        x, y = points
        end, truth = curve.x[-1:], np.log(curve.y[-1])
        fit = fit_curve(x, y, calibration=NONE)
        low, value, high = np.log(interval_of(fit, end, 0.9))
        lower, _, upper = np.log(interval_of(fit, end, 0.5))
        side, inner = (high - value, upper - value) if truth > value else (value - low, value - lower)
        rows.append(
            {
                "factor": factor, "noise": noise, "family": curve.family, "group": curve.group, "curve": curve.name,
                "distance": end[0] / x[-1], "error": value - truth, "last value": np.log(y[-1]) - truth,
                "last octave": octave_line(x, y, end)[0] - truth, "needed": abs(truth - value) / max(side, 1e-9),
                "needed half": abs(truth - value) / max(inner, 1e-9), "width": high - low,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def interval_of(fit, x_new: np.ndarray, level: float) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    predicted = fit.predict(x_new, level, beyond=True)
    return float(predicted.low[0]), float(predicted.value[0]), float(predicted.high[0])


def pair_rows(curves: Sequence[Known], noise: float) -> pd.DataFrame:
    """A row a pair and factor: standardised places of both truths, samples of the gap's building blocks, baselines."""
    rows = []
    for factor in FACTORS:
        for group in sorted({curve.group for curve in curves}):
            members = [curve for curve in curves if curve.group == group]
            pairs = list(itertools.combinations(members, 2))
            np.random.default_rng(crc32(group.encode())).shuffle(pairs)
            made = (pair_row(a, b, factor, noise) for a, b in pairs)
            rows += list(itertools.islice((row for row in made if row), MOST_PAIRS))
    return pd.DataFrame(rows)


def pair_row(a: Known, b: Known, factor: float, noise: float) -> dict | None:  # type: ignore[type-arg]
    end = min(a.x[-1], b.x[-1])
    points = [six(curve, factor, noise, end) for curve in (a, b)]
    if points[0] is None or points[1] is None or a.at(end) == b.at(end):
        return None
    truth = np.array([a.at(end), b.at(end)])
    given = [Curve(name, x, y, group="g") for name, (x, y) in zip("ab", points, strict=True)]
    fits = fit_curves(given, calibration=NONE, draws=PAIR_DRAWS)
    lines = [octave_line(x, y, np.array([end]))[0] for x, y in points]
    samples = np.log(fits.predict([end], beyond=True)[:, :, 0])
    places = norm.ppf(np.clip((samples < truth).mean(axis=0), 0.005, 0.995))
    return {
        "factor": factor, "noise": noise, "group": a.group, "truth": truth[0] - truth[1], "fits": fits, "end": end,
        "place a": places[0], "place b": places[1],
        "last value": float(np.log(points[0][1][-1] / points[1][1][-1])), "last octave": lines[0] - lines[1],
    }  # fmt: skip


def calibrate(singles: pd.DataFrame, pairs: pd.DataFrame, provenance: str) -> Calibration:
    """The table that these rows ask for. A group of n cases counts for the square root of n, because curves of a group
    resemble each other. The agreement is that of the places which both truths of a pair have among their curves' draws
    at the two farthest factors, where noise has become small beside errors of form."""
    factors, cores = [], []
    for factor in FACTORS:
        part = singles[singles.factor == factor]
        factors.append(round(quantile(part.needed.values, evenly(part), ASKED[0.9]), 3))
        cores.append(min(round(quantile(part["needed half"].values, evenly(part), ASKED[0.5]), 3), factors[-1]))
    far = pairs[pairs.factor >= FACTORS[-2]]
    products, squares = far["place a"] * far["place b"], (far["place a"] ** 2 + far["place b"] ** 2) / 2
    agreement = round(float(np.clip((evenly(far) * products).sum() / (evenly(far) * squares).sum(), 0.0, 0.95)), 3)
    return Calibration(FACTORS, tuple(factors), tuple(cores), agreement, provenance)


def evenly(rows: pd.DataFrame) -> np.ndarray:
    return 1 / np.sqrt(rows.groupby(["factor", "group"]).group.transform("size").values)


def quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(np.searchsorted(share, level), len(values) - 1)])


def left_out(singles: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Calibration]:
    groups = sorted(set(singles.group) | set(pairs.group))
    return {name: calibrate(singles[singles.group != name], pairs[pairs.group != name], "") for name in groups}


def single_table(rows: pd.DataFrame, tables: dict[str, Calibration]) -> pd.DataFrame:
    at = list(zip(rows.group, np.log(rows.distance), strict=True))
    factor, core = ([tables[group].widening(u, score) for group, u in at] for score in (BOUND_SCORE, CORE_SCORE))
    rows = rows.assign(covered=rows.needed <= factor, half=rows["needed half"] <= core, width=rows.width * factor)
    by = rows.groupby("factor")
    columns = {"curves": by.size()}
    for name in ("error", "last value", "last octave"):
        columns[f"{name}"] = by[name].apply(lambda v: v.abs().mean()).round(4)
    columns["median error"] = by["error"].apply(lambda v: v.abs().median()).round(4)
    columns["median line"] = by["last octave"].apply(lambda v: v.abs().median()).round(4)
    columns["coverage"] = by.covered.mean().round(3)
    columns["of 50 %"] = by.half.mean().round(3)
    columns["before widening"] = by.needed.apply(lambda v: (v <= 1).mean()).round(3)
    columns["width"] = by.width.median().round(3)
    return pd.DataFrame(columns)


def pair_table(rows: pd.DataFrame, tables: dict[str, Calibration]) -> pd.DataFrame:
    scored = []
    for _, row in rows.iterrows():
        fits = replace(row.fits, calibration=tables[row.group])
        samples = fits.predict([row.end], beyond=True)
        chance = float(compare.probability_better(samples, 0, 1)[0])
        best = int(compare.expected_regret(np.log(samples) + 50)[:, 0].argmin())
        scored.append({"p": chance, "pick a": best == 0, "pick a by last value": row["last value"] < 0})
    rows = pd.concat([rows.reset_index(drop=True), pd.DataFrame(scored)], axis=1)
    rows["won"] = rows.truth < 0
    lines = {}
    for factor, part in rows.groupby("factor"):
        line = {"pairs": len(part), "Brier": ((part.p - part.won) ** 2).mean()}
        for name in ("last value", "last octave"):
            line[f"{name}, hard"] = ((part[name] < 0) != part.won).mean()
            spread = {g: np.sqrt(((part[name] - part.truth)[part.group != g] ** 2).mean()) for g in part.group.unique()}
            soft = norm.cdf(-part[name] / part.group.map(spread))
            line[f"{name}, normal"] = ((soft - part.won) ** 2).mean()
        line["regret"] = regret(part, part["pick a"])
        for name in ("last value", "last octave"):
            line[f"{name} regret"] = regret(part, part[name] < 0)
        lines[factor] = line
    return pd.DataFrame(lines).T.round(4)


def regret(part: pd.DataFrame, picks_a: pd.Series) -> float:
    return float(np.where(picks_a == part.won, 0.0, part.truth.abs()).mean())


# the Chinchilla points


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
    parser.add_argument("path", type=Path, help="a folder of CSV files, or one")
    parser.add_argument("--noise", type=float, default=0.01, help="sd of the six points' log error (default: 0.01)")
    parser.add_argument(
        "--shipped", action="store_true", help="score with the shipped calibration (for curves not in it)"
    )
    parser.add_argument("--calibrate", action="store_true", help="write the calibration that the package ships")
    given = parser.parse_args()
    pd.set_option("display.width", 250, "display.max_columns", 30)
    curves = read_curves(given.path)
    if not curves:
        raise InputError(f"{given.path}: no CSV files of curves")
    if any((~curve.fit).any() for curve in curves):
        print("(a) error on the rows held out\n" + split_table(split_rows(curves)).to_string())
    levels = NOISES if given.calibrate else (given.noise,)
    singles = pd.concat([single_rows(curves, noise) for noise in levels])
    pairs = pd.concat([pair_rows(curves, noise) for noise in levels])
    tables = left_out(singles, pairs)
    if given.shipped:
        tables = dict.fromkeys(tables, published_calibration())
    for noise in levels:
        one, two = singles[singles.noise == noise], pairs[pairs.noise == noise]
        print(f"\n(b) six points with {noise:.1%} noise\n" + single_table(one, tables).to_string())
        print(f"\npairs of one group, {noise:.1%} noise\n" + pair_table(two, tables).to_string())
    if given.calibrate:
        write(calibrate(singles, pairs, provenance(curves)))
    if given.path.is_dir() and (given.path / POINTS_FILE).exists():
        chinchilla(given.path / POINTS_FILE)


def provenance(curves: Sequence[Known]) -> str:
    families = ", ".join(sorted({curve.family for curve in curves}))
    return (
        f"{len(curves)} published learning curves ({families}) in {len({curve.group for curve in curves})} groups, "
        f"DongWooLee-Eli/nslpfn; six points each, noise {', '.join(map(str, NOISES))}; "
        "benchmarks/curve_fits.py --calibrate"
    )


def write(calibration: Calibration) -> None:
    path = Path(__file__).parent.parent / "coatnet_search" / "curves" / FILE
    path.write_text(calibration.text())
    print(f"\nwritten {path.name}: {json.dumps(json.loads(calibration.text()))}")


if __name__ == "__main__":
    main()
