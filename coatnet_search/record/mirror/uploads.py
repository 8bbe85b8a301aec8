"""Record events -> what is sent to MLflow for them. Pure: no server, no clock, no MLflow.

The same record always gives the same uploads, times included, so that sending one again changes nothing.
"""

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from coatnet_search.record.fold import Event, Row, fold_rows

STATUS = {"running": "RUNNING", "done": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "refused": "FAILED"}
# MLflow's own limits; a longer value is cut, a longer name too
MAX_NAME, MAX_PARAM, MAX_TAG = 250, 6000, 5000


class Point(NamedTuple):
    """One value of a metric. ``time_ms``: Unix time in milliseconds; ``step``: the epoch, 0 before the first."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass
class Upload:
    """What some events of one trial add to its MLflow run; ``status`` and ``end_ms`` None: nothing new."""

    identity: str
    run_name: str
    start_ms: int
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    arch: Mapping[str, Any] | None = None
    status: str | None = None
    end_ms: int | None = None


def clean_name(name: object) -> str:
    """A name that MLflow takes: letters, digits, ``_ - . : /`` and space; no path that means another one."""
    safe = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", str(name))[:MAX_NAME]
    if posixpath.normpath(safe) != safe or safe == "." or safe.startswith(("..", "/")):
        safe = safe.replace("/", "_").lstrip(".") or "_"
    return safe


def time_ms(moment: str) -> int:
    """ISO 8601 -> Unix time in milliseconds."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def identity_of(number: int, key: str | None) -> str:
    return f"{number}:{key}"


def final_states(events: Iterable[Event]) -> dict[str, str]:
    """{identity: state} of the trials of a record that have ended."""
    rows: list[Row] = fold_rows(events)
    return {identity_of(row["number"], row["key"]): row["state"] for row in rows if row["ended_at"]}


@dataclass
class _Progress:
    """What the uploads so far have said about a trial."""

    upload: Upload
    epoch: int = 0
    last: dict[str, float] = field(default_factory=dict)


class Planner:
    """Turns events, in their order and from the first one on, into uploads; remembers what they have said.

    An epoch that is trained again after a crash is not sent again: MLflow would show both.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.running: set[str] = set()
        self._trials: dict[str, _Progress] = {}

    def plan(self, events: Iterable[Event]) -> list[Upload]:
        """One upload for each trial that the events are about, in the order in which they appear."""
        uploads: dict[str, Upload] = {}
        for event in events:
            kind, number = event["event"], event.get("number")
            if number is None or kind not in ("started", "report", "paused", "continued", "terminal"):
                continue
            identity = identity_of(number, event.get("key"))
            progress = self._trials.get(identity)
            if progress is None:
                progress = self._trials[identity] = _Progress(Upload(identity, str(number), time_ms(event["time"])))
            if identity not in uploads:
                begun = progress.upload
                progress.upload = uploads[identity] = Upload(identity, begun.run_name, begun.start_ms)
            if kind == "report":
                self._report(progress, event)
            else:
                self._describe(progress, event)
                self._state(progress, event)
        return list(uploads.values())

    def _points(self, progress: _Progress, metrics: Mapping[str, Any], event: Event, step: int) -> None:
        moment = time_ms(event["time"])
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            if progress.last.get(name) != value or event["event"] == "report":
                progress.last[name] = value
                progress.upload.points.append(Point(clean_name(name), float(value), moment, step))

    def _report(self, progress: _Progress, event: Event) -> None:
        metrics = {name: value for name, value in event["metrics"].items() if name != "epoch"}
        epoch = int(event["metrics"].get("epoch") or progress.epoch + 1)
        if epoch > progress.epoch:
            progress.epoch = epoch
            self._points(progress, metrics, event, epoch)

    def _describe(self, progress: _Progress, event: Event) -> None:
        upload = progress.upload
        if event.get("candidate") is not None:
            named = {**event["candidate"], "arch_id": event.get("arch_id"), "layout": event.get("layout")}
            named |= {f"budget.{name}": value for name, value in (event.get("budget") or {}).items()}
            upload.params |= {clean_name(k): str(v)[:MAX_PARAM] for k, v in named.items() if v is not None}
            upload.arch = event.get("arch")
            upload.run_name = " ".join(
                str(part) for part in (event["number"], event.get("layout"), event.get("arch_id")) if part is not None
            )
        named = {name: event.get(name) for name in ("number", "key", "layout", "arch_id", "origin", "device")}
        if event.get("reused"):
            named["reused"] = "true"
        upload.tags |= {name: str(value)[:MAX_TAG] for name, value in named.items() if value is not None}
        upload.tags["study"] = self.study
        self._points(progress, event.get("metrics") or {}, event, progress.epoch)

    def _state(self, progress: _Progress, event: Event) -> None:
        upload, state = progress.upload, "paused" if event["event"] == "paused" else "running"
        if event["event"] == "terminal":
            state = event["state"]
            upload.end_ms = time_ms(event["time"])
            self._points(progress, event.get("timings") or {}, event, progress.epoch)
            failure = event.get("failure") or {}
            upload.tags |= {f"failure_{name}": str(failure[name])[:MAX_TAG] for name in ("kind", "message") if failure}
            upload.tags["front"] = "false"  # until the driver says which keys are on it
        upload.status, upload.tags["state"] = STATUS.get(state, "RUNNING"), state
        (self.running.add if state == "running" else self.running.discard)(upload.identity)
