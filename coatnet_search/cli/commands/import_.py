"""``import RUNS.csv``: a run of what people already have."""

import argparse

from coatnet_search.core.checks import safe_name
from coatnet_search.core.errors import InputError
from coatnet_search.core.screen import Screen
from coatnet_search.record.fold import RUNS, read_record
from coatnet_search.record.from_csv import import_runs


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    found = [pair for pairs in given.columns for pair in pairs]
    columns = dict(found)
    if len(columns) < len(found):
        raise InputError("--columns: a name is given twice")
    out = given.out or RUNS / safe_name(given.name or given.file.stem)
    made = import_runs(given.file, columns, out, name=given.name, num_val=given.num_val)
    frame = read_record(out)
    states = {str(state): int(count) for state, count in frame["state"].value_counts().items()}
    screen.result({"run": out, "trials": made.rows, "states": states, "arms": sorted(set(frame["layout"])),
                   "ignored": made.ignored, "assumed": made.assumed})  # fmt: skip
    screen.say(f"{out}: {made.rows} runs ({', '.join(f'{count} {state}' for state, count in states.items())}) of "
               f"{frame['layout'].nunique()} arms")  # fmt: skip
    for text in made.assumed:
        screen.warn(text)
    if made.ignored:
        screen.note(f"left out: {', '.join(made.ignored)}")
    screen.next(["report", out], "writes the page and the pictures")
    return 0
