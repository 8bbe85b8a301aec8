"""``choose RUN``: architectures by the study's rule, as YAML files with their reasons."""

import argparse
from typing import Any

from coatnet_search.choose import Choice, choose, write_choices
from coatnet_search.commands.shared import metric_columns, run_record
from coatnet_search.screen import Screen

COLUMNS = {"rank": "rank", "number": "trial", "layout": "layout", "arch_id": "architecture"}


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    frame, study = run_record(given.run)
    rule = study.get("choose") or {}
    limits = {**(rule.get("limit") or {}), **dict(given.limit)}
    choices = choose(frame, study["objectives"], limits, given.top or rule.get("top", 3))
    paths = write_choices(choices, given.run / "chosen", study=study.get("name"))
    rows = [{**_row(choice), "path": path} for choice, path in zip(choices, paths, strict=True)]
    screen.result(rows)
    metrics = [name for name in dict.fromkeys((*study["objectives"], *limits, "val_top1", "macs", "params"))
               if any(row.get(name) is not None for row in rows)]  # fmt: skip
    screen.table({**COLUMNS, **metric_columns(metrics)}, rows)
    for row in rows:
        screen.say(f"{row['rank']}. {row['reason']}")
    for path in paths:
        screen.say(f"written: {path}")
    screen.next(["profile", *paths], "their cost; --device measures their speed")
    return 0


def _row(choice: Choice) -> dict[str, Any]:
    row = choice.row
    return {
        "rank": choice.rank,
        "number": row["number"],
        "layout": row["layout"],
        "arch_id": row["arch_id"],
        "front": choice.front,
        **choice.metrics,
        "reason": choice.reason,
    }
