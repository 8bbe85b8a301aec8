"""``merge RUN... --out DIR``: the records of several machines as one run."""

import argparse

from coatnet_search.core.screen import Screen
from coatnet_search.record.fold import read_record, study_path
from coatnet_search.record.merge import merge


def main(given: argparse.Namespace) -> int:
    screen = Screen()
    run = merge(given.runs, given.out)
    states = read_record(run)["state"].value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "no trials"
    screen.say(f"{run}: {counts}, out of {len(given.runs)} record{'s' if len(given.runs) > 1 else ''}")
    if study_path(run).is_file():
        screen.next(["report", run], "writes the page and the pictures")
    else:
        screen.note(f"no study lies beside the records; report and choose need {study_path(run)}")
    return 0
