"""Sends a record's uploads to a tracking server: what when, pauses after errors, what is left at the end.

No MLflow here: ``tracking.py`` gives the server. The record is the spool, so nothing is kept in memory and nothing has
to be thinned out: a mirror that is behind reads on where it is.
"""

import contextlib
import json
import logging
import math
import os
import random
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from coatnet_search.core.redact import Redactor
from coatnet_search.core.sqlite_uri import sqlite_uri
from coatnet_search.record.fold import now, read_events, record_path, scan
from coatnet_search.record.journal import write_json
from coatnet_search.record.mirror.uploads import Planner, Upload, final_states

POLL_S = 1.0
LONGEST_PAUSE_S = 30.0
ORPHAN_S = 30.0  # how long a mirror whose driver is gone goes on sending
CHUNK_BYTES = 256 * 1024
# The one telling part of the page that an HTTP client's exception is.
_CAUSE = re.compile(
    r"\[Errno -?\d+\] [^'\")>]+|too many \d+ error responses|[Rr]ead timed out|Remote end closed[^'\")]*"
)
_logger = logging.getLogger(__name__)

Wish = Literal["go on", "finish", "orphan"]


class Refused(Exception):
    """The server, or this installation, says no; asking again does not help."""


class Gone(Exception):
    """The server has lost runs that it had; the record is sent again from its beginning."""


class TrialServer(Protocol):
    """What the road needs of a server. Each call may raise Refused, Gone, or anything that is worth another try."""

    stale: bool
    notes: list[str]

    @property
    def page(self) -> str: ...  # where the search's own run is below the server's address

    def complete(self, ended: Mapping[str, str]) -> set[str]: ...
    def apply(self, upload: Upload) -> None: ...
    def mark_front(self, keys: set[str]) -> None: ...
    def check_experiment(self) -> None: ...  # raises Refused where it was deleted there
    def set_status(self, status: Literal["RUNNING", "FINISHED", "KILLED"]) -> None: ...


def one_line(error: BaseException) -> str:
    """What an error says, without line ends and secrets, at most 300 characters; of a network's, its cause alone."""
    text = " ".join(str(error).split()) or type(error).__name__
    cause = _CAUSE.search(text)
    return Redactor.from_environment().text(cause.group() if cause else text)[:300]


class Mirror:
    """Sends a record, from its beginning and as it grows. ``connect`` is called again after ``Gone``."""

    def __init__(self, run: Path, uri: str, study: str, connect: Callable[[], TrialServer]) -> None:
        self.path = record_path(run)
        self.sent_offset = 0
        self.error: str | None = None
        self.refused = False
        self._uri, self._study, self._connect = Redactor.from_environment().text(uri), study, connect
        self._front: tuple[float, set[str]] = (-1.0, set())
        self._told: dict[str, Any] = {}
        self._restart()

    def _restart(self) -> None:
        self._server: TrialServer | None = None
        self._planner = Planner(self._study)
        self._pending: deque[Upload] = deque()
        self._read = self._known_until = self.sent_offset = 0
        self._complete: set[str] = set()
        self._front = (-1.0, set())

    def follow(self, wait: Callable[[float], Wish], patience_s: float = math.inf) -> None:
        """Sends until ``wait`` (which sleeps at most so many seconds) wants an end and all is sent, or no is no.

        ``patience_s``: how long errors may last after the wish to finish; an orphan gives up at the first.
        """
        pause, wished, wish = 0.0, math.inf, wait(0)
        while True:
            if wish != "go on":
                wished = min(wished, time.monotonic())
            try:
                self._send_all(wait)
                pause, self.error = 0.0, None
            except Refused as error:
                self.refused = True
                self._fail(error)
                return self._tell()
            except Exception as error:  # whatever a network, a server or a library may do
                pause = self._pause_after(error, pause)
            self._tell()
            if wish != "go on":
                late = time.monotonic() - wished
                if self.error is None or wish == "orphan" or late > patience_s:
                    return self._end()
                time.sleep(min(pause, 2.0))
            wish = wait(pause or POLL_S)

    def _pause_after(self, error: Exception, pause: float) -> float:
        """Notes the error; seconds until the next try: doubled each time, with jitter so that mirrors do not march."""
        self._fail(error)
        if isinstance(error, Gone):
            self._restart()
        elif self._server is not None:
            self._server.stale = True
        return min(max(1.0, 2 * pause), LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)

    def _fail(self, error: Exception) -> None:
        before, self.error = self.error, one_line(error)
        if self.error != before:
            _logger.warning("%s %s", now(), self.error)

    def _end(self) -> None:
        if self._server is not None and self.error is None:
            try:
                self._server.check_experiment()
                self._server.set_status("KILLED" if self._planner.running else "FINISHED")
            except Refused as error:
                self.refused = True
                self._fail(error)
            except Exception as error:  # all is there but the state of the search as a whole
                _logger.warning("%s %s", now(), one_line(error))
        self._tell()

    def _send_all(self, wait: Callable[[float], Wish]) -> None:
        """Everything that the record holds now. Raises what the server raises; sent is sent."""
        if self._server is None:
            if not self.path.exists() or not self.path.stat().st_size:
                return
            self._server = self._connect()
            self._server.set_status("RUNNING")
            self._known_until = self.path.stat().st_size
            self._complete = self._server.complete(final_states(read_events(self.path)))
        orphaned = math.inf
        while self._pending or self._next_chunk():
            while self._pending:
                if wait(0) == "orphan":
                    orphaned = min(orphaned, time.monotonic())
                if time.monotonic() - orphaned > ORPHAN_S:
                    raise TimeoutError("the driver is gone, the rest was left")
                self._server.apply(self._pending[0])
                self._pending.popleft()
            self.sent_offset = self._read
            self._tell()
        self._mark_front(self._server)

    def _next_chunk(self) -> bool:
        found = scan(self.path, self._read, CHUNK_BYTES)
        if found.end == self._read:
            return False
        uploads = self._planner.plan(found.events)
        if self._read < self._known_until:
            uploads = [upload for upload in uploads if upload.identity not in self._complete]
        self._pending.extend(uploads)
        self._read = found.end
        return True

    def _mark_front(self, server: TrialServer) -> None:
        """RUN/front.json, a list of keys, is written by the driver when it knows."""
        file = self.path.with_name("front.json")
        try:
            changed = file.stat().st_mtime
            if changed == self._front[0]:
                return
            keys = set(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return
        server.mark_front(keys)
        self._front = (changed, keys)

    def _tell(self) -> None:
        status = {
            "uri": self._uri,
            "pid": os.getpid(),
            "sent_offset": self.sent_offset,
            "last_error": self.error,
            "refused": self.refused,
            "notes": self._server.notes if self._server else [],
            "page": self._server.page if self._server else None,
        }
        if status != self._told:
            self._told = status
            with contextlib.suppress(OSError):  # a full disk stops no upload
                write_json(status_path(self.path.parent), {**status, "updated": now()})


def status_path(run: Path) -> Path:
    return run / "mirror.json"


def unsent_events(run: Path, sent_offset: int) -> int:
    """Whole lines of the record after the offset."""
    path = record_path(run)
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(sent_offset)
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


class MirrorProcess:
    """The driver's end of a mirror that runs in a process of its own. No method waits, but ``close``."""

    def __init__(self, run: Path, uri: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._run, self._uri, self._warned = run, Redactor.from_environment().text(uri), False
        self._process: subprocess.Popen[bytes] | None = None
        write_json(status_path(run), {"uri": self._uri, "sent_offset": 0, "last_error": None})
        try:
            with (run / "mirror.log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # its end tells the mirror that the driver has finished, or is gone
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=dict(environment),
                    start_new_session=True,  # the interrupt key is for the driver
                )
        except OSError as error:
            _logger.warning("MLflow mirror not started: %s", one_line(error))

    def _status(self) -> dict[str, Any]:
        try:
            status: dict[str, Any] = json.loads(status_path(self._run).read_text(encoding="utf-8"))
            return status
        except (OSError, ValueError):
            return {"sent_offset": 0, "last_error": "its status file cannot be read"}

    def _trouble(self) -> str | None:
        status = self._status()
        if self._process is None or self._process.poll() not in (None, 0):
            return str(status.get("last_error") or f"the mirror has stopped, see {self._run / 'mirror.log'}")
        return str(status["last_error"]) if status.get("last_error") else next(iter(status.get("notes") or []), None)

    def warning(self) -> str | None:
        """One line, once, as soon as something is wrong; the search goes on all the same."""
        trouble = None if self._warned else self._trouble()
        if trouble is None:
            return None
        self._warned = True
        return f"MLflow at {self._uri}: {trouble}; the search goes on, the record keeps everything"

    def close(self, timeout_s: float = 30.0) -> str | None:
        """Waits until all is sent, at most so long, then ends the mirror. A line to print where something is unsent."""
        late = self._process is not None and not self._ended(self._process, timeout_s)
        trouble = self._trouble()
        status = self._status()
        unsent = unsent_events(self._run, status["sent_offset"])
        if late and self._process is not None:
            self._process.kill()
            self._process.wait()
        if not unsent and status.get("refused"):
            return f"MLflow at {self._uri}: {trouble}; `coatnet-search mirror {self._run}` sends the record again then"
        if not unsent:
            return None
        return (
            f"MLflow at {self._uri}: {unsent} events of the record are not sent "
            f"({trouble or f'not done within {timeout_s:g} s'}); `coatnet-search mirror {self._run}` completes it"
        )

    @staticmethod
    def _ended(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def default_uri(run: Path) -> str:
    """One SQLite file for all runs of a folder."""
    return sqlite_uri(run.parent / "mlflow.db")


def command_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``extra`` where it says nothing itself, and with this package importable."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if "site-packages" not in root and root not in paths:
        paths = [root, *paths]
    return {**extra, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def python_module(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
