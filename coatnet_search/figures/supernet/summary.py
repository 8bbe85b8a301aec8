"""What a study's supernet cost and how its layouts stand, as plain values: all forms of the report show these."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import numbers
from coatnet_search.core.quantities import show
from coatnet_search.supernet.rows import FOLDER, PER_LAYOUT_FOLDER, Row, read_supernet_rows

COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)  # candidates of the curve of candidates an hour


def supernet_summary(frame: pd.DataFrame, study: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where the study trains no supernet. Keys: epochs, device_s, updates (by layout), branch_updates, restored
    (sentences), conflict (by stage), probes and, where one supernet for each layout was trained beside it, apart: a row
    a probe (layout, size, macs, val_top1, val_loss); history: the probes of every epoch; candidates: see
    ``candidates_per_hour``; sentences."""
    spec = study.get("supernet")
    if not spec or not spec.get("epochs"):
        return None
    run = Path(str(frame.attrs.get("run", "")))
    rows = read_supernet_rows(run / FOLDER)
    if not rows:
        known = "is not trained yet" if frame.empty else "was trained elsewhere; its epochs are not in this folder"
        return {"epochs": 0, "sentences": [f"The supernet {known}."]}
    workers = spec.get("workers") or 1
    found = {
        "epochs": len(rows),
        "device_s": workers * sum(row["epoch_s"] for row in rows),
        "updates": rows[-1]["updates"],
        "branch_updates": rows[-1]["branch_updates"],
        "restored": [text for row in rows for text in row["restored"]],
        "conflict": rows[-1]["conflict"],
        "probes": probe_rows(rows),
        "history": [{"epoch": row["epoch"], **probe} for row in rows for probe in probe_rows([row])],
        "apart": probe_rows(read_supernet_rows(run / PER_LAYOUT_FOLDER)),
    }
    found["candidates"] = candidates_per_hour(found["device_s"], *_seconds(frame))
    return {**found, "sentences": _sentences(found, spec)}


def probe_rows(rows: Sequence[Row]) -> list[Row]:
    """The probes of the last epoch that had some."""
    last: Row = next((row["probes"] for row in reversed(rows) if "probes" in row), {})
    return [{"layout": layout, "size": size, **values} for layout, sizes in last.items()
            for size, values in sizes.items()]  # fmt: skip


def _seconds(frame: pd.DataFrame) -> tuple[float | None, float | None]:
    """Median seconds of a trial with inherited weights, and of one that was trained alone."""
    wall, done = numbers(frame, "wall_s"), (frame["state"] == "done").to_numpy(dtype=bool)
    alone = numbers(frame, "epochs") > 0
    return tuple(float(np.median(wall[part])) if (part := done & np.isfinite(wall) & kind).any() else None
                 for kind in (~alone, alone))  # type: ignore[return-value]  # fmt: skip


def candidates_per_hour(supernet_s: float, inherited_s: float | None, alone_s: float | None) -> dict[str, Any]:
    """Candidates a device-hour over how many are asked for, the supernet's own training included (``inherited``),
    beside training each alone (``alone``; None where none was); ``pays_from``: from which number on the supernet is
    cheaper."""
    curve = [{"candidates": count, "inherited": 3600 * count / (supernet_s + count * inherited_s),
              "alone": 3600 / alone_s if alone_s else None} for count in COUNTS] if inherited_s else []  # fmt: skip
    gain = alone_s - inherited_s if alone_s and inherited_s else None
    pays = math.floor(supernet_s / gain) + 1 if gain and gain > 0 else None
    return {"inherited_s": inherited_s, "alone_s": alone_s, "curve": curve, "pays_from": pays}


def _sentences(found: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    updates = sorted(set(found["updates"].values()))
    out = [f"The supernet was trained for {found['epochs']} of {spec['epochs']} epochs in "
           f"{found['device_s'] / 3600:.2g} device-hours; each layout had {updates[0]:,} updates, and training went "
           f"back to an earlier state {len(found['restored'])} times."]  # fmt: skip
    if found["probes"]:
        out.append(f"Validation accuracy of its probes: {_accuracies(found['probes'])}.")
    if found["apart"]:
        out.append("One supernet for each layout, trained for as many steps in all, against that: "
                   f"{_accuracies(found['apart'])}.")  # fmt: skip
    if found["conflict"]:
        parts = ", ".join(f"{place} {value:+.2f}" for place, value in found["conflict"].items())
        out.append(f"Cosine of the gradients of block types that differ at one stage, on what they share: {parts}.")
    if found["candidates"]["curve"]:
        out.append(_pays(found["candidates"]))
    return out


def _accuracies(probes: Sequence[Row]) -> str:
    """``C-T smallest 40.1 %, largest 50.2 %; ...``"""
    layouts: dict[str, list[str]] = {}
    for row in probes:
        layouts.setdefault(row["layout"], []).append(f"{row['size']} {show('val_top1', row['val_top1'])}")
    return "; ".join(f"{layout} {', '.join(parts)}" for layout, parts in layouts.items())


def _pays(candidates: Mapping[str, Any]) -> str:
    at = next(row for row in candidates["curve"] if row["candidates"] == 300)
    text = f"300 candidates with inherited weights, the supernet's training included: {at['inherited']:,.3g} an hour"
    if at["alone"] is None:
        return f"{text}; none was trained alone, so that there is nothing to hold that against."
    if candidates["pays_from"] is None:
        return f"{text}; trained alone {at['alone']:,.3g} an hour: the supernet never pays."
    return (f"{text}, trained alone {at['alone']:,.3g}; the supernet is cheaper from "
            f"{candidates['pays_from']:,} candidates on.")  # fmt: skip
