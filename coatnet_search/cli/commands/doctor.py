"""``doctor [STUDY]``: what is wrong with this machine, and the mend."""

import argparse
import dataclasses

from coatnet_search.cli.doctor import examine
from coatnet_search.cli.finding import Finding
from coatnet_search.core.errors import EXIT_DONE, EXIT_ENVIRONMENT, InputError
from coatnet_search.core.screen import Screen

COLUMNS = {"check": "looked at", "state": "state", "found": "found", "mend": "mend"}


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    if given.sets and not given.study:
        raise InputError("--set: there is no STUDY to set it in")
    findings = examine(given.study, given.sets, given.runs, given.address)
    screen.result([dataclasses.asdict(finding) for finding in findings])
    screen.table(COLUMNS, [dataclasses.asdict(finding) for finding in findings])
    problems = [finding for finding in findings if finding.state == "problem"]
    screen.say(_verdict(problems))
    if not problems:
        screen.next(["run", given.study or "quickstart"], "a first search")
    return EXIT_ENVIRONMENT if problems else EXIT_DONE


def _verdict(problems: list[Finding]) -> str:
    if not problems:
        return "nothing stands in the way"
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}: {', '.join(one.check for one in problems)}"
