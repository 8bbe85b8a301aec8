"""Full training's results beside what the search saw of the same networks: was the choice right?"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from coatnet_search.analyse import difference_margin, join_words
from coatnet_search.errors import InputError, SetupError
from coatnet_search.full_train import RESULT
from coatnet_search.quantities import show, show_difference


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
    """A row a training, best obtained validation accuracy first; ``rank_search`` and ``rank_obtained`` count from 1.

    Accuracies are fractions; what a search did not see is None. Raises InputError where they were scored on different
    data, which cannot be compared.
    """
    found = [read_result(out) for out in outs]
    if len({result["data_digest"] for result in found}) > 1:
        which = ", ".join(f"{out} ({one['data_digest'][:6]})" for out, one in zip(outs, found, strict=True))
        raise InputError(f"these trainings have different data: {which}")
    table = [_row(out, result) for out, result in zip(outs, found, strict=True)]
    for key, of in (("rank_search", "search_val_top1"), ("rank_obtained", "val_top1")):
        known = sorted((row[of] for row in table if row[of] is not None), reverse=True)
        for row in table:
            row[key] = None if row[of] is None else known.index(row[of]) + 1
    return sorted(table, key=lambda row: row["rank_obtained"])


def _row(out: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    against, means = result.get("against_prediction") or {}, result["means"]
    test = means.get("test_top1")
    return {
        "out": str(out), "name": result["name"], "layout": result["layout"], "arch_id": result["arch_id"],
        "params": result["params"], "macs": result["macs"], "seeds": len(result["seeds"]), "num_val": result["num_val"],
        "search_val_top1": against.get("search_val_top1"), "val_top1": means["val_top1"]["mean"],
        "val_low": _low(result, "val")[0], "val_high": _low(result, "val")[1], "gain": against.get("gain"),
        "inside_prediction": against.get("inside_prediction"), "test_top1": test["mean"] if test else None,
    }  # fmt: skip


def _low(result: Mapping[str, Any], split: str) -> tuple[float, float]:
    """The interval: over seeds where there are several, else of the number of images."""
    mean = result["means"][f"{split}_top1"]
    if mean["low"] is not None:
        return mean["low"], mean["high"]
    first = result["seeds"][0][split]
    return first["top1_low"], first["top1_high"]


def verdict(table: Sequence[Mapping[str, Any]]) -> str:
    """Whether the search's order held, in a sentence or two; what the images cannot tell apart is said to be that."""
    known = [row for row in table if row["search_val_top1"] is not None]
    if len(known) < 2:
        return "Fewer than two of these networks come from a search: there is no choice to judge."
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
    outside = [row["name"] for row in known if row["inside_prediction"] is False]
    if outside:
        text += f" Outside what was predicted: {join_words(outside)}."
    if len(known) > 2:
        tau = kendalltau([row["search_val_top1"] for row in known], [row["val_top1"] for row in known]).statistic
        text += f" Rank correlation (Kendall's tau) of search and full training over {len(known)} networks: " + (
            f"{tau:.2f}." if math.isfinite(tau) else "not defined, all are equal.")  # fmt: skip
    return text


COLUMNS = {"name": "network", "layout": "layout", "macs": "multiply-adds", "search_val_top1": "validation, search",
           "val_top1": "validation, full", "interval": "95 % interval", "test_top1": "test", "seeds": "seeds",
           "rank_search": "rank, search", "rank_obtained": "rank, full"}  # fmt: skip


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a table shows it."""
    return {**row, "interval": f"{100 * row['val_low']:.1f} to {100 * row['val_high']:.1f} %",
            **{key: None if row[key] is None else show("val_top1", row[key])
               for key in ("search_val_top1", "val_top1", "test_top1")}}  # fmt: skip
