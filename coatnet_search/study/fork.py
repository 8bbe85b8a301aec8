"""Copies the trials of one study's record that a changed study would run alike into the changed one."""

from pathlib import Path

from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import Record, fold, read_events, record_path
from coatnet_search.record.trial import TERMINAL
from coatnet_search.study.study import Study


def fork(study: Study, source: Path, target: Path) -> str | None:
    """Writes the record of ``target`` from that of ``source``: its ended trials whose networks are in the study's space
    and whose keys (network, budget, data, recipe, evaluator) are what the study would give them, numbered anew.

    A line that says how many; None where ``target`` has a record, which then goes on.
    """
    if record_path(target).exists():
        return None
    events = read_events(source)
    ended = [trial for trial in fold(events) if trial.state in TERMINAL and trial.arch and trial.budget]
    kept = [
        trial.number
        for trial in ended
        if trial.arch and study.key(trial.arch, trial.budget) == trial.key and not study.space.problems(trial.candidate)
    ]
    numbers = {number: place for place, number in enumerate(kept)}
    with Record(target) as record:
        record.append({"event": "session", "forked_from": source.name})
        for event in events:
            if event.get("number") in numbers:
                record.append({**event, "number": numbers[event["number"]]})
    return f"{target.name} starts with {len(kept)} of the {len(ended)} trials of {source}; the others were other work"


def check_source(source: Path, target: Path) -> None:
    """Raises InputError where there is no record to start from, or where it would be its own."""
    if source == target:
        raise InputError(f"--fork {target.name}: this is the study's own name; give another")
    if not record_path(target).exists() and not record_path(source).is_file():
        raise InputError(f"--fork: {record_path(source)}: no such file; there is nothing to start from")
