"""``compare OUT...``: full trainings beside each other and beside what the search saw; was the choice right?"""

import argparse

from coatnet_search.core.errors import EXIT_DONE
from coatnet_search.core.screen import Screen
from coatnet_search.full.compare import COLUMNS, conclusion, rows, shown


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    table = rows(given.outs)
    text = conclusion(table)
    screen.result({"trainings": table, "verdict": text})
    screen.table(COLUMNS, [shown(row) for row in table])
    screen.say(text)
    return EXIT_DONE
