"""Prints what a verb found: tables and lines for a person, or one JSON value for a program."""

import json
import math
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coatnet_search.core.document import one_line
from coatnet_search.core.quantities import QUANTITIES, show

WIDE = 400  # columns where nobody looks: a table in a pipe or a file is not folded


class Screen:
    """With ``as_json`` stdout gets the value of ``result`` alone; what a person would read goes to stderr.

    ``results``: that stdout, where libraries that print were sent elsewhere.
    """

    def __init__(self, as_json: bool = False, results: TextIO | None = None) -> None:
        self.as_json, self._results = as_json, results

    def say(self, text: str = "") -> None:
        """A line, as it is."""
        self._console().print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line on stderr: what is going on."""
        self._console(stderr=True).print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {one_line(text)}")

    def table(self, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
        """``columns``: the title of each key, with its unit. Numbers stand to the right, as ``show`` has them."""
        lines = [json_values(row) for row in rows]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, title in columns.items():
            texts = any(isinstance(line.get(name), str) for line in lines)
            table.add_column(title, justify="left" if texts else "right", overflow="fold")
        for line in lines:
            table.add_row(*(Text(_cell(name, line.get(name))) for name in columns))
        self._print(table)

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and what is known of each, one a line."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(Text(name), Text(one_line(text)))
        self._print(table)

    def result(self, value: Any) -> None:
        """The whole answer, for programs; without ``--json`` it is not printed."""
        if self.as_json:
            (self._results or sys.stdout).write(
                json.dumps(json_values(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
            )

    def next(self, words: Sequence[object], purpose: str) -> None:
        """The command that comes next, to be copied."""
        self.say(f"next: {command(words)}   # {purpose}")

    def _print(self, table: Table) -> None:
        console = self._console()
        with console.capture() as captured:
            console.print(table)
        text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())  # tables are filled with spaces
        console.file.write(text)

    def _console(self, stderr: bool = False) -> Console:
        stderr = stderr or self.as_json
        file = sys.stderr if stderr else sys.stdout
        return Console(stderr=stderr, highlight=False, width=None if file.isatty() else WIDE)


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
