"""Reads a record: its events -> trials -> a pandas table with one row a trial.

The record is the only truth about a study. ``journal.py`` has its file; this file says what the events mean.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.architecture.arch import Arch
from coatnet_search.core.document import read_source
from coatnet_search.core.errors import InputError
from coatnet_search.record.journal import NAME, Record, driver_lock, read_events, record_path, scan, uncollected
from coatnet_search.record.line import Event, encode, now
from coatnet_search.record.trial import Failure, Trial
from coatnet_search.training.budget import Budget

__all__ = [
    "Event", "Fold", "Record", "driver_lock", "encode", "fold", "fold_rows", "hours_of", "now", "read_events",
    "read_record",
    "read_trials", "record_path", "scan",
]  # fmt: skip

RUNS = Path("runs")  # of the folder one works in: a folder a study
METRICS = ("params", "macs", "activations", "val_top1", "val_top5", "val_loss", "error", "train_loss", "train_top1",
           "throughput_images_per_s", "throughput_images_per_s_spread")  # fmt: skip
BUDGET = ("epochs", "num_images", "image_size", "seed", "draw")
_DESCRIBED = ("key", "candidate", "arch", "arch_id", "layout", "budget", "origin")

Row = dict[str, Any]


def _new_row(number: int) -> Row:
    return {
        "number": number, "key": None, "state": "pending", "candidate": None, "arch": None, "arch_id": None,
        "layout": None, "budget": {}, "origin": None, "exact": {}, "metrics": {}, "attributes": {}, "curve": {},
        "failure": None, "device": None, "timings": {}, "started_at": None, "ended_at": None,
        "begun": 0, "killed": 0,
    }  # fmt: skip


def _describe(row: Row, event: Event) -> None:
    for name in _DESCRIBED:
        if event.get(name) is not None:
            row[name] = event[name]
    row["attributes"] = {**row["attributes"], **(event.get("attributes") or {})}


def _reopen(row: Row) -> None:
    row.update(state="running", failure=None, metrics=row["exact"], timings={}, ended_at=None)


def _started(row: Row, event: Event) -> None:
    if row["key"] not in (None, event.get("key")):
        row.update(_new_row(row["number"]))  # the number was given again to other work
    _describe(row, event)
    row["exact"] = event.get("metrics") or {}
    row["started_at"] = row["started_at"] or event["time"]
    _reopen(row)
    _begun(row, event)


def _begun(row: Row, event: Event) -> None:
    """A trial is in work; where that is the driver's own process (``here``), it ends with what the trial does to it."""
    row["begun"] += bool(event.get("here"))


def _interrupted(row: Row, event: Event) -> None:
    """The process of a trial is gone, or leaves it by itself, which is no fault of the trial's."""
    if event.get("counts"):
        row["killed"] += 1
    else:
        row["begun"] = max(0, row["begun"] - 1)


def _report(row: Row, event: Event) -> None:
    metrics = event["metrics"]
    row["key"] = row["key"] or event.get("key")
    if metrics.get("epoch", math.inf) > max(row["curve"], default=0):  # it has come further than any try before
        row["begun"] = min(row["begun"], 1)
    row["curve"][metrics.get("epoch", len(row["curve"]) + 1)] = metrics  # an epoch that is trained again replaces it


def _paused(row: Row, event: Event) -> None:
    _terminal(row, {**event, "state": "paused"})
    row["ended_at"] = None


def _continued(row: Row, event: Event) -> None:
    """What was measured of it and the time that it took so far stay with it."""
    _describe(row, event)
    row["exact"], timings = event.get("metrics") or {}, row["timings"]
    _reopen(row)
    row["timings"] = timings
    _begun(row, event)


def _terminal(row: Row, event: Event) -> None:
    _describe(row, event)
    row["state"], row["ended_at"], row["failure"] = event["state"], event["time"], event.get("failure")
    row["metrics"] = {**row["exact"], **(event.get("metrics") or {})}
    row["device"], row["timings"] = event.get("device"), event.get("timings") or {}
    row["begun"] = 0


def _damaged(row: Row, _event: Event) -> None:
    _reopen(row)


_APPLY = {"started": _started, "report": _report, "paused": _paused, "continued": _continued, "terminal": _terminal,
          "damaged": _damaged, "resumed": _begun, "interrupted": _interrupted}  # fmt: skip


def _curve(row: Row) -> list[Mapping[str, float]]:
    epochs = row["curve"]
    return [epochs[epoch] for epoch in sorted(epochs)]


class Fold:
    """Events of one record, added in pieces as they come -> rows."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    def add(self, events: Iterable[Event]) -> "Fold":
        for event in events:
            apply, number = _APPLY.get(event["event"]), event.get("number")
            if apply is None or number is None:
                continue
            row = self._rows.get(number)
            if row is None:
                row = self._rows[number] = _new_row(number)
            apply(row, event)
        return self

    def rows(self) -> list[Row]:
        """One plain row a trial, in order of number. A trial whose candidate was lost with a damaged line has none."""
        kept = [self._rows[number] for number in sorted(self._rows) if self._rows[number]["candidate"] is not None]
        for row in kept:
            top1 = row["metrics"].get("val_top1")
            if top1 is not None and row["metrics"].get("error") is None:
                row["metrics"] = {**row["metrics"], "error": 1 - top1}
        return kept


def fold_rows(events: Iterable[Event]) -> list[Row]:
    """One plain row a trial, in order of number; see ``Fold``."""
    return Fold().add(events).rows()


def fold(events: Iterable[Event]) -> list[Trial]:
    """Trials in order of number. Running ones carry exact costs only: what they reported so far is their curve."""
    archs: dict[str, Arch] = {}

    def arch(row: Row) -> Arch | None:
        if row["arch"] is None:
            return None
        name = row["arch_id"] or str(row["arch"])
        if name not in archs:
            try:
                archs[name] = Arch.from_dict(row["arch"])
            except InputError as error:
                raise InputError(f"trial {row['number']}: {error}") from None
        return archs[name]

    return [
        Trial(
            row["candidate"],
            row["metrics"],
            row["state"],
            number=row["number"],
            key=row["key"],
            arch=arch(row),
            budget=Budget(**row["budget"]) if row["budget"].get("epochs") is not None else None,
            curve=tuple(_curve(row)),
            attributes=row["attributes"],
            failure=Failure(**row["failure"]) if row["failure"] else None,
            device=row["device"],
            timings=row["timings"],
            tries=row["begun"] + row["killed"],
        )
        for row in fold_rows(events)
    ]


def read_trials(run: str | Path) -> list[Trial]:
    """The trials of a RUN folder or of a ``trials.jsonl``, in order of number; an absent record has none. Raises
    InputError for what is no record."""
    events = read_events(run)
    try:
        return fold(events)
    except InputError as error:
        raise InputError(f"{record_path(run)}: {error}") from None


def _numbers(values: Sequence[Any]) -> "pd.Series[Any]":
    """Whole numbers stay whole where none is missing; what is missing is NaN; other things stay what they are."""
    try:
        return pd.Series(pd.to_numeric(pd.Series(values, dtype=object)))
    except (ValueError, TypeError):
        return pd.Series(values, dtype=object)


def _names(rows: Sequence[Row], part: str, first: Sequence[str]) -> list[str]:
    found = {name for row in rows for name in row[part]}
    return [*first, *sorted(found - set(first))]


def _times(rows: Sequence[Row], name: str) -> "pd.Series[Any]":
    return pd.Series(pd.to_datetime([row[name] for row in rows], format="ISO8601", utc=True))


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """The documented table of folded rows; see ``read_record``."""
    columns: dict[str, Any] = {}
    for name in ("number", "key", "state", "arch_id", "layout", "candidate"):
        columns[name] = pd.Series([row[name] for row in rows], dtype=int if name == "number" else object)
    for name in _names(rows, "metrics", METRICS):
        columns[name] = _numbers([row["metrics"].get(name) for row in rows])
    for name in BUDGET:
        columns[name] = _numbers([row["budget"].get(name) for row in rows])
    columns["epoch"] = _numbers([max(row["curve"], default=None) for row in rows])
    columns["device"] = pd.Series([row["device"] for row in rows], dtype=object)
    for name in ("kind", "message"):
        columns[f"failure_{name}"] = pd.Series([(row["failure"] or {}).get(name) for row in rows], dtype=object)
    for name in _names(rows, "timings", ("wall_s",)):
        columns.setdefault(name, _numbers([row["timings"].get(name) for row in rows]))
    columns["origin"] = pd.Series([row["origin"] for row in rows], dtype=object)
    columns |= {name: _times(rows, name) for name in ("started_at", "ended_at")}
    columns["curve"] = pd.Series([_curve(row) for row in rows], dtype=object)
    for name in ("arch", "attributes"):
        columns[name] = pd.Series([row[name] for row in rows], dtype=object)
    return pd.DataFrame(columns)


def hours_of(events: Sequence[Event]) -> float:
    """Hours for which the sessions of a record ran, each from its beginning to its last event."""
    total, begun, last = 0.0, None, None
    for event in events:
        moment = datetime.fromisoformat(event["time"])
        if event["event"] == "session" or begun is None:
            total += (last - begun).total_seconds() if begun and last else 0.0
            begun = moment
        last = moment
    return (total + ((last - begun).total_seconds() if begun and last else 0.0)) / 3600


def study_path(run: str | Path) -> Path:
    """RUN/study.yaml; of a record in a file of its own, ``NAME.jsonl``, the file ``NAME.yaml`` beside it."""
    path = record_path(run)
    return path.with_suffix(".yaml") if path.name != NAME else path.with_name("study.yaml")


def read_values(path: Path) -> dict[str, Any]:
    """The resolved study of a RUN. Raises InputError where there is none, or the file is no plain YAML."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} the folder of a run?")
    return read_source(path).value


def study_of(run: str | Path) -> dict[str, Any]:
    """What the resolved study of a record says; empty where there is none. Raises InputError for a damaged file."""
    path = study_path(run)
    return read_source(path).value if path.is_file() else {}


def no_run(run: Path) -> str:
    """What is said where a folder is no run's: which one was probably meant."""
    known = sorted({str(path.parent) for place in (RUNS, run.parent) for path in place.glob("*/study.yaml")})
    close = difflib.get_close_matches(str(run), known, n=1, cutoff=0.5)
    close = close or [name for name in known if difflib.SequenceMatcher(None, Path(name).name, run.name).ratio() > 0.6]
    hint = f"did you mean {close[0]}?" if close else f"runs here: {', '.join(known[:20])}" if known else "no runs here"
    what = "no record of a run is there" if run.exists() else "no such folder"
    return f"{run}: {what}; {hint}"


def read_record(run: str | Path) -> pd.DataFrame:
    """A table with one row a trial, in order of number; a number that is missing is NaN.

    Columns: number, key, state, arch_id, layout, candidate (dict); metrics: params, macs, activations, val_top1,
    val_top5, val_loss, error, train_loss, train_top1, throughput_images_per_s and its _spread, then all others by name;
    the budget: epochs, num_images, image_size, seed, draw; epoch (the last that was reported), device, failure_kind,
    failure_message, wall_s and other timings in seconds, origin, started_at, ended_at (UTC), curve (list of dicts, one
    an epoch), arch (dict), attributes (dict). ``attrs`` has ``run``, ``study`` (its name) and,
    where they are known, ``num_val`` (validation images) and ``num_classes``.

    Metrics of a running trial are its exact costs; what it reported so far is its curve. Accuracies are fractions. A
    study of which no trial was begun has no rows. Raises InputError where there is neither a record nor a study.
    """
    path = record_path(run)
    if not path.is_file() and not study_path(run).is_file():
        raise InputError(no_run(Path(run)))
    with uncollected():
        return named(frame_of(fold_rows(read_events(path))), path)


def named(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The frame with ``attrs`` that say which record it is of, on how many validation images it was scored, and among
    how many classes."""
    study = study_of(path)
    frame.attrs.update(run=str(path.parent), study=study.get("name") or path.parent.name)
    data = study.get("data_summary") or {}
    frame.attrs.update({name: data[name] for name in ("num_val", "num_classes") if data.get(name)})
    return frame
