"""Checks one value of a study or space file: plain value in, checked value out, or Misplaced. No pydantic.

Each raises Misplaced with the place inside the value that is wrong, so that a message names line and key.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from coatnet_search.core.canonical import Scalar, digest
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.limits import Limit
from coatnet_search.core.redact import has_login
from coatnet_search.core.yaml_text import KeyPath, number_in_yaml, show

Choice = Scalar | tuple[Scalar, ...]


class Misplaced(InputError):
    """A mistake inside a value: ``at`` is the path from the value to the part that is wrong."""

    def __init__(self, message: str, at: KeyPath = ()) -> None:
        super().__init__(message)
        self.at = at


def wrong(expected: str, value: object) -> str:
    """One line: what was expected, what came, and what to write where YAML is the cause."""
    hint = ""
    if isinstance(value, str) and "number" in expected:
        number = number_in_yaml(value)
        hint = f", which YAML reads as text; write {number}" if number else ""
    elif "text" in expected and isinstance(value, bool):
        hint = "; YAML reads yes, no, on and off as true and false; put text in quotes"
    elif "text" in expected and isinstance(value, (int, float)):
        hint = "; put it in quotes"
    return f"expected {expected}, got {show(value)}{hint}"


def scalar(value: object) -> Scalar:
    """A constant: a number, text, or true/false. Text that is a number to everyone but YAML is an error."""
    if not isinstance(value, (str, int, float)):
        raise Misplaced(wrong("a number, text, or true/false", value))
    if isinstance(value, str) and number_in_yaml(value):
        raise Misplaced(wrong("a number", value))
    if isinstance(value, float) and not math.isfinite(value):
        raise Misplaced(wrong("a finite number", value))
    return value


def batch_size(value: object) -> int | str | None:
    """A whole number of images, ``best``, or null."""
    found = int(value) if isinstance(value, float) and value.is_integer() else value
    if found is None or found == "best" or (type(found) is int and found >= 1):
        return found
    raise Misplaced(wrong("a whole number of at least 1, best, or null", value))


COMPILE: dict[str, bool | Literal["graphs"]] = {"off": False, "default": True, "graphs": "graphs"}


def compile_mode(value: object) -> bool | Literal["graphs"]:
    """``off``, ``default`` or ``graphs`` as records have them: false and true, which may be written too, and graphs."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in COMPILE:
        return COMPILE[value]
    raise Misplaced(wrong("off, default or graphs", value))


def value_range(value: tuple[float, float]) -> tuple[float, float]:
    """Two numbers, the lower one first."""
    if not value[0] < value[1]:
        raise Misplaced(f"expected [low, high] with low below high, got {show(list(value))}")
    return value


def choice(value: object) -> Choice:
    """A constant, or a list of different constants: a dimension of the search."""
    if not isinstance(value, (list, tuple)):
        return scalar(value)
    if not value:
        raise Misplaced("expected at least one value to choose from, got an empty list")
    found: list[Scalar] = []
    for place, part in enumerate(value):
        try:
            one = scalar(part)
        except Misplaced as error:
            raise Misplaced(str(error), (place,)) from None
        if one in found:
            raise Misplaced(f"expected different values, got {show(one)} a second time; remove it", (place,))
        found.append(one)
    return tuple(found)


def sizes(value: object) -> int | tuple[int, ...]:
    """A choice of whole numbers of at least 1."""
    chosen = choice(value)
    wholes = [whole(part, 1, at) for at, part in parts(chosen)]
    return tuple(wholes) if isinstance(chosen, tuple) else wholes[0]


def share(value: float) -> float:
    """A part of a device as Ray counts them: a fraction of one, or whole ones."""
    if value > 1 and not float(value).is_integer():
        raise Misplaced(f"expected a fraction below 1 or a whole number, got {value:g}")
    return value


def limit(value: object) -> Limit:
    """One bound as a number, or [low, high] of which one may be null."""
    if not isinstance(value, (list, tuple)):
        return _bound(value, ())
    if len(value) != 2 or value == [None, None]:
        raise Misplaced("expected a number, or a pair [low, high] of which one may be null")
    low, high = (None if bound is None else _bound(bound, (place,)) for place, bound in enumerate(value))
    if low is not None and high is not None and low > high:
        raise Misplaced(f"expected [low, high], got {low:g} above {high:g}; exchange them")
    return low, high


def recipe(value: object) -> dict[str, Choice]:
    """A recipe's name and what replaces its values."""
    return choices(value, "a recipe", None)


def tracking_uri(value: str) -> str:
    """A URI without login: studies are copied, committed and shown. The message must not repeat it."""
    try:
        urlsplit(value)
    except ValueError:
        raise Misplaced("expected a URI such as sqlite:///runs/mlflow.db or http://127.0.0.1:5000") from None
    if has_login(value):
        raise Misplaced("expected a URI without password, token or key; give these by MLFLOW_TRACKING_USERNAME and "
                        "_PASSWORD, or MLFLOW_TRACKING_TOKEN")  # fmt: skip
    return value


def storage_uri(value: str) -> str:
    """A URI with a scheme and without keys: those are the environment's business."""
    try:
        parts = urlsplit(value)
    except ValueError:
        raise Misplaced("expected a URI such as s3://bucket/folder") from None
    if has_login(value):
        raise Misplaced("expected a URI without keys; give them by the environment (AWS_ACCESS_KEY_ID, ...)")
    if not parts.scheme or not (parts.netloc or parts.path.startswith("/")):
        raise Misplaced("expected a URI such as s3://bucket/folder or file:///shared/folder")
    return value


def data_place(value: str) -> str:
    """A path, or a URI without keys."""
    return storage_uri(value) if "://" in value else value


def safe_name(text: str) -> str:
    """A study's name as a folder name: itself if it is letters, digits, ``.``, ``_``, ``-`` and at most 64 long.

    Otherwise a slug that ends with six digits of the text's hash, so that two names stay two folders. Raises InputError
    where nothing readable is left.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) and not text.endswith("."):
        return text
    if not any(char.isalnum() for char in text):
        raise InputError(f"expected a study name with letters or digits, got {show(text)}; rename the file")
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-_")[:48].rstrip("-_")
    return f"{slug or 'study'}-{digest(text, 6)}"


def mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Misplaced(wrong("a mapping (key: value)", value))
    return value


def choices(value: object, what: str, defaults: Mapping[str, Scalar] | None) -> dict[str, Choice]:
    """Every value a choice of its default's type, every key one of the known ones (any, where None are named)."""
    checked = {}
    for key, part in mapping(value).items():
        if defaults is not None and key not in defaults:
            raise Misplaced(unknown(f"key of {what}", key[:60], defaults), (key,))
        try:
            checked[key] = choice(part)
            for at, one in parts(checked[key]):
                if defaults is not None:
                    same_type(defaults[key], one, at)
        except Misplaced as error:
            raise Misplaced(str(error), (key, *error.at)) from None
    return checked


def same_type(default: Scalar, value: Scalar, at: KeyPath) -> None:
    kinds: tuple[type, ...] = (int, float)
    expected = "a number"
    if isinstance(default, (bool, str)):
        kinds, expected = (type(default),), "true or false" if isinstance(default, bool) else "text"
    if not isinstance(value, kinds) or isinstance(value, bool) is not isinstance(default, bool):
        raise Misplaced(wrong(expected, value), at)


def whole(value: Scalar, least: int, at: KeyPath) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Misplaced(wrong(f"a whole number of at least {least}", value), at)
    return value


def _bound(value: object, at: KeyPath) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Misplaced(wrong("a number", value), at)
    return float(value)


def parts(chosen: Choice) -> Iterator[tuple[KeyPath, Scalar]]:
    """Each value of a choice with its place in it."""
    if isinstance(chosen, tuple):
        yield from (((place,), part) for place, part in enumerate(chosen))
    else:
        yield (), chosen
