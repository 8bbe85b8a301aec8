"""Prints for a person (lines, tables, a live view) or for a program (one JSON value). Nothing else prints.

Whatever a text says, it stays text: no markup is read in it, and control and escape characters are shown, not sent.
"""

import json
import logging
import math
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coatnet_search.core.document import one_line
from coatnet_search.core.quantities import QUANTITIES, show

WIDE = 400  # columns where nobody looks: a table in a pipe or a file is not folded
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of Ray's and other tools' lines
_SPECIAL = re.compile(r"[^\n\t\x20-\x7e]")


def harmless(text: str) -> str:
    """The text with its lines and tabs, and all other control characters spelled out."""
    return _SPECIAL.sub(_shown, _COLOURS.sub("", text).replace("\r\n", "\n"))


def _shown(found: re.Match[str]) -> str:
    char = found.group()
    return char if char.isprintable() or unicodedata.category(char) == "Zs" else repr(char)[1:-1]


def _single(text: str, style: str = "") -> Text:
    """A text that stays on one line, for rich: as it is, without markup."""
    return Text(harmless(" ".join(text.splitlines())), style)


def _encodable(text: str, file: IO[str]) -> str:
    """The text with what the file's encoding lacks spelled out."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Screen:
    """With ``as_json`` stdout gets the value of ``result`` alone; what a person would read goes to stderr.

    ``results``: that stdout, where libraries that print were sent elsewhere.
    """

    def __init__(self, as_json: bool = False, results: TextIO | None = None) -> None:
        self.as_json, self._results = as_json, results

    def say(self, text: str = "") -> None:
        """A line (or several), as it is."""
        _write(text, sys.stderr if self.as_json else sys.stdout)

    def note(self, text: str) -> None:
        """A line on stderr: what is going on."""
        _write(text, sys.stderr)

    def warn(self, text: str) -> None:
        self.note(f"warning: {one_line(text)}")

    def table(self, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
        """``columns``: the title of each key, with its unit. Numbers stand to the right, as ``show`` has them."""
        lines = [json_values(row) for row in rows]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, title in columns.items():
            texts = any(isinstance(line.get(name), str) for line in lines)
            table.add_column(_single(title), justify="left" if texts else "right", overflow="fold")
        for line in lines:
            table.add_row(*(_single(_cell(name, line.get(name))) for name in columns))
        self._print(table)

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and what is known of each, one a line."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(_single(name), _single(one_line(text)))
        self._print(table)

    def result(self, value: Any) -> None:
        """The whole answer, for programs; without ``--json`` it is not printed."""
        if self.as_json:
            print_json(value, self._results or sys.stdout)

    def next(self, words: Sequence[object], purpose: str) -> None:
        """The command that comes next, to be copied."""
        self.say(f"next: {command(words)}   # {purpose}")

    def _print(self, table: Table) -> None:
        file = sys.stderr if self.as_json else sys.stdout
        console = _console(file)
        with console.capture() as captured:
            console.print(table)
        text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())  # tables are filled with spaces
        file.write(_encodable(text, file))


@dataclass(frozen=True, kw_only=True)
class View:
    """What a terminal shows while work goes on. ``columns``: heading -> whether it holds text; ``rows``: its cells, and
    whether the row's work is still going on; ``done``: how much of how much."""

    title: str
    columns: Mapping[str, bool]
    rows: Sequence[tuple[Sequence[str], bool]]
    done: tuple[int, int]
    foot: str

    def drawn(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, text in self.columns.items():
            table.add_column(_single(title), justify="left" if text else "right")
        for cells, going in self.rows:
            table.add_row(*(_single(cell) for cell in cells), style="cyan" if going else "")
        done, wanted = self.done
        bar = ProgressBar(total=wanted, completed=done, width=40)
        return Group(_single(self.title, "bold"), table, bar, _single(self.foot))


class LiveScreen:
    """Lines on stderr, and below them, on a terminal, what ``view`` says, drawn anew twice a second."""

    def __init__(self, view: Callable[[], View]) -> None:
        self._console = _console(sys.stderr)
        self.is_live = self._console.is_terminal
        self._live = Live(get_renderable=lambda: view().drawn(), console=self._console, refresh_per_second=2,
                          transient=True)  # fmt: skip

    def start(self) -> None:
        if self.is_live:
            self._live.start()

    def stop(self) -> None:
        if self.is_live:
            self._live.stop()

    def line(self, text: str) -> None:
        """One line above the view."""
        self._console.print(_single(_encodable(text, self._console.file)), soft_wrap=True)


class LogLines(logging.Handler):
    """What libraries and we log, where nobody has set up logging: lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(self.format(record), sys.stderr)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of Python's as one line, in place of ``warnings.formatwarning``."""
    ours = category in (UserWarning, RuntimeWarning)
    return harmless(f"warning: {one_line(str(message))}" + ("" if ours else f" ({category.__name__})")) + "\n"


def print_json(value: Any, file: TextIO) -> None:
    """A value of ours as JSON; characters that a terminal or the file's encoding would choke on are JSON's escapes."""
    text = json.dumps(json_values(value), indent=2, allow_nan=False, ensure_ascii=False)
    safe = re.sub(r"[^\n -~]", lambda found: _json_char(found.group(), file), text)
    file.write(f"{safe}\n")


def _json_char(char: str, file: TextIO) -> str:
    return char if char.isprintable() and _encodable(char, file) == char else json.dumps(char)[1:-1]


def _write(text: str, file: TextIO) -> None:
    file.write(_encodable(harmless(text), file) + "\n")
    file.flush()


def _console(file: TextIO) -> Console:
    """Reads no markup and no emoji names in any text; stdout and stderr as they are now."""
    return Console(file=file, markup=False, emoji=False, highlight=False, width=None if file.isatty() else WIDE)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) or name.removesuffix("_spread") in QUANTITIES:
        return show(name, value, unit=False)  # the unit is in the heading
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else one_line(str(value))


def command(words: Sequence[object]) -> str:
    """A command line of ours as a shell takes it."""
    return shlex.join(["coatnet-search", *(str(word) for word in words)])


def json_values(value: Any) -> Any:
    """What JSON knows: mappings, lists, numbers that are finite (others are null), text for all else."""
    if isinstance(value, Mapping):
        return {str(key): json_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(inner) for inner in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "item"):  # of numpy or torch
        return json_values(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
