"""``spaces``: those that come with the package."""

import argparse
from typing import Any

from coatnet_search.core import bundled
from coatnet_search.core.quantities import show
from coatnet_search.core.screen import Screen
from coatnet_search.space.space import load_space
from coatnet_search.study.plan import layouts

COLUMNS = {"name": "space", "networks": "networks", "multiply_adds": "multiply-adds", "parameters": "parameters",
           "description": "what for"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    screen.note("counting networks (the first time takes some seconds) ...")
    rows = [space_row(name) for name in bundled.names("search_spaces")]
    screen.result(rows)
    screen.table(COLUMNS, [shown(row) for row in rows])
    screen.next(["studies"], "the questions that are asked of them")
    return 0


def space_row(name: str) -> dict[str, Any]:
    """One space: its size, how many networks of each layout, and [least, most] of params and macs."""
    space = load_space(name)
    survey = space.survey
    return {
        "name": name,
        "description": space.file.description,
        "image_size": space.file.image_size,
        "networks": survey.size,
        "exact": survey.exact,
        "layouts": layouts(survey),
        "params": survey.params,
        "macs": survey.macs,
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its ranges as a person reads them."""
    about = "" if row["exact"] else "about "
    return {**row, "networks": f"{about}{row['networks']:,}", "multiply_adds": _range("macs", row["macs"]),
            "parameters": _range("params", row["params"])}  # fmt: skip


def _range(name: str, ends: tuple[int, int]) -> str:
    return f"{show(name, ends[0])} to {show(name, ends[1])}"
