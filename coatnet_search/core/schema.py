"""A YAML file checked against a dataclass: every mistake is one line with file, line and key.

``read_document("studies/x.yaml").parse(StudyFile)``; ``json_schema(StudyFile)`` is the same for editors.
"""

import functools
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from coatnet_search.core.checks import Misplaced, wrong
from coatnet_search.core.document import Source, read_source
from coatnet_search.core.errors import unknown
from coatnet_search.core.keys import INLINE, NAME
from coatnet_search.core.yaml_text import KeyPath

T = TypeVar("T")


class Document(Source):
    """A YAML file that can be checked against a dataclass."""

    def parse(self, cls: type[T]) -> T:
        """The file as ``cls``; mappings are plain dicts, sequences tuples. Raises InputError for one mistake of it."""
        try:
            checked: T = _adapter(typing.cast(Any, cls)).validate_python(self.value)
            return checked
        except ValidationError as error:
            found = [(self._place(one), one) for one in error.errors(include_url=False)]
        # An unknown key comes first: it is often the missing one in another spelling. Then by line. A list is also
        # called too short where its items are wrong, so that comes last.
        rank = {_UNKNOWN: 0, "too_short": 2}
        at, first = min(found, key=lambda pair: (rank.get(pair[1]["type"], 1), self.line(pair[0]) or 0))
        raise self.error(at, _message(cls, at, first))

    @staticmethod
    def _place(fault: Any) -> KeyPath:
        inner = fault.get("ctx", {}).get("error")
        at = tuple(part for part in fault["loc"] if part not in (NAME, INLINE))
        return (*at, *inner.at) if isinstance(inner, Misplaced) else at


def read_document(path: str | Path, text: str | None = None) -> Document:
    """Read a YAML file, or ``text``, whose name ``path`` then is: a study, a space, or free-form such as an arch.

    Raises InputError, one line with file and line, for whatever is wrong with it; SetupError where it cannot be read.
    """
    source = read_source(path, text)
    return Document(source.name, source.value, source.places)


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file that is read as ``cls``, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_adapter(cls).json_schema()}


_UNKNOWN = "unexpected_keyword_argument"
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "too_short": "at least one entry",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge:g}",
    "greater_than": "a number above {gt:g}",
    "less_than": "a number below {lt:g}",
}


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _message(cls: type, at: KeyPath, fault: Any) -> str:
    """What is wrong, in this project's words."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == _UNKNOWN:
        return unknown("key", str(at[-1])[:60], _keys(cls, at[:-1]))
    if kind == "missing":
        said = _keys(cls, at[:-1])[str(at[-1])]
        return f"this key is missing; add it ({said if said.endswith('...') else said.rstrip('.')})"
    return wrong(_EXPECTED[kind].format(**context), fault["input"])


def _dataclasses(hint: Any) -> Iterator[type]:
    """The dataclasses that a type hint mentions, at any depth."""
    if is_dataclass(hint):
        yield typing.cast(type, hint)
    for inner in typing.get_args(hint):
        yield from _dataclasses(inner)


def _keys(cls: type, at: KeyPath) -> dict[str, str]:
    """The keys that a dataclass within ``cls`` knows, with their documentation's first line."""
    for part in at:
        if isinstance(part, str):  # a number is a place in a list: its items' class is the one that was found
            cls = next(_dataclasses(typing.get_type_hints(cls, include_extras=False)[part]))
    properties = _adapter(cls).json_schema()["properties"]
    return {key: value.get("description", "") for key, value in properties.items()}
