"""``run STUDY``: run it, or resume it where it was left."""

import argparse
from typing import Any

from coatnet_search.cli.commands.shared import checked_study, study_words
from coatnet_search.core.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_TRIALS_FAILED
from coatnet_search.core.screen import Screen, command
from coatnet_search.figures.search.summary import failures
from coatnet_search.record.fold import read_record
from coatnet_search.search.run import Outcome, run

CAUSES = {"count": "trials", "kind": "cause", "trial": "first", "message": "message"}


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    study = checked_study(given)
    resume = ["run", *study_words(given), *_how(given)]
    try:
        outcome = run(study, local=given.local, address=given.address, workers=given.workers, minutes=given.minutes,
                      fork=given.fork, runs=given.runs)  # fmt: skip
    except KeyboardInterrupt:
        screen.note(f"resume with: {command(resume)}")
        raise
    if outcome.note:
        screen.note(outcome.note)
    causes = failures(read_record(outcome.run))
    failed = [cause for cause in causes if cause["kind"] != "limit"] if outcome.failed else []
    _tell(screen, outcome, failed)
    if not outcome.complete:
        screen.next(resume, "goes on where it was left")
    else:
        screen.next(["report", outcome.run], "writes the page and the pictures")
    screen.result(_result(outcome, failed, command(resume)))
    if not outcome.complete:
        return EXIT_INTERRUPTED
    return EXIT_SOME_TRIALS_FAILED if outcome.failed else EXIT_DONE


def _how(given: argparse.Namespace) -> list[str]:
    """The words that say how to run, which may differ on resume."""
    words = ["--local"] if given.local else []
    for name in ("address", "workers", "minutes", "fork"):
        value = getattr(given, name)
        words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    return words if str(given.runs) == "runs" else [*words, "--runs", str(given.runs)]


def _tell(screen: Screen, outcome: Outcome, failed: list[dict[str, Any]]) -> None:
    text = f"{outcome.run}: {outcome.finished} trial{'' if outcome.finished == 1 else 's'} finished"
    if not outcome.complete:
        text = f"{outcome.run}: {outcome.finished} of {outcome.wanted} trials finished, work is left"
    elif outcome.settled:
        text += f" of {outcome.wanted}; settled: {outcome.settled}"
    elif outcome.ended_early:
        text += f"; ended early: {outcome.ended_early}"
    elif outcome.finished + outcome.stopped < outcome.wanted:
        text += f"; the space has no more than that, {outcome.wanted} were asked for"
    text += f", {outcome.stopped} stopped at their rungs" if outcome.stopped else ""
    screen.say(text + (f", {outcome.failed} of them failed" if outcome.failed else ""))
    if failed:
        screen.table(CAUSES, failed)


def _result(outcome: Outcome, failed: list[dict[str, Any]], resume: str) -> dict[str, Any]:
    return {
        "run": outcome.run,
        "complete": outcome.complete,
        "finished": outcome.finished,
        "failed": outcome.failed,
        "stopped": outcome.stopped,
        "settled": outcome.settled,
        "ended_early": outcome.ended_early,
        "failures": failed,
        "note": outcome.note,
        "resume": None if outcome.complete else resume,
    }
