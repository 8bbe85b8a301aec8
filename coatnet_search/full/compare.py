"""Sets full trainings beside what the search saw of the same networks: was the choice right?"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from coatnet_search.analysis.front import join_words
from coatnet_search.analysis.intervals import Z95, difference_margin
from coatnet_search.analysis.posterior import SEEDS
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.quantities import show, show_difference
from coatnet_search.full.scores import single_seeds
from coatnet_search.full.train import RESULT

PREDICTED = ("predicted_val_top1", "predicted_low", "predicted_high", "inside_prediction")


def read_result(out: Path) -> dict[str, Any]:
    """The result of one training. Raises SetupError where it has none yet, InputError where it is damaged."""
    path = out / RESULT
    if not path.is_file():
        raise SetupError(f"{path} is not there; is {out} a folder of `train`, and is it finished?")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}; run the same `train` again to write it anew") from None


def rows(outs: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a training, the best first; ``rank_obtained`` counts from 1, and so does ``rank_search``, among the
    networks that one search saw at one budget. Both are by the search's objective, where all of a group have the same
    one and full training gives it too (accuracy or validation loss); else by validation accuracy.

    Accuracies are fractions; what a search did not see is None. Raises InputError where they were scored on different
    data, which cannot be compared.
    """
    found = [read_result(out) for out in outs]
    if len({result["data_digest"] for result in found}) > 1:
        which = ", ".join(f"{out} ({one['data_digest'][:6]})" for out, one in zip(outs, found, strict=True))
        raise InputError(f"these trainings have different data: {which}")
    table = [_row(out, result) for out, result in zip(outs, found, strict=True)]
    for row in table:
        row["rank_search"] = None
    for group in searches(table):
        for row, rank in zip(group, ranks([search_score(row, group) for row in group]), strict=True):
            row["rank_search"] = rank
    for row, rank in zip(table, ranks([obtained_score(row, objective_of(table)) for row in table]), strict=True):
        row["rank_obtained"] = rank
    return sorted(table, key=lambda row: row["rank_obtained"])


def ranks(scores: Sequence[float]) -> list[int]:
    """From 1, the less the better; equal scores share a rank."""
    return [1 + sum(other < score for other in scores) for score in scores]


def objective_of(group: Sequence[Mapping[str, Any]]) -> str:
    """What a search judged all of these by: ``val_loss``, or ``error``, which accuracy is the counterpart of."""
    losses = {row["search_objective"] for row in group} == {"val_loss"}
    return "val_loss" if losses and all(row["val_loss"] is not None for row in group) else "error"


def search_score(row: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> float:
    """Where a search put a network, the less the better: its rank in one choice, else its objective."""
    told = [one["search_rank"] for one in group]
    if None not in told and len(set(told)) == len(told):
        return float(row["search_rank"])
    by_loss = objective_of(group) == "val_loss" and all(one["search_value"] is not None for one in group)
    return float(row["search_value"] if by_loss else -row["search_val_top1"])


def obtained_score(row: Mapping[str, Any], objective: str) -> float:
    return float(row["val_loss"] if objective == "val_loss" else -row["val_top1"])


def searches(table: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows that one search saw at one budget, together: what it saw of others does not compare."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        if row["search_val_top1"] is not None:
            found.setdefault(f"{row['study']} {budget_words(row['search_budget'])}", []).append(row)
    return list(found.values())


def budget_words(budget: Mapping[str, Any] | None) -> str:
    """``10,000 images, 5 epochs``: what a search trained its networks with."""
    budget = budget or {}
    images = f"{budget['num_images']:,} images" if budget.get("num_images") else None
    size = f"{budget['image_size']} pixels" if budget.get("image_size") else None
    epochs = f"{budget['epochs']} epochs" if budget.get("epochs") else None
    return ", ".join(part for part in (images, size, epochs) if part)


def _row(out: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    against, means = result.get("against_prediction") or {}, result["means"]
    test = means.get("test_top1")
    return {
        "out": str(out), "name": result["name"], "layout": result["layout"], "arch_id": result["arch_id"],
        "params": result["params"], "macs": result["macs"], "seeds": len(result["seeds"]), "num_val": result["num_val"],
        "study": (result.get("predicted") or {}).get("study"), "search_budget": against.get("search_budget"),
        "search_val_top1": against.get("search_val_top1"), "val_top1": means["val_top1"]["mean"],
        "val_low": _low(result, "val")[0], "val_high": _low(result, "val")[1], "gain": against.get("gain"),
        "search_rank": against.get("search_rank"), "search_objective": against.get("search_objective"),
        "search_value": against.get("search_value"), "val_loss": (means.get("val_loss") or {}).get("mean"),
        "epochs": sum(stage["recipe"]["epochs"] for stage in result.get("stages") or ()) or None,
        "val_loss_half": _half(means.get("val_loss")), "val_seeds": [one["val"]["top1"] for one in result["seeds"]],
        **{key: against.get(key) for key in PREDICTED}, "test_top1": test["mean"] if test else None,
    }  # fmt: skip


def _low(result: Mapping[str, Any], split: str) -> tuple[float, float]:
    """The interval: over seeds where there are several, else of the number of images."""
    mean = result["means"][f"{split}_top1"]
    if mean["low"] is not None:
        return mean["low"], mean["high"]
    first = result["seeds"][0][split]
    return first["top1_low"], first["top1_high"]


def _half(mean: Mapping[str, Any] | None) -> float | None:
    """Half of an interval over seeds; None where there is none."""
    return (mean["high"] - mean["low"]) / 2 if mean and mean.get("low") is not None else None


def conclusion(table: Sequence[dict[str, Any]]) -> str:
    """Whether each search's order held, and what a curve predicted; what images cannot tell apart is said so."""
    audited_record = [group for group in searches(table) if len(group) > 1]
    told = [
        (f"{group[0]['study']}: " if len(audited_record) > 1 else "") + _judgement(group) for group in audited_record
    ]
    if not audited_record:
        told = ["No two of these networks were seen by one search at one budget: there is no choice to judge."]
    for inside, words in ((True, "Within"), (False, "Outside")):
        if names := [row["name"] for row in table if row["inside_prediction"] is inside]:
            told.append(f"{words} what a curve predicted: {join_words(names)}.")
    return " ".join(told)


def _judgement(known: Sequence[Mapping[str, Any]]) -> str:
    """Whether one search's order held, where the trainings can tell: they are of equal length, and the search's first
    choice is among them."""
    if len({row["epochs"] for row in known}) > 1:
        lengths = join_words([f"{row['name']} {row['epochs']}" for row in known])
        return f"The choice is not judged: these trainings are of unlike length (epochs: {lengths})."
    objective = objective_of(known)
    chosen = min(known, key=lambda row: search_score(row, known))
    if (chosen["search_rank"] or 1) > 1:
        return (f"The choice is not judged: the search's first choice is not among these trainings; {chosen['name']} "
                f"was its number {chosen['search_rank']}.")  # fmt: skip
    ordered = sorted(known, key=lambda row: obtained_score(row, objective))
    best = ordered[0]
    against = ordered[1] if best is chosen else chosen
    gap = obtained_score(against, objective) - obtained_score(best, objective)
    margin = _margin(best, against, objective)
    name = "val_loss" if objective == "val_loss" else "val_top1"
    points, apart = show_difference(name, gap), "" if margin is None else show_difference(name, margin)
    if margin is None:
        side = "ahead of" if best is chosen else "better than"
        text = (f"The choice cannot be judged without a second seed of each: by validation loss {best['name']} is "
                f"{points} {side} {against['name']}{'' if best is chosen else ', the best of the search'}."
                )  # fmt: skip
    elif best is chosen and gap >= margin:
        text = (f"The choice held: {chosen['name']}, best in the search, is the best after full training too, {points} "
                f"ahead of {against['name']} (a difference below {apart} could be noise).")  # fmt: skip
    elif best is chosen:
        text = (f"The choice cannot be faulted: {chosen['name']}, best in the search, is the best after full training "
                f"too, but only {points} ahead of {against['name']}, and below {apart} it could be noise.")  # fmt: skip
    elif gap < margin:
        text = (f"The choice cannot be faulted: {best['name']} is {points} better than "
                f"{chosen['name']}, the search's best, and below {apart} it could be noise.")  # fmt: skip
    else:
        text = (
            f"The choice was wrong: {best['name']} is {points} better after full training "
            f"than {chosen['name']}, the search's best (a difference below {apart} could be noise)."
        )
    if len(known) > 2:
        tau = kendalltau([search_score(row, known) for row in known],
                         [obtained_score(row, objective) for row in known]).statistic  # fmt: skip
        text += f" Rank correlation (Kendall's tau) of search and full training over {len(known)} networks: " + (
            f"{tau:.2f}." if math.isfinite(tau) else "not defined, all are equal.")  # fmt: skip
    return text


def _margin(first: Mapping[str, Any], second: Mapping[str, Any], objective: str) -> float | None:
    """A difference that noise of seeds and images exceeds once in twenty; None where it is not known. Images are taken
    as independent, which is on the safe side for networks scored on the same ones."""
    if objective == "val_loss":
        halves = [row["val_loss_half"] for row in (first, second)]
        return None if None in halves else math.hypot(*halves)
    halves = [(row["val_high"] - row["val_low"]) / 2 for row in (first, second)]
    if min(first["seeds"], second["seeds"]) > 1:
        return math.hypot(*halves)
    unit = max(row["val_top1"] * (1 - row["val_top1"]) for row in (first, second))
    seeds = Z95 * SEEDS * math.e * unit  # one seed: one standard deviation of what is usual between seeds, upwards
    return math.hypot(difference_margin(first["val_top1"], second["val_top1"], first["num_val"]), math.sqrt(2) * seeds)


COLUMNS = {
    "name": "network", "layout": "layout", "macs": "multiply-adds", "search_val_top1": "validation, search",
    "seen": "search's budget", "predicted": "predicted by a curve", "val_top1": "validation, full",
    "interval": "95 % interval", "test_top1": "test", "seeds": "seeds", "rank_search": "rank, search",
    "rank_obtained": "rank, full",
}  # fmt: skip


def _alone(row: Mapping[str, Any]) -> str:
    alone = single_seeds(row["val_seeds"])
    return f" (seeds {alone})" if alone else ""


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a table shows it."""
    predicted = None
    if row["predicted_val_top1"] is not None:
        value, low, high = (100 * row[f"predicted_{end}"] for end in ("val_top1", "low", "high"))
        predicted = f"{value:.1f} % ({low:.1f} to {high:.1f})"
    return {
        **row,
        "seen": budget_words(row["search_budget"]),
        "predicted": predicted,
        "interval": f"{100 * row['val_low']:.1f} to {100 * row['val_high']:.1f} %" + _alone(row),
        **{key: None if row[key] is None else show("val_top1", row[key])
           for key in ("search_val_top1", "val_top1", "test_top1")},
    }  # fmt: skip
