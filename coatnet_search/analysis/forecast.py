"""Writes what a scaling study predicts of runs that do not exist yet, with a hash, and scores it once they do."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.canonical import canonical_json
from coatnet_search.core.errors import InputError

VERSION = 1
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def forecast(scaling: Scaling, targets: Sequence[float], study: Mapping[str, Any],
             beyond: bool = False) -> dict[str, Any]:  # fmt: skip
    """What is predicted at each target (images, above all that was trained on): each arm's quantiles of its expected
    error and P(best), and P(the first has the smaller error) of each pair; ``sha256`` is of all the rest. Raises
    InputError for targets that have runs already."""
    most = max([*scaling.num_images, *scaling.held_out["num_images"].astype(int).tolist()])
    early = [target for target in targets if target <= most]
    if early:
        raise InputError(f"--register is for runs that do not exist yet: the record has runs on {most:,} images, and "
                         f"{early[0]:,.0f} was asked for; give --at-data above that")  # fmt: skip
    content = {
        "version": VERSION, "registered": datetime.now(UTC).isoformat(timespec="seconds"), "study": study.get("name"),
        "fitted_images": scaling.num_images, "fitted_runs": len(scaling.runs),
        "fitted_sha256": _runs_hash(scaling.runs),
        "noise_sd": scaling.fits.noise_sd, "num_val": scaling.num_val,
        "targets": [_target(scaling, target, beyond) for target in targets],
    }  # fmt: skip
    return {**content, "sha256": _hash(content)}


def _target(scaling: Scaling, target: float, beyond: bool) -> dict[str, Any]:
    samples = scaling.samples([target], beyond=beyond)[:, :, 0]
    table = scaling.at(target, beyond=beyond).set_index("arm")
    pairs = scaling.pairs(target, beyond=beyond)
    return {
        "num_images": target,
        "arms": [{"arm": arm, "quantiles": dict(zip(map(str, LEVELS), map(float, np.quantile(samples[:, i], LEVELS)),
                                                    strict=True)), "p_best": float(table["p_best"][arm])}
                 for i, arm in enumerate(scaling.arms)],
        "pairs": [{"first": a, "second": b, "p_first": float(pairs[b][a])}
                  for i, a in enumerate(scaling.arms) for b in scaling.arms[i + 1 :]],
    }  # fmt: skip


def _runs_hash(runs: pd.DataFrame) -> str:
    rows = (
        runs[["arm", "instance", "num_images", "seed", "draw", "error"]].astype(object).where(lambda v: v.notna(), None)
    )
    return sha256(canonical_json(sorted(map(str, rows.to_numpy().tolist()))).encode()).hexdigest()


def _hash(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_forecast(path: Path, made: Mapping[str, Any]) -> None:
    """Writes a forecast. Raises InputError where there is a file already: a forecast is not changed."""
    if path.exists():
        raise InputError(f"{path}: there is a file already, and a forecast is never changed; give another name")
    path.write_text(json.dumps(made, indent=2) + "\n")


def read_forecast(path: Path) -> dict[str, Any]:
    """A forecast as it was registered. Raises InputError for no forecast, and for one that was changed."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a forecast that scaling --register wrote ({error})") from None
    if not isinstance(found, dict) or not {"targets", "sha256"} <= found.keys():
        raise InputError(f"{path}: expected a forecast that scaling --register wrote")
    if found["sha256"] != _hash({key: value for key, value in found.items() if key != "sha256"}):
        raise InputError(f"{path}: its sha256 is not that of its content: it was changed after it was registered")
    return found


def score(made: Mapping[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """The forecast against runs that are done since (``scaling_runs`` of the record): a row a target that at least one
    arm has: ``arms``, ``inside`` (share of means in the 90 % interval, widened by the noise of so many runs),
    ``rmse_log``, ``pairs``, ``decision_accuracy``, ``brier`` (of pairs), ``best_right`` (whether the arm of the highest
    P(best) was best), ``p_of_best`` (what P(best) said of the arm that was), NaN where fewer than two arms are done.

    Raises InputError where no target has runs.
    """
    rows = []
    for target in made["targets"]:
        done = runs[(runs["num_images"] == target["num_images"]) & runs["error"].notna()]
        if len(done):
            rows.append(_scored(made, target, done.groupby("arm")["error"].agg(["mean", "size"])))
    rows = [row for row in rows if row["arms"]]
    if not rows:
        wanted = ", ".join(f"{target['num_images']:,.0f}" for target in made["targets"])
        raise InputError(f"no run of the forecast's arms on {wanted} images is done: score it when they are")
    return pd.DataFrame(rows)


def _scored(made: Mapping[str, Any], target: Mapping[str, Any], done: pd.DataFrame) -> dict[str, Any]:
    arms = {one["arm"]: one for one in target["arms"] if one["arm"] in done.index}
    inside, errors = [], []
    for arm, one in arms.items():
        mean, count = float(done.loc[arm, "mean"]), int(done.loc[arm, "size"])
        low, middle, high = (one["quantiles"][str(level)] for level in (0.05, 0.5, 0.95))
        noise = made["noise_sd"] ** 2 + ((1 - middle) / (middle * made["num_val"]) if made.get("num_val") else 0.0)
        below, above = (math.hypot(math.log(middle / side), 1.6449 * math.sqrt(noise / count)) for side in (low, high))
        inside.append(math.log(middle) - below <= math.log(max(mean, 1e-12)) <= math.log(middle) + above)
        errors.append(math.log(max(mean, 1e-12) / middle))
    right, brier = [], []
    for pair in target["pairs"]:
        if pair["first"] in arms and pair["second"] in arms:
            gap = float(done.loc[pair["first"], "mean"] - done.loc[pair["second"], "mean"])
            won = 0.5 if gap == 0 else float(gap < 0)
            brier.append((pair["p_first"] - won) ** 2)
            right.append(0.5 if gap == 0 or pair["p_first"] == 0.5 else float((pair["p_first"] > 0.5) == (gap < 0)))
    known = len(arms) > 1
    best = min(arms, key=lambda arm: done.loc[arm, "mean"]) if known else None
    return {
        "num_images": target["num_images"], "arms": len(arms), "inside": float(np.mean(inside)) if inside else math.nan,
        "rmse_log": float(np.sqrt(np.mean(np.square(errors)))) if errors else math.nan, "pairs": len(right),
        "decision_accuracy": float(np.mean(right)) if right else math.nan,
        "brier": float(np.mean(brier)) if brier else math.nan,
        "best_right": best == max(arms, key=lambda arm: arms[arm]["p_best"]) if known else None,
        "p_of_best": arms[best]["p_best"] if best is not None else math.nan,
    }  # fmt: skip
