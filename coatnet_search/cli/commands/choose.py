"""``choose RUN``: architectures by the study's rule, as YAML files with their reasons."""

import argparse
import itertools
from collections import Counter
from typing import Any

import pandas as pd

from coatnet_search.analysis.choose import RULE, RULE_AT, Choice, choose, choose_at, peer_name, write_choices
from coatnet_search.analysis.networks import disturbed_of
from coatnet_search.analysis.rank_agreement import LEAST
from coatnet_search.analysis.scaling import fit_scaling
from coatnet_search.cli.commands.records import run_record
from coatnet_search.core.errors import InputError
from coatnet_search.core.screen import Screen
from coatnet_search.figures.search.summary import cautions, shown_columns, shown_network
from coatnet_search.study.audit_of_record import AuditedRecord, audited_record

COLUMNS = {"rank": "rank", "number": "trial", "layout": "layout", "arch_id": "architecture"}
IN_FULL = {"digits": "digits-full", "small-images": "small-images-full"}  # a search's recipe -> that of full training
PREDICTED = ("predicted_error", "p_best", "expected_regret")


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    frame, study = run_record(given.run)
    rule = study.get("choose") or {}
    if twice := [name for name, times in Counter(name for name, _ in given.limit).items() if times > 1]:
        raise InputError(f"--limit {twice[0]}: given twice; one bound of a metric can hold")
    limits = {**(rule.get("limit") or {}), **dict(given.limit)}
    top = given.top or rule.get("top", 3)
    view = audited_record(frame, study, layouts=given.layout)
    if given.layout and view is None:
        raise InputError("--layout is for studies with evaluate: inherited, whose layouts may not compare")
    if view is not None:
        frame = _compared(view, given)
        screen.say(view.decision.says[:1].upper() + view.decision.says[1:])
    if given.at_data is None:
        if given.at_compute is not None or given.beyond:
            raise InputError("--at-compute and --beyond go with --at-data")
        if study.get("equal_cost"):
            screen.note("this is a scaling study: --at-data N chooses by the error that all its runs predict; without "
                        "it the runs on the most images count alone")  # fmt: skip
        choices = choose(frame, study["objectives"], limits, top)
        by = f"{RULE}; {view.decision.says}" if view else RULE
    else:
        scaling = fit_scaling(frame, num_val=(study.get("data_summary") or {}).get("num_val"))
        screen.say(scaling.conclusion(given.at_data, compute=given.at_compute, beyond=given.beyond))
        choices = choose_at(frame, scaling, given.at_data, compute=given.at_compute, limit=limits, top=top,
                            beyond=given.beyond)  # fmt: skip
        by = RULE_AT
    elsewhere = bool(study.get("imported"))  # such runs have no architectures on record that a file could hold
    paths = [] if elsewhere else write_choices(choices, given.run / "chosen", study=study.get("name"), rule=by)
    audit = {"audit": view.decision.state} if view else {}
    rows = [{**_row(choice), **audit, "path": path} for choice, path in itertools.zip_longest(choices, paths)]
    screen.result(rows)
    metrics = [name for name in dict.fromkeys((*PREDICTED, *study["objectives"], *limits, "val_top1", "macs", "params"))
               if any(row.get(name) is not None for row in rows)]  # fmt: skip
    screen.table({**COLUMNS, **shown_columns(metrics, rows)}, [shown_network(row, metrics) for row in rows])
    for row in rows:
        screen.say(f"{row['rank']}. {row['reason']}")
    for text in _cautions(frame, study) if given.at_data is None else ():
        screen.say(text)
    for path in paths:
        screen.say(f"written: {path}")
    if elsewhere:
        screen.note("no files: runs from elsewhere have no architectures on record")
        return 0
    names = [f"timm:{peer_name(str(row['layout']))}" if str(row["layout"]).startswith("timm:") else row["path"]
             for row in rows]  # fmt: skip
    screen.next(["profile", *names], "their cost; --device measures their speed")
    recipe, data = (study.get("recipe") or {}).get("name"), study.get("data") or {}
    if recipe:
        screen.next(["train", paths[0], "--recipe", IN_FULL.get(recipe, recipe), "--data",
                     data.get("path") or (data["name"] if data["name"] == "digits" else "DATA")],
                    "trains the first in full; test accuracy comes from there alone")  # fmt: skip
    return 0


def _compared(view: AuditedRecord, given: argparse.Namespace) -> pd.DataFrame:
    """The table to choose from. Raises InputError where layouts cannot be compared and several are left."""
    if view.decision.state != "refused":
        return view.frame
    layouts = sorted(set(view.frame["layout"].dropna()))
    raise InputError(
        f"{view.decision.says}. Choose within one (--layout {layouts[0]}), or audit at least {LEAST} of each "
        f"(coatnet-search run {given.run / 'study.yaml'} --set audit.candidates={LEAST * len(layouts)})"
    )


def _cautions(frame: pd.DataFrame, study: dict[str, Any]) -> list[str]:
    data = study.get("data_summary") or {}
    return cautions(frame, study["objectives"], data.get("num_val"), data.get("note"))


def _row(choice: Choice) -> dict[str, Any]:
    row = choice.row
    return {
        "rank": choice.rank,
        "number": row["number"],
        "layout": row["layout"],
        "arch_id": row["arch_id"],
        "front": choice.front,
        "runs": row.get("runs"),
        **choice.metrics,
        "disturbed": disturbed_of(row.get("attributes")),
        "reason": choice.reason,
    }
