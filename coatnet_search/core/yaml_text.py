"""YAML text as plain values with the line of each key and item: safe, and bounded in every direction.

Built on PyYAML's event stream, not on its object constructors: nothing in a file can name a Python object, and nesting,
size and aliases are bounded while the file is read, not after it has filled the memory.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.reader import Reader
from yaml.resolver import Resolver

KeyPath = tuple[str | int, ...]

MAX_VALUES = 20_000  # with aliases written out; a study or a space has about a hundred
MAX_DEPTH = 20
MAX_WHOLE = 2**63  # beyond it neither JSON readers nor numpy agree on what a whole number is

_RESOLVER = Resolver()
_OCTAL = re.compile(r"[-+]?0[0-7_]*[0-7]")
# Control characters and halves of surrogate pairs, which quoted text can name by escapes.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# What PyYAML says, and what a person can do about it. The context line is where an open bracket or quote starts.
_SYNTAX = (
    ("mapping values are not allowed", "a ':' that starts no key; check the indentation, or put the text in quotes"),
    ("mapping keys are not allowed", "a '?' or ':' that starts no key; put the text in quotes"),
    ("sequence entries are not allowed", "a '-' that starts no list; start the list in a line of its own"),
    ("could not find expected ':'", "expected 'key: value'; a ':' is missing or the indentation is wrong"),
    ("expected ',' or ']'", "a bracket '[' that is opened here is not closed, or a ',' is missing"),
    ("expected ',' or '}'", "a brace '{' that is opened here is not closed, or a ',' is missing"),
    ("while scanning a quoted scalar", "a quote that is opened here is not closed"),
    ("expected <block end>", "the indentation does not match the lines above"),
    ("expected '<document start>'", "the indentation does not match the lines above"),
    ("while scanning a block scalar", "a text after | or > starts in the next line, indented"),
    ("tag", "tags (!name) are not allowed; remove it, or put the text in quotes"),
    ("directive", "lines that start with % are not known here; remove it, or put the text in quotes"),
    ("while scanning an a", "a text that starts with & or * must be put in quotes"),  # an anchor, an alias
    ("cannot start any token", "a text that starts with this character must be put in quotes"),
    ("unknown escape character", "a '\\' in double quotes starts an escape; use single quotes"),
    ("expected the node content", "a value is missing, or a bracket is closed too early"),
    ("incompatible YAML document", "expected YAML 1.1 or 1.2; remove the line that starts with %"),
)


class YamlFault(Exception):
    """A mistake found while reading, before it is known how its place is printed."""

    def __init__(self, line: int, at: KeyPath, message: str) -> None:
        super().__init__(message)
        self.line, self.at, self.message = line, at, message


def show(value: object) -> str:
    """A value as a message prints it: short, on one line, in YAML's words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]


def read_yaml(text: str, *, command_line: bool = False) -> tuple[Any, dict[KeyPath, int]]:
    """The value of a YAML text and the line of every key and item. Raises YamlFault."""
    odd = Reader.NON_PRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise YamlFault(line, (), f"expected text, got the character {odd.group()!r}; is this a YAML file?")
    reading = _Reading(command_line)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            reading.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, reading.line) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # chr() of an escape that is no character
        raise YamlFault(reading.line, reading.here, "an escape in a quoted text names no character") from None
    return reading.root, reading.lines


@dataclass
class _Open:
    """A list or mapping that is being read."""

    value: Any
    at: KeyPath
    line: int
    anchor: str | None
    key: str | None = None
    key_line: int = 0


def _syntax(error: yaml.MarkedYAMLError, text: str, last: int) -> YamlFault:
    """PyYAML's complaint in words that say what to do, at the line where the mistake starts."""
    said = f"{error.context or ''} {error.problem or ''}"
    mend = next((mend for part, mend in _SYNTAX if part in said), said.strip())
    mark = error.context_mark if error.context_mark and "opened here" in mend else error.problem_mark
    line = mark.line + 1 if mark else last
    rows = text.splitlines()
    nearby = {number for found in (error.problem_mark, error.context_mark) if found for number in (found.line,)}
    for number in sorted(nearby):
        indent = rows[number][: len(rows[number]) - len(rows[number].lstrip())] if number < len(rows) else ""
        if "\t" in indent:
            return YamlFault(number + 1, (), "not valid YAML: a tab at the start of the line; indent with spaces")
    return YamlFault(line, (), f"not valid YAML: {mend}")


class _Reading:
    """Builds plain values from YAML events with a stack of its own, so that no nesting can exhaust Python's."""

    def __init__(self, command_line: bool) -> None:
        self.command_line = command_line
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {(): 1}
        self.line = 1
        self._documents = 0
        self._values = 0
        self._stack: list[_Open] = []
        self._anchors: dict[str, Any] = {}

    @property
    def here(self) -> KeyPath:
        """The path of the value that comes next."""
        if not self._stack:
            return ()
        top = self._stack[-1]
        last = len(top.value) if isinstance(top.value, list) else top.key
        return top.at if last is None else (*top.at, last)

    def fault(self, message: str) -> YamlFault:
        return YamlFault(self.line, self.here, message)

    def take(self, event: Any) -> None:
        """Use one event of the parser."""
        self.line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            tag = show(str(event.tag).replace("tag:yaml.org,2002:", "!!", 1))
            raise self.fault(f"the tag {tag} is not allowed; remove it, and put text in quotes")
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self.fault("expected one document, got a second one; remove it with its '---'")
            case yaml.AliasEvent():
                self._attach(self._copy(str(event.anchor)))
            case yaml.ScalarEvent():
                value = self._scalar(event.value, plain=event.implicit[0])
                if event.anchor:
                    self._anchors[event.anchor] = value
                self._attach(value)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self._stack.pop()
                self.line = done.line
                if done.anchor:
                    self._anchors[done.anchor] = done.value
                self._attach(done.value)

    def _begin(self, value: Any, anchor: str | None) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise self.fault(f"expected at most {MAX_DEPTH} levels of nesting, got more")
        if self._stack and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None:
            raise self.fault("expected a key that is text, got a list or a mapping")
        if anchor:
            self._anchors.pop(anchor, None)  # an anchor that is used inside itself is unknown there
        self._stack.append(_Open(value, self.here, self.line, anchor))

    def _attach(self, value: Any) -> None:
        """Put a finished value where it belongs: a key, the value of a key, an item, or the document itself."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise self.fault(f"expected at most {MAX_VALUES:,} values with aliases written out, got more")
        if not self._stack:
            self.root, self.lines[()] = value, self.line
            return
        top = self._stack[-1]
        if isinstance(top.value, dict) and top.key is None:
            top.key, top.key_line = self._check_key(top, value), self.line
            return
        self.lines[self.here] = top.key_line or self.line
        if isinstance(top.value, list):
            top.value.append(value)
        else:
            top.value[top.key], top.key, top.key_line = value, None, 0

    def _check_key(self, top: _Open, key: Any) -> str:
        if not isinstance(key, str):
            hint = "; yes, no, on and off are read as true and false" if isinstance(key, bool) else ""
            raise self.fault(f"expected a key that is text, got {show(key)}{hint}; put it in quotes")
        if key in top.value:
            first = self.lines[(*top.at, key)]
            raise YamlFault(self.line, (*top.at, key), f"this key is already in line {first}; remove one of the two")
        return key

    def _copy(self, anchor: str) -> Any:
        """The value of an alias, written out: its size and depth count like any others."""
        if anchor not in self._anchors:
            raise self.fault(f"no anchor &{anchor[:40]} before this alias; define it above, or write the value out")
        values, depth = _extent(self._anchors[anchor])
        self._values += values
        if self._values > MAX_VALUES:
            raise self.fault(f"expected at most {MAX_VALUES:,} values with aliases written out, got more")
        if len(self._stack) + depth > MAX_DEPTH:
            raise self.fault(f"expected at most {MAX_DEPTH} levels of nesting with aliases written out, got more")
        return copy.deepcopy(self._anchors[anchor])

    def _scalar(self, text: str, *, plain: bool) -> Any:
        odd = _UNPRINTABLE.search(text)
        if odd:
            raise self.fault(f"expected printable text, got the character {odd.group()!r}; remove it")
        if not plain:
            return text
        if text == "<<":
            raise self.fault("merge keys (<<) are not known here; write the keys out")
        value = _number(text) if self.command_line else None
        if value is None:
            kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]  # type: ignore[no-untyped-call]
            value = self._resolved(text, kind)
        if isinstance(value, (int, float)) and not -MAX_WHOLE < value < MAX_WHOLE and not _fits(value):
            raise self.fault(f"expected a finite number of ordinary size, got {show(text)}")
        return value

    def _resolved(self, text: str, kind: str) -> Any:
        """The value of an unquoted scalar by YAML 1.1, except where it would read another number than is meant."""
        digits = text.replace("_", "").lower()
        if kind in ("int", "float") and ":" in text:
            raise self.fault(f"{show(text)} is a number to the base of 60 in YAML; put it in quotes if it is text")
        if kind == "int" and _OCTAL.fullmatch(text):
            raise self.fault(f"{show(text)} is an octal number in YAML; write it without the leading 0, or in quotes")
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() in ("yes", "true", "on")
            case "int":
                return int(digits, 0) if len(digits) <= 70 else MAX_WHOLE
            case "float":
                return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        return text


def _fits(value: float) -> bool:
    """Whether a number beyond the whole ones' limit is an ordinary float."""
    return isinstance(value, float) and abs(value) < float("inf")


def _number(text: str) -> int | float | None:
    """The number that ``int`` or ``float`` reads in a text with a digit; None where they don't."""
    if len(text) > 70 or not any(char.isdigit() for char in text):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def number_in_yaml(text: str) -> str | None:
    """How YAML 1.1 wants a number that it takes for text: ``2e-3`` is ``2.0e-3``. None where it is no number."""
    value = _number(text.strip())
    if value is None or abs(value) == float("inf"):
        return None
    mantissa, e, exponent = text.strip().lower().partition("e")
    if not e or isinstance(value, int):
        return repr(value)
    sign = "" if exponent.startswith(("+", "-")) else "+"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"


def _extent(value: Any) -> tuple[int, int]:
    """How many values a value holds, itself included, and how deep they are nested."""
    if not isinstance(value, (dict, list)):
        return 1, 0
    inner = [_extent(part) for part in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
