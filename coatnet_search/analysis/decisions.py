"""What a scaling study's prediction of its held-out runs was worth: pairs told right, for how much compute."""

import itertools
import math

import numpy as np
import pandas as pd

from coatnet_search.analysis.scaling import ENOUGH, Scaling

ONE_SIDED = 1.6449  # standard errors at which the order of two means is right with 95 %


def pair_table(scaling: Scaling) -> pd.DataFrame:
    """A row a pair of arms and held-out amount of data that both have: ``p_first`` (P(the first has the smaller
    error)), ``gap`` (first minus second, mean measured error), ``right`` (whether the likelier order was measured; a
    half where either leaves it open), ``seeds`` (how many of each would tell their order right with 95 %: how far apart
    they are beside the noise of a run; infinite where they are equal)."""
    rows = []
    for count, group in scaling.held_out.groupby("num_images"):
        images = float(str(count))
        known = [arm for arm in scaling.arms if arm in set(group["arm"])]
        chances = scaling.pairs(images, beyond=True) if len(known) > 1 else pd.DataFrame()
        means = group.groupby("arm")["error"].mean()
        for first, second in itertools.combinations(known, 2):
            chance, gap = float(chances[second][first]), float(means[first] - means[second])
            right = 0.5 if gap == 0 or chance == 0.5 else float((chance > 0.5) == (gap < 0))
            rows.append({"num_images": int(images), "first": first, "second": second, "p_first": chance, "gap": gap,
                         "right": right, "brier": (chance - (0.5 if gap == 0 else float(gap < 0))) ** 2,
                         "seeds": seeds_apart(scaling, float(means[first]), float(means[second]))})  # fmt: skip
    return pd.DataFrame(rows, columns=["num_images", "first", "second", "p_first", "gap", "right", "brier", "seeds"])


def seeds_apart(scaling: Scaling, first: float, second: float) -> float:
    """Runs of each of two arms of these errors whose means are in the right order with 95 %: the noise of a run, less
    what runs of equal seed and draw share, and that of scoring on so many images."""
    if first <= 0 or second <= 0 or first == second:
        return math.inf
    variance = 2 * scaling.fits.noise_sd**2 * (1 - scaling.fits.paired)
    if scaling.num_val:
        variance += sum((1 - error) / (error * scaling.num_val) for error in (first, second))
    return math.ceil(max(1.0, ONE_SIDED**2 * variance / math.log(first / second) ** 2))


def decision_figures(scaling: Scaling) -> pd.DataFrame:
    """A row a held-out amount of data: ``pairs``, ``decision_accuracy`` (share of them told right, DataDecide 2025),
    ``sure`` (pairs told with at least 95 %) and ``sure_right``, ``brier``, and ``compute_share`` (multiply-adds of
    training of what was fitted beside those of all runs of that amount; NaN where they are not on record)."""
    table, rows = pair_table(scaling), []
    spent = float((scaling.runs["macs"] * scaling.runs["epochs"] * scaling.runs["num_images"]).sum())
    for count, group in table.groupby("num_images"):
        there = scaling.held_out[scaling.held_out["num_images"] == count]
        whole = float((there["macs"] * there["epochs"] * there["num_images"]).sum())
        sure = np.maximum(group["p_first"], 1 - group["p_first"]) >= ENOUGH
        rows.append({
            "num_images": int(str(count)), "pairs": len(group), "decision_accuracy": float(group["right"].mean()),
            "sure": int(sure.sum()), "sure_right": float(group["right"][sure].sum()),
            "brier": float(group["brier"].mean()), "compute_share": spent / whole if whole > 0 else math.nan,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["num_images", "pairs", "decision_accuracy", "sure", "sure_right", "brier",
                                       "compute_share"])  # fmt: skip
