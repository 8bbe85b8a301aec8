"""Sets full trainings beside what the search saw of the same networks: was the choice right?"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from coatnet_search.analysis.front import join_words
from coatnet_search.analysis.intervals import difference_margin
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.quantities import show, show_difference
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
    """A row a training, best obtained validation accuracy first; ``rank_obtained`` counts from 1, and so does
    ``rank_search``, among the networks that one search saw at one budget.

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
    for key, of, groups in (
        ("rank_search", "search_val_top1", searches(table)),
        ("rank_obtained", "val_top1", [table]),
    ):
        for group in groups:
            known = sorted((row[of] for row in group), reverse=True)
            for row in group:
                row[key] = known.index(row[of]) + 1
    return sorted(table, key=lambda row: row["rank_obtained"])


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
        **{key: against.get(key) for key in PREDICTED}, "test_top1": test["mean"] if test else None,
    }  # fmt: skip


def _low(result: Mapping[str, Any], split: str) -> tuple[float, float]:
    """The interval: over seeds where there are several, else of the number of images."""
    mean = result["means"][f"{split}_top1"]
    if mean["low"] is not None:
        return mean["low"], mean["high"]
    first = result["seeds"][0][split]
    return first["top1_low"], first["top1_high"]


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
    """Whether one search's order held."""
    chosen = max(known, key=lambda row: row["search_val_top1"])
    best = max(known, key=lambda row: row["val_top1"])
    lost = best["val_top1"] - chosen["val_top1"]
    margin = difference_margin(best["val_top1"], chosen["val_top1"], chosen["num_val"])
    if lost == 0:
        text = f"The choice held: {chosen['name']}, best in the search, is the best after full training too."
    elif lost < margin:
        text = (f"The choice cannot be faulted: {best['name']} is {show_difference('val_top1', lost)} better than "
                f"{chosen['name']}, the search's best, and {chosen['num_val']:,} images tell apart only "
                f"{show_difference('val_top1', margin)}.")  # fmt: skip
    else:
        text = (
            f"The choice was wrong: {best['name']} is {show_difference('val_top1', lost)} better after full training "
            f"than {chosen['name']}, the search's best."
        )
    if len(known) > 2:
        tau = kendalltau([row["search_val_top1"] for row in known], [row["val_top1"] for row in known]).statistic
        text += f" Rank correlation (Kendall's tau) of search and full training over {len(known)} networks: " + (
            f"{tau:.2f}." if math.isfinite(tau) else "not defined, all are equal.")  # fmt: skip
    return text


COLUMNS = {
    "name": "network", "layout": "layout", "macs": "multiply-adds", "search_val_top1": "validation, search",
    "seen": "search's budget", "predicted": "predicted by a curve", "val_top1": "validation, full",
    "interval": "95 % interval", "test_top1": "test", "seeds": "seeds", "rank_search": "rank, search",
    "rank_obtained": "rank, full",
}  # fmt: skip


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
        "interval": f"{100 * row['val_low']:.1f} to {100 * row['val_high']:.1f} %",
        **{key: None if row[key] is None else show("val_top1", row[key])
           for key in ("search_val_top1", "val_top1", "test_top1")},
    }  # fmt: skip
