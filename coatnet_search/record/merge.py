"""Joins the records of several machines into one record of the same study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from coatnet_search.core.errors import InputError
from coatnet_search.core.redact import Redactor
from coatnet_search.record.fold import Event, Record, fold_rows, now, read_events, record_path, study_of, study_path
from coatnet_search.record.journal import NAME

SAME = ("space", "objectives", "data", "recipe", "evaluate", "measure", "conditions")
_ELSEWHERE = ("path", "workers", "download")  # of the data: where it lies on a machine; its digest is in every key
_BEST_FIRST = ("done", "stopped", "refused", "failed", "paused", "running", "pending")


def merge(sources: Sequence[str | Path], out: str | Path) -> Path:
    """Writes the trials of all ``sources`` (RUN folders, or published records) into the new RUN folder ``out`` and
    returns it; its study is that of the first source that has one.

    Trials are ordered by their start and numbered anew; of those with one key the finished one is kept, the earlier one
    among equals. Raises InputError where a source has no record, ``out`` has one, or the studies differ.
    """
    paths, target = [record_path(source) for source in sources], record_path(out)
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: there is no record to merge")
    if target.exists():
        raise InputError(f"{target}: there is a record already; give a folder without one")
    studies = [(path, study) for path in paths if (study := study_of(path))]
    for path, study in studies[1:]:
        _same_study(studies[0], (path, study))
    histories = [read_events(path) for path in paths]
    with Record(target) as record:
        names = [path.parent.name if path.name == NAME else path.name for path in paths]
        record.append({"event": "session", "merged_from": names})
        for event in _renumbered(histories):
            record.append(event)
    if studies:
        values = Redactor().value(studies[0][1])  # of an older version, which took logins in URIs
        study_path(target).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return target.parent


def _same_study(one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]) -> None:
    first, second = _identity(one[1]), _identity(other[1])
    for name in sorted({*first, *second}):
        if first.get(name, "nothing") != second.get(name, "nothing"):
            raise InputError(
                f"{other[0].parent} is another study than {one[0].parent}: {name} is "
                f"{second.get(name, 'nothing')!r}, there it is {first.get(name, 'nothing')!r}"
            )


def _identity(study: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that must agree, flat: {"space.stages.1.width": [32, 48], ...}."""
    data = study.get("data")
    parts = {name: study[name] for name in SAME if name in study}
    if isinstance(data, Mapping):
        parts["data"] = {name: value for name, value in data.items() if name not in _ELSEWHERE}
    return dict(_flat(parts))


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        pairs = list(enumerate(value, 1))
    else:
        return [(name, value)]
    return [flat for key, part in pairs for flat in _flat(part, f"{name}.{key}" if name else str(key))]


def _renumbered(histories: Sequence[Sequence[Event]]) -> list[Event]:
    """All sessions, then the events of each trial that is kept, under its new number."""
    sessions = [event for events in histories for event in events if event["event"] == "session"]
    found: list[tuple[int, str, int, int, str | None]] = []
    of_trial: dict[tuple[int, int], list[Event]] = {}
    for source, events in enumerate(histories):
        for event in events:
            if event.get("number") is not None and event["event"] != "session":
                of_trial.setdefault((source, event["number"]), []).append(event)
        for row in fold_rows(events):
            started = row["started_at"] or row["ended_at"] or now()
            found.append((_BEST_FIRST.index(row["state"]), started, source, row["number"], row["key"]))
    best: dict[Any, tuple[str, int, int]] = {}
    for _rank, started, source, number, key in sorted(found, key=lambda row: row[:4]):
        best.setdefault(key if key is not None else (source, number), (started, source, number))
    kept = [of_trial[source, number] for _started, source, number in sorted(best.values())]
    return [*sessions, *({**event, "number": number} for number, events in enumerate(kept) for event in events)]
