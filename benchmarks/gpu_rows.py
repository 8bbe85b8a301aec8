"""Rows of the GPU benchmark: a JSON object a line, written as they are found, and not found twice."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Skip(Exception):
    """A part that cannot run here, and why."""


@dataclass(frozen=True)
class Rows:
    """The file of rows, a JSON object a line, as one part sees it. ``rehearsal``: the GPU computes nothing."""

    path: Path
    part: str
    rehearsal: bool
    parquet: str | None = None  # a folder of CIFAR-10

    def known(self) -> list[dict[str, Any]]:
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]  # a line that was cut short is none
        return [row for row in map(json.loads, whole.splitlines()) if row["part"] == self.part]

    def add(self, **values: Any) -> None:
        row = {"part": self.part, **values}
        print("  " + ", ".join(f"{key} {_shown(value)}" for key, value in values.items()), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def find(self, what: str, make: Callable[..., Mapping[str, Any]], *given: Any) -> None:
        """The row ``what``, ``make(*given)``, unless it is there; one that fails has the error in place of numbers."""
        if any(row.get("what") == what and "failed" not in row for row in self.known()):
            return
        try:
            found = dict(make(*given))
        except Skip as reason:
            found = {"skipped": str(reason)}
        except Exception as error:  # the next row is worth having
            text = next((line for line in str(error).splitlines() if line.strip()), "")
            found = {"failed": f"{type(error).__name__}: {text[:300]}"}
        if self.rehearsal and not {"skipped", "failed"} & found.keys():
            found = {"note": "no numbers"}
        self.add(what=what, **found)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(*words: str, seconds: float = 600, env: Mapping[str, str] | None = None) -> tuple[int, str, float]:
    """Exit code, output and seconds of a command, in a session of its own that is ended with it."""
    begin = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                          env={**os.environ, **(env or {})}) as process:  # fmt: skip
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            return 124, text, time.monotonic() - begin
    return process.returncode, text, time.monotonic() - begin
