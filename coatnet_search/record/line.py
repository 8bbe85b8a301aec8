"""One line of a record: an event with its checksum as bytes, secrets taken out, and back again, checked."""

import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from coatnet_search.core.redact import Redactor
from coatnet_search.record.event_check import oddity

SCHEMA = 1
# How an event of schema n becomes one of n + 1. Old lines stay in the file as they are and are read through these.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
CRC = b',"crc":"'
# What the record's own readers go by is never taken for a secret, whatever an environment variable holds; nor are
# those parts of failures and attributes that are our own words.
_STRUCTURE = frozenset({
    "schema", "event", "time", "number", "key", "state", "candidate", "arch", "arch_id", "layout", "budget", "origin",
    "metrics", "timings", "device", "study", "code_version",
})  # fmt: skip
_OURS: Mapping[str, Collection[str]] = {
    "failure": {"kind"},
    "attributes": {"layout", "peer", "tune", "tuned", "conditions", "disturbed", "nsga2_parents"},
}
AROUND = b"\xef\xbb\xbf \t\r"

Event = dict[str, Any]


def now() -> str:
    """This moment in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json_default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):  # a scalar of numpy or torch
        return value.item()
    raise TypeError(f"a record holds JSON, not {type(value).__name__}: {value!r:.80}")


def _finite(value: Any) -> Any:
    """NaN and the infinities as None: they are no JSON, and a number that is missing is None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(event: Mapping[str, Any]) -> str:
    try:
        return json.dumps(event, separators=(",", ":"), default=_json_default, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(event), separators=(",", ":"), default=_json_default)


def encode(event: Mapping[str, Any], redactor: Redactor = Redactor()) -> bytes:  # noqa: B008 (frozen)
    """One line with its newline: schema, event, time (now, if the event has none), the rest, crc; secrets replaced."""
    said = {
        name: redactor.value(part, _OURS[name]) if name in _OURS else part if name in _STRUCTURE
        else redactor.value(part)
        for name, part in event.items()
    }  # fmt: skip
    raw = _text({"schema": SCHEMA, "event": event["event"], "time": now(), **said}).encode()
    return raw[:-1] + CRC + f"{zlib.crc32(raw):08x}".encode() + b'"}\n'


class OddLine(ValueError):
    """A line whose checksum is right and that cannot be an event here; the message says why."""


def decode(raw: bytes, code_version: str | None = None) -> Event | None:
    """The event of a line, in this schema; None where the checksum is wrong. What git or an editor put around a line
    does not count: a carriage return, a mark of the encoding, blanks.

    ``code_version``: of the program that wrote the lines before. Raises OddLine.
    """
    head, mark, tail = raw.strip(AROUND).rpartition(CRC)
    body = head + b"}"
    if not mark or tail != f"{zlib.crc32(body):08x}".encode() + b'"}':
        return None
    try:
        event = json.loads(body.decode())  # decoding first is half as fast again
    except (ValueError, RecursionError) as error:
        raise OddLine(_not_ours(f"{type(error).__name__}: {error}"[:100])) from None
    if type(event) is not dict or type(event.get("event")) is not str:
        raise OddLine(_not_ours("expected a mapping with the text event"))
    if event.get("schema") != SCHEMA:
        event = _migrated(event, event.get("code_version", code_version))
    if what := oddity(event):
        raise OddLine(_not_ours(what))
    return event


def _migrated(event: Event, code_version: str | None) -> Event:
    schema = event.get("schema")
    if type(schema) is not int or (schema < SCHEMA and schema not in MIGRATIONS):
        raise OddLine(_not_ours(f"schema: expected a whole number of at least 1, got {str(schema)[:40]!r}"))
    if schema > SCHEMA:
        wants = f" {code_version}" if code_version else ""
        raise OddLine(f"written in schema {schema}, this version reads up to {SCHEMA}; install coatnet-search{wants} "
                      "or newer")  # fmt: skip
    while schema < SCHEMA:
        event, schema = {**MIGRATIONS[schema](event), "schema": schema + 1}, schema + 1
    return event


def _not_ours(what: str) -> str:
    return f"the checksum is right and the rest is no event of a record: {what}; was the line written by hand?"
