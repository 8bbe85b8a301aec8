"""A YAML file -> plain values with the line of each key, so that every message can name its place."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.yaml_text import KeyPath, YamlFault, read_yaml, show

MAX_BYTES = 1_000_000  # a study or a space has about a thousand


def dotted(path: Sequence[str | int]) -> str:
    """A path of keys as ``--set`` takes it: ``stages.2.width``; clipped and escaped where a key is odd."""
    parts = [str(part) for part in path]
    return ".".join(part if part.isprintable() and 0 < len(part) <= 60 else show(part) for part in parts)


def one_line(text: str) -> str:
    """The text without line breaks and other controls, so that a message stays one line of a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))


@dataclass
class Source:
    """What a YAML file says: ``value`` is plain dicts, lists and scalars, with what ``--set`` replaced."""

    name: str
    value: dict[str, Any]
    places: dict[KeyPath, int | None] = field(repr=False)
    """The line of each key or list item, counted from 1; None for what ``--set`` gave."""

    def error(self, path: Sequence[str | int], message: str) -> InputError:
        """The error to raise for a key: ``studies/x.yaml:12: recipe.lr: message``, or ``--set recipe.lr: message``.

        A key that the file lacks is placed at the line of the nearest parent that is there.
        """
        at = tuple(path)
        line = self.line(at)
        start = f"--set {dotted(at)}: " if line is None else f"{self.name}:{line}: " + (f"{dotted(at)}: " if at else "")
        return InputError(start + one_line(message))

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of a key or of its nearest parent, counted from 1; None where ``--set`` gave it."""
        at = tuple(path)
        while at not in self.places:
            at = at[:-1]
        return self.places[at]

    def set(self, assignment: str) -> None:
        """Replace or add one value in place, given as ``a.b=c``; list items count from 0: ``stages.1.width=64``.

        The value is YAML, except that whatever ``float`` takes is a number: ``2e-3``. Raises InputError.
        """
        key, equals, text = assignment.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise InputError(f"--set {show(assignment)}: expected KEY=VALUE, for example --set search.trials=20")
        try:
            value, _ = read_yaml(text.strip(), command_line=True)
        except YamlFault as fault:
            raise InputError(f"--set {dotted((*path, *fault.at))}: {one_line(fault.message)}") from None
        self._put(path, value)

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        here: Any = self.value
        at: KeyPath = ()
        for name in path[:-1]:
            key = self._key(here, at, name)
            at = (*at, key)
            if isinstance(here, dict) and here.get(name) is None:
                here[name] = {}
                self.places[at] = None
            here = here[key]
        key = self._key(here, at, path[-1])
        here[key] = value
        at = (*at, key)
        self.places = {place: line for place, line in self.places.items() if place[: len(at)] != at} | {at: None}

    def _key(self, here: Any, at: KeyPath, name: str) -> str | int:
        """The key that a part of a ``--set`` path means in the value that it is used on."""
        start = f"--set {dotted((*at, name))}: "
        if isinstance(here, dict):
            return name
        if not isinstance(here, list):
            raise InputError(f"{start}{dotted(at)} is {show(here)}, which has no keys; set {dotted(at)} itself")
        if not (name.isascii() and name.isdigit()) or int(name[:9]) >= len(here):
            raise InputError(f"{start}{dotted(at)} is a list; expected a number from 0 to {len(here) - 1}")
        return int(name)

    def dump(self) -> str:
        """The value as YAML text that ``read_source`` reads back to the same value."""
        return dump(self.value)


def dump(value: Mapping[str, Any]) -> str:
    """YAML text of plain values (tuples become lists), keys in their order, inner lists on one line."""
    return yaml.dump(
        dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, which people rarely know, and the outermost mapping always one key a line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def serialize(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            node.flow_style = False
        super().serialize(node)


def read_source(path: str | Path, text: str | None = None) -> Source:
    """Read a YAML file, or ``text`` in its place (``path`` is then only its name), whose top is a mapping.

    Raises InputError for whatever is wrong with it and SetupError where the machine refuses to read it.
    """
    name = one_line(str(path))
    try:
        content = _text(Path(path), name) if text is None else text
        if len(content) > MAX_BYTES:
            raise _too_long()
        value, lines = read_yaml(content)
        if value is None:
            raise YamlFault(1, (), "expected a mapping of keys to values, got an empty file")
        if not isinstance(value, dict):
            raise YamlFault(lines[()], (), f"expected a mapping (lines of 'key: value'), got {show(value)}")
    except YamlFault as fault:
        key = f"{dotted(fault.at)}: " if fault.at else ""
        raise InputError(f"{name}:{fault.line}: {key}{one_line(fault.message)}") from None
    return Source(name, value, dict(lines))


def _too_long() -> YamlFault:
    return YamlFault(1, (), f"expected at most {MAX_BYTES:,} bytes, got more; is this the right file?")


def _text(path: Path, name: str) -> str:
    """The file's text. Only regular files are opened (a pipe would wait for ever), and the limit is read of one."""
    if not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "not a file" if os.path.lexists(path) else "no such file"
        raise InputError(f"{name}: {what}; give the path of a YAML file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{name}: cannot be read: {error.strerror}; check its permissions") from None
    if len(content) > MAX_BYTES:
        raise _too_long()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise YamlFault(line, (), f"expected text in UTF-8, got the byte 0x{byte:02x}; save it as UTF-8") from None


def changes(at: str, before: Any, after: Any) -> Iterator[str]:
    """What differs between two plain values, as ``stages 2.width: 16 -> 24``; items of a list are counted from 1."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from changes(f"{at}.{key}" if at else str(key), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True), 1):
            yield from changes(f"{at} {place}", one, other)
    elif before != after:
        yield f"{at}: {before!r} -> {after!r}"
