"""``studies``: those that come with the package."""

import argparse
from typing import Any

from coatnet_search.cli.commands.spaces import shown
from coatnet_search.core import bundled
from coatnet_search.core.screen import Screen
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import layouts

COLUMNS = {"name": "study", "space": "space", "networks": "networks", "multiply_adds": "multiply-adds",
           "data": "data", "trials": "trials", "objectives": "objectives", "question": "question"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    screen.note("counting networks (the first time takes some seconds) ...")
    rows = [_row(name) for name in bundled.names("studies")]
    screen.result(rows)
    screen.table(COLUMNS, [{**shown(row), "objectives": ", ".join(row["objectives"]),
                            "trials": row["trials"] or "all planned"} for row in rows])  # fmt: skip
    screen.next(["plan", "quickstart"], "what a study will cost")
    return 0


def _row(name: str) -> dict[str, Any]:
    study = load_study(name)
    survey = study.space.survey
    return {
        "name": name,
        "question": study.file.question,
        "space": study.space.name,
        "networks": survey.size,
        "exact": survey.exact,
        "layouts": layouts(survey),
        "params": survey.params,
        "macs": survey.macs,
        "data": study.file.data.name,
        "trials": study.file.search.trials,
        "epochs": study.budget.epochs,
        "objectives": study.file.objectives,
        "resources": {name: getattr(study.file.resources, name) for name in ("cpus", "gpus", "workers")},
    }
