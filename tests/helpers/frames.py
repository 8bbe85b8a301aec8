"""Frames as ``read_record`` gives them, made up from a seed: for the tests of what reads a record."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.record.fold import encode

LAYOUTS = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T")
STUDY: dict[str, Any] = {
    "question": "How many stages should be attention?",
    "space": "digits",
    "data": {"name": "digits"},
    "recipe": {"name": "digits", "epochs": 5},
    "objectives": {"val_loss": "min", "macs": "min"},
    "search": {"strategy": "nsga2", "trials": 24, "seed": 0},
    "limits": {},
    "choose": {"limit": {"macs": 1e6}, "top": 3},
}


def architecture(layout: str, width: int) -> Arch:
    """A small network of a layout."""
    stages = tuple(Stage(block=letter, depth=1, width=width) for letter in layout.split("-"))
    return Arch(image_size=32, num_classes=10, stem=Stem(depth=1, width=16, stride=1), stages=stages)


def trial(number: int, layout: str = "C-C-T-T", state: str = "done", **values: Any) -> dict[str, Any]:
    """One row with plausible values; ``values`` replace or add columns."""
    arch = architecture(layout, 32 * (1 + number))
    top1 = values.get("val_top1", 0.9)
    row = {
        "number": number, "key": f"key{number}", "state": state, "arch_id": arch.id, "layout": layout,
        "candidate": {"width": 32 * (1 + number)}, "params": 1e5, "macs": 5e5, "activations": 1e4, "val_top1": top1,
        "val_top5": 0.99, "val_loss": 0.3, "error": None if top1 is None else 1 - top1, "train_loss": 0.2,
        "train_top1": 0.95, "throughput_images_per_s": 1000.0, "throughput_images_per_s_spread": 20.0, "epochs": 5,
        "num_images": None, "image_size": None, "seed": 0, "draw": 0, "epoch": 5, "device": "cpu", "failure_kind": None,
        "failure_message": None, "wall_s": 3.0, "origin": "search",
        "started_at": f"2026-01-02T03:{number // 60 % 60:02}:{number % 60:02}Z",
        "ended_at": f"2026-01-02T04:{number // 60 % 60:02}:{number % 60:02}Z", "curve": [], "arch": arch.to_dict(),
        "attributes": {},
    }  # fmt: skip
    return {**row, **values}


def frame_of(*rows: dict[str, Any], study: str = "quickstart") -> pd.DataFrame:
    """A frame of rows; without any it has the columns alone."""
    frame = pd.DataFrame(list(rows)) if rows else pd.DataFrame([trial(0)]).iloc[:0]
    frame.attrs.update(study=study)
    return frame


def search(count: int, *, seed: int = 0, num_val: int = 180, epochs: int = 5) -> pd.DataFrame:
    """A search of ``count`` trials over four layouts with a few stopped, failed and running ones."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        layout = LAYOUTS[number % 4]
        state = str(rng.choice(["done", "stopped", "failed", "running"], p=[0.85, 0.06, 0.06, 0.03]))
        macs = float(10 ** rng.uniform(5.2, 6.6))
        skill = 0.80 + 0.06 * (np.log10(macs) - 5.2) + 0.02 * LAYOUTS.index(layout) + rng.normal(0, 0.015)
        curve = []
        for epoch in range(1, epochs + 1):
            top1 = round(min(1.0, skill * (1 - 0.6 * 2.0**-epoch) + rng.normal(0, 0.004)) * num_val) / num_val
            loss = float(-1.2 * np.log(min(max(skill, 0.05), 0.999)) + 1.5 * 3.0**-epoch + 0.05 * rng.random())
            curve.append({"epoch": epoch, "val_top1": top1, "val_loss": loss, "train_loss": loss * 0.8})
        seen = {"done": epochs, "stopped": 2, "failed": 0, "running": 1}[state]
        last = curve[seen - 1] if seen else {"val_top1": None, "val_loss": None}
        failure = {"failure_kind": "nan", "failure_message": f"loss is NaN in epoch 1, step {number}"}
        rows.append(trial(
            number, layout, state, macs=macs, params=macs / 4, val_top1=last["val_top1"], val_loss=last["val_loss"],
            throughput_images_per_s=float(3e8 / macs * rng.uniform(0.7, 1.2)),
            throughput_images_per_s_spread=float(1e7 / macs), curve=curve[:seen], epoch=seen or None,
            wall_s=float(rng.uniform(2, 6)), **(failure if state == "failed" else {}),
        ))  # fmt: skip
    return frame_of(*rows)


def events_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a driver writes of such a row: its start, its epochs, its end."""
    exact = {name: row[name] for name in ("params", "macs", "activations")}
    measured = ("val_top1", "val_loss", "throughput_images_per_s", "throughput_images_per_s_spread")
    about = {"number": row["number"], "key": row["key"]}
    failure = (
        {"kind": row["failure_kind"], "message": row["failure_message"]}
        if isinstance(row["failure_kind"], str)
        else None
    )
    started = {**about, "event": "started", "metrics": exact, "origin": row["origin"], "time": row["started_at"],
               "budget": {name: row[name] for name in ("epochs", "num_images", "image_size", "seed", "draw")},
               **{name: row[name] for name in ("candidate", "arch", "arch_id", "layout", "attributes")}}  # fmt: skip
    reports = [{**about, "event": "report", "metrics": epoch, "time": row["started_at"]} for epoch in row["curve"]]
    ended = {**about, "event": "terminal", "state": row["state"], "failure": failure, "device": row["device"],
             "metrics": {name: row[name] for name in measured}, "timings": {"wall_s": row["wall_s"]},
             "time": row["ended_at"]}  # fmt: skip
    return [started, *reports, *([] if row["state"] == "running" else [ended])]


def write_run(folder: Path, frame: pd.DataFrame, study: dict[str, Any] | None = None) -> Path:
    """A RUN with the record and the study of a frame; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": folder.name, "data_summary": {"num_val": 180}, **(STUDY if study is None else study)}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    rows = frame.to_dict("records")
    (folder / "trials.jsonl").write_bytes(b"".join(encode(event) for row in rows for event in events_of(row)))
    return folder
