"""What a search has taught: choices at equal cost, growth of the front beside a random baseline, noise, halving.

Record -> tables. Dimensions are ranked in ``importance.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from coatnet_search.analysis.frame import REPEATS, complete, numbers, of_kind
from coatnet_search.analysis.front import as_costs, comparable, non_dominated, running_volume
from coatnet_search.analysis.front_noise import REFERENCE, hypervolume, noise_is_known, on_front
from coatnet_search.analysis.intervals import Z95
from coatnet_search.analysis.networks import NUM_VAL, networks
from coatnet_search.core.quantities import Sense, quality
from coatnet_search.record.trial import BASELINE, RUNG, SEARCHED

LEAST = 12  # networks below which nothing is said of dimensions
LEVEL = 0.95  # of a whole table of effects
LAYOUT = "layout"


def candidates(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """The comparable trials of candidates, with a column a dimension that took several values; ``attrs["dimensions"]``
    names these. The layout is a dimension of its own."""
    rows = comparable(frame, objectives)
    named = np.array([isinstance(value, Mapping) and len(value) > 0 for value in rows["candidate"]], dtype=bool)
    own = rows[named].reset_index(drop=True)
    values = pd.DataFrame(list(own["candidate"]))
    varied = [str(name) for name in values if values[name].notna().all() and values[name].map(str).nunique() > 1]
    out = pd.concat([own.drop(columns=[name for name in varied if name in own]), values[varied]], axis=1)
    out.attrs["dimensions"] = [*([LAYOUT] if own[LAYOUT].nunique() > 1 else []), *varied]
    return out


def marginals(frame: pd.DataFrame, objectives: Mapping[str, Sense], cost: str = "macs") -> pd.DataFrame:
    """What each value of each dimension does to the quality at equal cost: ``dimension``, ``value``, ``trials``
    (networks), ``effect`` against the mean network of that cost, in the quality's unit, its interval ``low``, ``high``,
    and ``clear``: the interval leaves out 0.

    For one dimension at a time, least squares of the quality of networks (the mean of their runs) on the value and a
    parabola of the logarithm of ``cost``. The intervals are of 95 % for the table as a whole: with that probability all
    of them hold, by Student's t at a level that is shared among the effects (Bonferroni), so that one table in twenty
    shows an effect that is none. Other dimensions are not held fixed, and a search does not try values at random: an
    effect is of the networks that were tried. Empty below ``LEAST`` networks; nothing is said of a dimension with fewer
    than two networks a value.
    """
    rows = _means_of_networks(candidates(frame, objectives), quality(objectives))
    columns = ["dimension", "value", "trials", "effect", "low", "high", "clear"]
    if len(rows) < LEAST:
        return pd.DataFrame(columns=columns)
    found = [line for name in rows.attrs["dimensions"] for line in _effects(rows, name, quality(objectives), cost)]
    for line in found:
        half = float(stats.t.ppf(1 - (1 - LEVEL) / 2 / len(found), line.pop("freedom"))) * line.pop("error")
        line |= {"low": line["effect"] - half, "high": line["effect"] + half, "clear": abs(line["effect"]) > half}
    return pd.DataFrame(found, columns=columns)


def _means_of_networks(rows: pd.DataFrame, main: str) -> pd.DataFrame:
    """A row a network: runs of one network are no evidence of what its choices do elsewhere."""
    ids = rows["arch_id"].where(rows["arch_id"].notna(), rows["number"].astype(str))
    means = numbers(rows, main)
    out = rows.assign(**{main: pd.Series(means).groupby(ids.to_numpy()).transform("mean").to_numpy()})
    out = out[~ids.duplicated().to_numpy()].reset_index(drop=True)
    out.attrs = dict(rows.attrs)
    return out


def _effects(rows: pd.DataFrame, name: str, main: str, cost: str) -> Iterator[dict[str, Any]]:
    """A line a value: its effect with the standard ``error`` and the degrees of ``freedom`` that it has."""
    labels = rows[name].map(str).to_numpy()
    values = sorted(set(labels))
    if 2 * len(values) > len(rows):
        return
    at = np.log(np.maximum(numbers(rows, cost), 1.0))
    at = (at - at.mean()) / (at.std() or 1.0)
    curve = [at, at**2] if np.isfinite(at).all() and np.ptp(at) > 0 else []
    design = np.column_stack([labels == value for value in values] + curve).astype(float)
    free = len(rows) - np.linalg.matrix_rank(design)
    if free < 2:
        return
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ numbers(rows, main)
    variance = float(((numbers(rows, main) - design @ coefficients) ** 2).sum()) / free
    shares = np.array([(labels == value).mean() for value in values])
    for place, value in enumerate(values):
        contrast = np.zeros(design.shape[1])
        contrast[: len(values)] = -shares
        contrast[place] += 1.0
        yield {"dimension": name, "value": value, "trials": int((labels == value).sum()),
               "effect": float(contrast @ coefficients), "freedom": int(free),
               "error": float(np.sqrt(variance * contrast @ inverse @ contrast))}  # fmt: skip


def growth(frame: pd.DataFrame, objectives: Mapping[str, Sense], devices: float = 1.0) -> pd.DataFrame:
    """How the fronts of the search and of its random baseline grew, in the order in which trials ended.

    ``origin`` (search or baseline), ``trials`` (comparable ones so far), ``device_hours`` (of all trials of that
    origin that had ended by then, failed and stopped ones too), ``hypervolume`` (share of the box that both have in
    common, from the best to 10 % beyond the worst value), by what all runs say that networks are worth. What the
    baseline drew and another trial had trained counts as a trial that took no time. Replicates, peers and trials of an
    audit are left out. ``devices``: of one trial.
    """
    rows = complete(frame, objectives)
    rows = rows[of_kind(rows, BASELINE, *SEARCHED)].sort_values("ended_at", kind="stable")
    full = comparable(complete(frame, objectives), objectives)
    if full.empty:
        return pd.DataFrame({"origin": [], "trials": [], "device_hours": [], "hypervolume": []})
    costs = as_costs(rows, objectives)
    worth = networks(full, objectives)
    places = dict(zip(full["number"], worth.place, strict=True))
    of = [int(value[REPEATS]) if isinstance(value, Mapping) and REPEATS in value else int(number)
          for value, number in zip(rows["attributes"], rows["number"], strict=True)]  # fmt: skip
    shown = np.array([number in places for number in of], dtype=bool)
    costs[shown] = as_costs(worth.table, objectives)[[places[number] for number in of if number in places]]
    low, span = costs[shown].min(axis=0), np.ptp(costs[shown], axis=0)
    scaled = (costs - low) / (np.where(span > 0, span, 1.0) * REFERENCE)
    parts = []
    baseline = of_kind(rows, BASELINE)
    hours = np.nan_to_num(numbers(rows, "wall_s")) * devices / 3600
    for origin, mine in (("search", ~baseline), (BASELINE, baseline)):
        counted = mine & shown
        parts.append(pd.DataFrame({
            "origin": origin, "trials": np.arange(1, counted.sum() + 1),
            "device_hours": np.cumsum(np.where(mine, hours, 0.0))[counted],
            "hypervolume": running_volume(scaled[counted]),
        }))  # fmt: skip
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def noisy_front(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """A row a network that was trained in full, with what noise makes of the front; empty where nothing says how noisy
    a run is: no network was trained twice, and the number of validation images is not known.

    ``number`` (its best trial), ``arch_id``, ``layout``, ``trainings``, each objective's posterior mean and its 95 %
    interval (``NAME_low``, ``NAME_high``; of what is measured, the spread), ``front`` (by the means), ``p_front``.
    ``attrs``: ``deviation`` of one training, by objective, whether any was ``repeated``, and ``hypervolume`` with its
    90 % interval. Likeliest first.
    """
    rows = comparable(frame, objectives)
    rows = rows[rows["arch_id"].notna()].reset_index(drop=True)
    columns = ["number", "arch_id", "layout", "trainings", *objectives, "front", "p_front"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    found = networks(rows, objectives)
    if not noise_is_known(found, rows.attrs.get(NUM_VAL)):
        return pd.DataFrame(columns=columns)
    known = found.table
    table = pd.DataFrame({"number": known["number"].astype(int), "arch_id": known["arch_id"],
                          "layout": known["layout"].astype(str), "trainings": known["runs"]})  # fmt: skip
    for place, name in enumerate(objectives):
        table[name] = numbers(known, name)
        half = Z95 * found.losses()[:, :, place].std(axis=0)
        table[f"{name}_low"] = known.get(f"{name}_low", table[name] - half)
        table[f"{name}_high"] = known.get(f"{name}_high", table[name] + half)
    table["front"], table["p_front"] = non_dominated(table, objectives), on_front(found.losses())
    table = table.sort_values(["p_front", "number"], ascending=[False, True], kind="stable", ignore_index=True)
    volume = dict(zip(("value", "low", "high"), hypervolume(found.losses()), strict=True))
    table.attrs = {"deviation": {name: found.run_sd.get(name, 0.0) for name in objectives}, "hypervolume": volume,
                   "repeated": bool((known["runs"] > 1).any())}  # fmt: skip
    return table


def rungs_table(frame: pd.DataFrame, rungs: Sequence[int]) -> pd.DataFrame:
    """What halving did, a row a rung (``epochs``, ascending, the last the full budget) and layout: ``reached`` it,
    went on ``by_rank`` and ``by_quota`` (a place that was kept for the layout), were ``stopped`` there."""
    rows = complete(frame)
    halved = np.array([isinstance(value, Mapping) and RUNG in value for value in rows["attributes"]], dtype=bool)
    rows = rows[halved]
    lines = []
    for rung, epochs in enumerate(rungs):
        for layout, group in rows.groupby("layout", sort=True):
            at = [value[RUNG] for value in group["attributes"]]
            how = [value.get("went_on", [])[rung : rung + 1] for value in group["attributes"]]
            lines.append({
                "epochs": epochs, "layout": str(layout), "reached": int((numbers(group, "epoch") >= epochs).sum()),
                "by_rank": how.count(["rank"]), "by_quota": how.count(["quota"]),
                "stopped": sum(state == "stopped" and place == rung
                               for state, place in zip(group["state"], at, strict=True)),
            })  # fmt: skip
    return pd.DataFrame(lines, columns=["epochs", "layout", "reached", "by_rank", "by_quota", "stopped"])
