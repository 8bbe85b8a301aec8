"""Says what is odd about an event whose checksum is right: written by another program, by hand, or by a mistake."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from coatnet_search.record.trial import STATES

Check = tuple[Callable[[Any], bool], str]  # whether a value is one, and what was expected
OF_A_TRIAL = ("started", "report", "paused", "continued", "terminal", "damaged")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "started": ("number", "key"), "report": ("number", "metrics"), "paused": ("number",), "continued": ("number",),
    "terminal": ("number", "state"), "damaged": (),
}  # fmt: skip
BUDGET = ("epochs", "num_images", "image_size", "seed", "draw")


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and -(2**63) <= value < 2**63)


def _text(value: Any) -> bool:
    return value is None or type(value) is str


def _mapping(value: Any) -> bool:
    return value is None or type(value) is dict


def _moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _metrics(value: Any) -> bool:
    return _numbers(value) and type((value or {}).get("epoch", 0)) in (int, float)


def _numbers(value: Any) -> bool:
    return value is None or (type(value) is dict and all(map(_number, value.values())))


def _budget(value: Any) -> bool:
    if not value:
        return _mapping(value)
    if type(value) is not dict:
        return False
    return not value.keys() - set(BUDGET) and all(one is None or _whole(one) for one in value.values())


def _failure(value: Any) -> bool:
    if value is None:
        return True
    if type(value) is not dict or value.keys() - {"kind", "message", "traceback"}:
        return False
    return type(value.get("kind")) is str and type(value.get("message")) is str and _text(value.get("traceback"))


CHECKS: Mapping[str, Check] = {
    "time": (_moment, "a moment with its time zone (ISO 8601)"),
    "number": (lambda value: value is None or _whole(value), "a whole number"),
    "key": (_text, "text"), "layout": (_text, "text"), "arch_id": (_text, "text"), "origin": (_text, "text"),
    "device": (_text, "text"),
    "state": (lambda value: type(value) is str and value in STATES, f"one of {', '.join(STATES)}"),
    "candidate": (_mapping, "a mapping"), "arch": (_mapping, "a mapping"), "attributes": (_mapping, "a mapping"),
    "metrics": (_metrics, "a mapping of names to numbers"), "timings": (_numbers, "a mapping of names to numbers"),
    "budget": (_budget, f"whole numbers for {', '.join(BUDGET)}"),
    "failure": (_failure, "a mapping with kind and message"),
}  # fmt: skip


def oddity(event: Mapping[str, Any]) -> str | None:
    """What an event of this schema should have and has not, as ``number: expected a whole number``; None: it is fine.

    Events and keys that are not known here are no mistake: a newer program may have written them.
    """
    for name, value in event.items():
        check = CHECKS.get(name)
        if check and not check[0](value):
            return f"{name}: expected {check[1]}"
    missing = [name for name in ("time", *NEEDED.get(event["event"], ())) if event.get(name) is None]
    return f"{missing[0]} is missing" if missing else None
