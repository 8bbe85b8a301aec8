"""Writes and repairs ``RUN/trials.jsonl``: append-only JSON lines with checksums, one event a line, one writer.

Every line ends with the CRC-32 of the text before it. Events: ``session`` (a driver begins), ``started``, ``report``
(one epoch), ``paused`` (a trial reached its rung), ``continued`` (it goes on to the next one), ``terminal`` (the end of
a trial, or a candidate that was refused), ``damaged`` (a line of the trial was lost, so that it is not finished). What
a trial is follows from its events in their order: ``record.py``.
"""

import contextlib
import gc
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.redact import Redactor
from coatnet_search.core.whole_file import write_text
from coatnet_search.record.line import AROUND, CRC, SCHEMA, Event, OddLine, decode, encode, now

NAME = "trials.jsonl"
_SYNCED = ("session", "paused", "terminal")  # a report that the power cut took is an epoch; these are a trial
_logger = logging.getLogger(__name__)


def record_path(run: str | Path) -> Path:
    """The file of a RUN folder, or the file itself."""
    path = Path(run)
    return path / NAME if path.is_dir() or path.suffix != ".jsonl" else path


@dataclass(frozen=True)
class Scan:
    """What a piece of the file holds. ``end``: offset after the last whole line; ``torn``: the bytes after it."""

    events: list[Event]
    damaged: list[tuple[int, bytes]]  # (line number from the start of the piece, 1-based; the line)
    end: int
    torn: bytes


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: walking a million fresh dicts that hold no cycles doubles the reading time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def scan(path: Path, offset: int = 0, limit: int = -1) -> Scan:
    """Reads from ``offset``, at most about ``limit`` bytes but at least one whole line. No file is an empty record.

    Raises InputError for a line of a newer schema.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
            while limit > 0 and b"\n" not in data and (more := file.read(limit)):
                data += more
    except FileNotFoundError:
        return Scan([], [], offset, b"")
    *lines, torn = data.split(b"\n")
    events: list[Event] = []
    damaged, code_version = [], None
    with uncollected():
        for place, raw in enumerate(lines, 1):
            try:
                event = decode(raw, code_version)
            except OddLine as error:
                raise InputError(f"{_where(path, offset, place)}: {error}") from None
            if event is not None:
                events.append(event)
                code_version = event.get("code_version", code_version)
            elif raw.strip(AROUND):  # an empty line is nothing
                damaged.append((place, raw))
    return Scan(events, damaged, offset + len(data) - len(torn), torn)


def _where(path: Path, offset: int, place: int) -> str:
    """A line of a piece of the file, by its number in the whole file."""
    with path.open("rb") as file:
        before = file.read(offset).count(b"\n")
    return f"{path}:{before + place}"


def _whole(found: Scan) -> Scan:
    """A last line that lacks nothing but its newline counts."""
    try:
        last = decode(found.torn) if found.torn else None
    except OddLine:
        last = None
    return Scan([*found.events, last], found.damaged, found.end, b"") if last else found


def _refuse_if_nothing_is_whole(path: Path, found: Scan) -> None:
    """A file of which no line checks was not damaged by a crash: running all its trials again would be wrong."""
    if found.events or not (found.damaged or found.torn.count(CRC) > 1):
        return
    start = next((raw for _, raw in found.damaged), found.torn)
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start
    why = "it is in UTF-16: save it in UTF-8" if wide else "the file was changed as a whole, or is no record"
    raise InputError(f"{path}: no line has a right checksum ({why}); nothing is run again. Bring back the file as it "
                     "was (a copy, git), or move it away to start over")  # fmt: skip


def _victims(found: Scan) -> list[Event]:
    """A ``damaged`` event a lost line; its trial is found by key first, then by number: one of the two is intact."""
    by_key = {event["key"]: event["number"] for event in reversed(found.events) if event.get("key")}
    pairs = {(event["number"], event.get("key")) for event in found.events if event.get("number") is not None}
    events = []
    for line, raw in found.damaged:
        key_found, number_found = re.search(rb'"key":"([^"]*)"', raw), re.search(rb'"number":(\d+)', raw)
        key = key_found.group(1).decode(errors="replace") if key_found else None
        number = int(number_found.group(1)) if number_found else None
        if (number, key) not in pairs:
            number = by_key.get(key, number)
        events.append({"schema": SCHEMA, "event": "damaged", "time": now(), "number": number, "line": line})
    return events


def read_events(run: str | Path) -> list[Event]:
    """All events in order, from a RUN folder or a file; a torn last line is dropped.

    Lines with a wrong checksum are named in the log and left out; a ``damaged`` event at the end stands for each.
    """
    path = record_path(run)
    found = _whole(scan(path))
    _refuse_if_nothing_is_whole(path, found)
    victims = _victims(found) if found.damaged else []
    for victim in victims:
        _logger.warning("%s", _complaint(path, victim))
    return [*found.events, *victims]


def _complaint(path: Path, victim: Event) -> str:
    whose = "no trial can be told from it" if victim["number"] is None else f"trial {victim['number']} runs again"
    return f"{path}:{victim['line']}: wrong checksum; the line is left out, {whose}"


def _set_aside(path: Path, kind: str, content: bytes) -> Path:
    """A new file beside the record; an older one is never overwritten."""
    for count in range(1, 10_000):
        copy = path.with_name(f"{path.name}.{kind}-{count}")
        with contextlib.suppress(FileExistsError), copy.open("xb") as file:
            file.write(content)
            return copy
    raise SetupError(f"{path}: 9,999 copies named *.{kind}-N lie beside it; move them away")


def _repair(path: Path) -> None:
    """Makes the file end with a whole line and hold only lines that check; what goes is kept beside it."""
    found = scan(path)
    _refuse_if_nothing_is_whole(path, _whole(found))
    if found.torn and _whole(found).torn:
        copy = _set_aside(path, "torn", found.torn)
        _logger.warning("%s: the last line was torn; it is removed and kept in %s", path, copy.name)
        os.truncate(path, found.end)
    elif found.torn:
        with path.open("ab") as file:
            file.write(b"\n")
    if not found.damaged:
        return
    original = path.read_bytes()
    copy = _set_aside(path, "damaged", original)
    bad = {line for line, _ in found.damaged}
    kept = [raw for place, raw in enumerate(original.split(b"\n")[:-1], 1) if place not in bad]
    victims = _victims(_whole(found))
    for victim in victims:
        _logger.warning("%s; the file as it was is kept in %s", _complaint(path, victim), copy.name)
    mended = path.with_name(path.name + ".mended")
    mended.write_bytes(b"".join(raw + b"\n" for raw in kept) + b"".join(encode(victim) for victim in victims))
    shutil.copymode(path, mended)
    os.replace(mended, path)


class Record:
    """The only writer of a RUN's record, as a context manager; hold ``driver_lock`` around it.

    Opening makes the folder and repairs the file. ``append`` writes one line at once; an append that fails leaves the
    file as it was. Raises SetupError where the file cannot be written.
    """

    def __init__(self, run: str | Path) -> None:
        self.path = record_path(run)
        self._redactor = Redactor.from_environment()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                _repair(self.path)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise SetupError(f"{self.path}: the record cannot be written: {error.strerror}") from error

    def append(self, event: Mapping[str, Any]) -> None:
        """Writes ``event`` (its time is now, if it has none); ends of trials also reach the disk before it returns."""
        line = encode(event, self._redactor)
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            while written < len(line):
                written += self._file.write(line[written:])
            if event["event"] in _SYNCED:
                os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise SetupError(f"{self.path}: the record cannot be written: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def alive(pid: int) -> bool:
    """Whether a process of this host is there, also one of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return holder
    except (OSError, ValueError):  # the other driver is just starting or just ending
        return {"pid": "unknown", "host": "this host", "since": "just now"}


@contextlib.contextmanager
def driver_lock(run: str | Path) -> Iterator[None]:
    """Holds the study in RUN for this process. Raises SetupError that names the driver which holds it, and where the
    folder cannot be made or written.

    The kernel drops the lock with its process, so a killed driver leaves nothing to clean up; a worker that it forked
    may keep the lock for the seconds in which it notices, which are waited for.
    """
    folder = Path(run)
    lock, card = FileLock(folder / "driver.lock"), folder / "driver.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(card)
        here = holder["host"] == socket.gethostname()
        gone = here and isinstance(holder["pid"], int) and not alive(holder["pid"])
        try:
            lock.acquire(timeout=15 if gone else 0)
        except Timeout:
            raise SetupError(
                f"study {folder.name} is being run by pid {holder['pid']} on {holder['host']} since {holder['since']}; "
                "wait for it or stop it"
            ) from None
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}; give run --runs elsewhere") from None
    try:
        write_json(card, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        yield
    finally:
        card.unlink(missing_ok=True)
        lock.release()


def write_json(path: Path, value: object) -> None:
    """Replaces a small file in one step, so that a reader never sees half of it."""
    write_text(path, json.dumps(value))
