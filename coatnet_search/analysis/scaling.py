"""What the record of a scaling study says: which layout wins at which amount of data, with one joint distribution.

An arm is what may be chosen: a layout at a size, or a network of timm. Its runs become its curve as ``settle`` makes
it (``curves/arm_runs.py``), so both give the same answer for the same runs; how far its instances lie apart is told
beside it. Only trials that are done count, each of a full schedule of its own; doubled schedules show which points are
too short.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from coatnet_search.analysis.scaling_runs import check_schedules, scaling_runs, schedule_change
from coatnet_search.analysis.too_short import too_short
from coatnet_search.analysis.tuning import SWEEP_COLUMNS, sweeps
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import TRAINING
from coatnet_search.curves import compare
from coatnet_search.curves.arm_runs import Run, arm_name, curves_of, usable
from coatnet_search.curves.form import Array
from coatnet_search.curves.predict import Fits, fit_curves

ENOUGH = 0.95  # P(best) from which a layout is called the winner
GRID = 33  # sizes of a range of data at which crossovers are looked for


@dataclass(frozen=True)
class Scaling:
    """The fitted study. ``runs``: what was fitted; ``held_out``: what was left out of the fit on purpose; ``missing``:
    the runs that are not done, by arm, amount of data and state; ``arms``: names in the order of the samples."""

    runs: pd.DataFrame
    held_out: pd.DataFrame
    missing: pd.DataFrame
    doubled: pd.DataFrame
    arms: tuple[str, ...]
    fits: Fits = field(repr=False)
    num_val: int | None = None
    without: pd.DataFrame = field(
        default_factory=pd.DataFrame
    )  # runs with an error of 0 of an unknown number of images
    swept: pd.DataFrame = field(default_factory=pd.DataFrame)  # the done trials of the sweeps that tuned the runs

    @property
    def num_images(self) -> list[int]:
        """The amounts of data that were fitted, ascending."""
        return sorted({int(count) for count in self.runs["num_images"]})

    @property
    def reach(self) -> float:
        """The largest amount of data for which predictions are calibrated."""
        return float(self.fits.reach * min(self.runs.groupby("arm")["num_images"].max()))

    def samples(self, num_images: ArrayLike, *, beyond: bool = False) -> Array:
        """Draws of each arm's error, (draws, arms, len(num_images)). Raises InputError beyond ``reach``."""
        return self.fits.predict(num_images, beyond=beyond)[:, [self.fits.names.index(name) for name in self.curves]]

    @functools.cached_property
    def curves(self) -> tuple[str, ...]:
        """The name of each arm's curve in ``fits``."""
        firsts = self.runs.drop_duplicates("arm").set_index("arm")
        return tuple(arm_name((str(firsts["layout"][arm]), float(firsts["size"][arm]))) for arm in self.arms)

    # --- answers ------------------------------------------------------------------------------------------------------

    def at(self, num_images: float, *, compute: float | None = None, level: float = 0.9,
           beyond: bool = False) -> pd.DataFrame:  # fmt: skip
        """A row an arm, best first: ``error`` (median), ``low``, ``high``, ``p_best``, ``expected_regret`` (error it
        costs on average to choose it), ``macs``, ``params``, ``training_macs``. ``compute``: only arms whose training
        on so many images, with as many epochs as the largest regime's, takes at most so many multiply-adds.

        Raises InputError beyond the calibrated distance, and where no arm fits ``compute`` (the cheapest is named).
        """
        names, keep, spent = self._affordable(num_images, compute)
        samples = self.samples([num_images], beyond=beyond)[:, keep]
        low, middle, high = np.quantile(samples[:, :, 0], [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
        costs = self.runs.groupby("arm")[["macs", "params"]].mean()
        table = pd.DataFrame({
            "arm": names, "error": middle, "low": low, "high": high,
            "p_best": compare.probability_best(samples)[:, 0],
            "expected_regret": compare.expected_regret(samples)[:, 0],
            "macs": costs.loc[names, "macs"].to_numpy(), "params": costs.loc[names, "params"].to_numpy(),
            "training_macs": spent,
        })  # fmt: skip
        return table.sort_values("expected_regret", kind="stable", ignore_index=True)

    def _affordable(self, num_images: float, compute: float | None) -> tuple[list[str], list[int], list[float]]:
        """Arms within a budget of multiply-adds of training: names, places, what each would take."""
        largest = self.runs[self.runs["num_images"] == self.runs["num_images"].max()]
        epochs = largest.groupby("arm")["epochs"].max().reindex(self.arms).fillna(largest["epochs"].max())
        macs = self.runs.groupby("arm")["macs"].mean()
        spent = [float(TRAINING * macs[arm] * epochs[arm] * num_images) for arm in self.arms]
        keep = [place for place, cost in enumerate(spent) if compute is None or cost <= compute]
        if not keep:
            cheapest = int(np.argmin(spent))
            raise InputError(f"no arm trains on {num_images:,.0f} images within {compute:.3g} multiply-adds; the "
                             f"nearest is {self.arms[cheapest]} with {spent[cheapest]:.3g}")  # fmt: skip
        return [self.arms[place] for place in keep], keep, [spent[place] for place in keep]

    def pairs(self, num_images: float, *, beyond: bool = False) -> pd.DataFrame:
        """P(the row's arm has the smaller error than the column's), arms by arms, NaN on the diagonal."""
        samples = self.samples([num_images], beyond=beyond)
        count = len(self.arms)
        table = np.full((count, count), np.nan)
        for a in range(count):
            for b in range(count):
                if a != b:
                    table[a, b] = compare.probability_better(samples, a, b)[0]
        return pd.DataFrame(table, index=list(self.arms), columns=list(self.arms))

    def grid(self, up_to: float | None = None) -> NDArray[np.float64]:
        """Amounts of data from the smallest regime to ``up_to`` (the calibrated reach), even in the log."""
        return np.geomspace(self.num_images[0], up_to or self.reach, GRID)

    def probability_best(self, num_images: ArrayLike, *, beyond: bool = False) -> pd.DataFrame:
        """P(best) of each arm (a column) at each amount of data (the index)."""
        chances = compare.probability_best(self.samples(num_images, beyond=beyond))
        return pd.DataFrame(
            chances.T, index=np.atleast_1d(np.asarray(num_images, dtype=float)), columns=list(self.arms)
        )

    def crossovers(self, up_to: float | None = None) -> pd.DataFrame:
        """A row a pair: where their order changes for the last time between the smallest regime and ``up_to``:
        ``num_images`` (median; NaN: more likely than not there is none in the range), ``low``, ``high`` (5 and 95 % of
        the draws that cross), ``not_in_range`` (probability), ``p_first_always``, ``p_second_always``."""
        sizes = self.grid(up_to)
        samples = self.samples(sizes)
        rows = []
        for a in range(len(self.arms)):
            for b in range(a + 1, len(self.arms)):
                found = compare.crossover(samples, sizes, a, b)
                crossing = found.sizes[~np.isnan(found.sizes)]
                low, high = np.quantile(crossing, [0.05, 0.95]) if len(crossing) else (math.nan, math.nan)
                rows.append({
                    "first": self.arms[a], "second": self.arms[b], "num_images": found.quantile(0.5) or math.nan,
                    "low": low, "high": high, "not_in_range": found.not_in_range,
                    "p_first_always": found.always_a, "p_second_always": found.always_b,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def data_needed(self, error: float, up_to: float | None = None) -> pd.DataFrame:
        """A row an arm: the images it needs for this error (fraction): ``num_images`` (median; NaN: not in the range),
        ``low``, ``high`` (90 % of the draws that reach it), ``not_in_range``."""
        sizes = self.grid(up_to)
        samples = self.samples(sizes)
        rows = []
        for place, arm in enumerate(self.arms):
            found = compare.data_needed(samples, sizes, place, error)
            reached = found.sizes[~np.isnan(found.sizes)]
            low, high = np.quantile(reached, [0.05, 0.95]) if len(reached) else (math.nan, math.nan)
            rows.append({"arm": arm, "num_images": found.quantile(0.5) or math.nan, "low": low, "high": high,
                         "not_in_range": found.not_in_range})  # fmt: skip
        return pd.DataFrame(rows)

    def conclusion(self, num_images: float, *, compute: float | None = None, beyond: bool = False) -> str:
        """The answer in a sentence: the winner where P(best) is at least 95 %, else that the data cannot decide."""
        table = self.at(num_images, compute=compute, beyond=beyond)
        best = table.iloc[0]
        most = self.num_images[-1]
        measured = "within what was trained on" if num_images <= most else (
            f"{num_images / most:.3g} times the largest amount that was trained on")  # fmt: skip
        error = f"error {100 * best['error']:.1f} % (90 % interval {100 * best['low']:.1f} to {100 * best['high']:.1f})"
        where = f"At {num_images:,.0f} images ({measured})"
        if len(table) == 1:
            return f"{where} there is only {best['arm']}: predicted {error}."
        if best["p_best"] >= ENOUGH:
            return f"{where} {best['arm']} is best with probability {best['p_best']:.2f}: predicted {error}."
        likely = table[table["arm"] != best["arm"]].sort_values("p_best", ascending=False).iloc[0]
        return (f"{where} the data cannot decide: taking {best['arm']} costs least on average, "
                f"{100 * best['expected_regret']:.2g} points of error (predicted {error}); it is best with probability "
                f"{best['p_best']:.2f}, {likely['arm']} with {likely['p_best']:.2f}.")  # fmt: skip

    # --- how far to trust it ------------------------------------------------------------------------------------------

    @functools.cached_property
    def noise(self) -> pd.DataFrame:
        """The noise floor, a row an amount of data: ``seed_sd`` of one network's error between seeds and draws (pooled
        over networks; NaN with a single seed), ``binomial_sd`` of scoring on the validation images."""
        rows = []
        for count, group in self.runs.groupby("num_images"):
            cells = group.groupby(["arm", "instance"])["error"]
            freedom = float((cells.count() - 1).sum())
            squares = float(((group["error"] - cells.transform("mean")) ** 2).sum())
            error = float(group["error"].mean())
            rows.append({
                "num_images": int(float(str(count))), "error": error, "runs": len(group),
                "seed_sd": math.sqrt(squares / freedom) if freedom else math.nan,
                "binomial_sd": math.sqrt(error * (1 - error) / self.num_val) if self.num_val else math.nan,
            })  # fmt: skip
        return pd.DataFrame(rows)

    @functools.cached_property
    def instances(self) -> pd.DataFrame:
        """A row an arm with several instances: ``instances``, ``log_sd`` of their error around the arm's mean (averaged
        over amounts of data), and ``points``: the same in points of error at the largest amount."""
        rows = []
        for arm, group in self.runs.groupby("arm", sort=False):
            if group["instance"].nunique() > 1:
                means = group.assign(log=np.log(group["error"])).groupby(["num_images", "instance"])["log"].mean()
                spread = means.groupby("num_images").std(ddof=1).dropna()
                last = group[group["num_images"] == group["num_images"].max()]["error"].mean()
                sd = float(np.sqrt((spread**2).mean())) if len(spread) else math.nan
                rows.append({"arm": arm, "instances": int(group["instance"].nunique()), "log_sd": sd,
                             "points": 100 * float(last) * sd})  # fmt: skip
        return pd.DataFrame(rows, columns=["arm", "instances", "log_sd", "points"])

    @functools.cached_property
    def too_short(self) -> pd.DataFrame:
        """Points whose error fell by more than noise when their schedule was doubled: see ``too_short``."""
        return too_short(self.runs, self.doubled, self.noise)

    def tuning(self, study: Mapping[str, Any]) -> pd.DataFrame:
        """What the study's sweeps found: see ``tuning.sweeps``; empty where nothing was tuned."""
        rows = [{str(key): value for key, value in row.items()} for row in self.swept.to_dict("records")]
        found = sweeps(rows, study["tune"], study["recipe"]) if rows and study.get("tune") else ()
        return pd.DataFrame(found, columns=list(SWEEP_COLUMNS))

    @property
    def warnings(self) -> list[str]:
        """What is odd about the points and their schedules, as short sentences."""
        change = schedule_change(pd.concat([self.runs, self.held_out]))
        cells = self.without[["arm", "num_images"]].drop_duplicates() if len(self.without) else self.without
        told = [f"{row['arm']} on {row['num_images']:,.0f} images: an error of 0 is left out, for nobody knows on how "
                "many images it was measured (import --num-val)" for row in cells.to_dict("records")]  # fmt: skip
        if self.runs.groupby(["arm", "num_images"]).size().max() == 1:
            told.append("every point is a single run: what another seed would change is guessed from the curves alone")
        return [*([change] if change else []), *told, *self.fits.warnings]

    def check(self, level: float = 0.9) -> pd.DataFrame:
        """Held-out points against what was predicted for them: a row an arm and amount: ``error`` (mean of its runs),
        ``predicted``, ``low``, ``high``, ``inside``. The interval has the noise of those runs in it."""
        rows = []
        for key, group in self.held_out.groupby(["arm", "num_images"], sort=False):
            arm, count = str(key[0]), float(str(key[1]))
            drawn = np.log(self.samples([count], beyond=True)[:, self.arms.index(arm), 0])
            rng = np.random.default_rng([self.fits.seed, int(count)])
            binomial = (1 - np.exp(drawn)) / np.exp(drawn) / self.num_val if self.num_val else 0.0
            sd = np.sqrt((self.fits.noise_sd**2 + binomial) / len(group))
            drawn = drawn + sd * rng.standard_normal(len(drawn))
            low, middle, high = np.exp(np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2]))
            error = float(np.exp(np.log(group["error"]).mean()))
            rows.append({"arm": arm, "num_images": int(count), "error": error, "predicted": middle, "low": low,
                         "high": high, "inside": bool(low <= error <= high)})  # fmt: skip
        return pd.DataFrame(rows, columns=["arm", "num_images", "error", "predicted", "low", "high", "inside"])


def fit_scaling(frame: pd.DataFrame, *, up_to: float | None = None, num_val: int | None = None, form: str | None = None,
                seed: int = 0) -> Scaling:  # fmt: skip
    """Fit a scaling study's record (``read_record``). ``up_to``: fit on regimes of at most so many images and hold the
    larger ones out; ``num_val``: validation images, for the noise floor.

    Raises InputError for a record that is no scaling study's, for arms with too few amounts of data (how many are
    needed), for runs of one curve and amount with different schedules, and where ``up_to`` holds nothing out.
    """
    table = scaling_runs(frame)
    done = table[(table["state"] == "done") & table["error"].notna()]
    swept = done["tune"].notna()
    usual = done[~done["doubled"] & ~swept]
    check_schedules(usual)
    kept = usual["num_images"] <= (up_to or math.inf)
    runs, held_out = usual[kept].reset_index(drop=True), usual[~kept].reset_index(drop=True)
    if runs.empty:
        least = usual["num_images"].min()
        raise InputError("no run of this study is done yet" if usual.empty else
                         f"no regime has at most {up_to:g} images; the smallest has {least:g}")  # fmt: skip
    if up_to is not None and held_out.empty:
        raise InputError(f"up to {up_to:g} images nothing is held out: the largest regime that is done has "
                         f"{usual['num_images'].max():g}")  # fmt: skip
    measured = _runs_of(runs)
    used = np.array([usable(run, num_val) for run in measured])
    without = runs[~used]
    runs, measured = runs[used].reset_index(drop=True), [run for run, good in zip(measured, used, strict=True) if good]
    if runs.empty:
        raise InputError("every run has an error of 0: give the number of validation images (import --num-val)")
    fits = fit_curves(curves_of(measured, num_val), form=form, seed=seed)
    lost = (table["state"] != "done") | table["error"].isna()
    missing = table[lost][["number", "arm", "num_images", "seed", "draw", "state"]]
    return Scaling(runs=runs, held_out=held_out, missing=missing.reset_index(drop=True), without=without,
                   doubled=done[done["doubled"]].reset_index(drop=True), arms=tuple(dict.fromkeys(runs["arm"])),
                   fits=fits, num_val=num_val, swept=done[swept].reset_index(drop=True))  # fmt: skip


def _runs_of(runs: pd.DataFrame) -> list[Run]:
    return [
        Run(layout=str(row["layout"]), num_images=int(row["num_images"]), instance=row["instance"], size=row["size"],
            seed=int(1000 * np.nan_to_num(row["seed"]) + np.nan_to_num(row["draw"])), error=float(row["error"]))
        for row in runs.to_dict("records")
    ]  # fmt: skip
