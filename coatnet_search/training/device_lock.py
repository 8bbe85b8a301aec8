"""A lock file for each device: trainers share it during a step, a measurement holds it alone.

Trainers hold a device's lock shared during each step, a measurement holds it alone. Node-local, between processes, by
the kernel's file locks: a process that dies leaves nothing locked. A measurement that waits closes the gate, so that
trainers cannot keep it out by taking turns. Who waits longer than ``PATIENCE_S`` says for whom: a process that was
stopped keeps what it holds.
"""

import contextlib
import fcntl
import os
import platform
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_S = 10.0
LOOK_S = 1.0
_LOCKS = Path("/proc/locks")  # number: FLOCK ADVISORY WRITE pid major:minor:inode ...; of processes of this machine

Watch = Callable[[float, str], None]  # seconds waited in all, and once a wait is long a sentence that says for whom


def warn(_seconds: float, sentence: str) -> None:
    """Says a long wait where nobody else does."""
    if sentence:
        warnings.warn(sentence, stacklevel=2)


class DeviceLock:
    """``device``: a name that is one per device on this machine, such as ``cpu`` or a GPU's UUID."""

    def __init__(self, device: str, folder: Path | None = None, watch: Watch = warn) -> None:
        """``watch`` is told each second of a wait, by another thread."""
        place = folder or Path(tempfile.gettempdir()) / f"coatnet-search-{os.getuid()}"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = "".join(char if char.isalnum() else "-" for char in device)
        self._gate, self._room = (place / f"{name}.{part}" for part in ("gate", "room"))
        self._device, self._watch = device, watch
        self._waited_s = 0.0
        self._since: float | None = None  # when a wait that is going on began

    def waited_s(self) -> float:
        """Seconds for which this has waited so far, with those of a wait that is going on."""
        since = self._since
        return self._waited_s + (0.0 if since is None else time.monotonic() - since)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Held by any number of trainers at once, for one step each."""
        with self._held(self._gate, fcntl.LOCK_EX):
            room = self._take(self._room, fcntl.LOCK_SH)
        with contextlib.closing(room):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held by one measurement while no trainer is in a step."""
        with self._held(self._gate, fcntl.LOCK_EX), self._held(self._room, fcntl.LOCK_EX):
            yield

    def _held(self, path: Path, how: int) -> "contextlib.closing[_Handle]":
        return contextlib.closing(self._take(path, how))

    def _take(self, path: Path, how: int) -> "_Handle":
        handle = _Handle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            try:
                fcntl.flock(handle.number, how | fcntl.LOCK_NB)
            except BlockingIOError:
                with self._waiting(path):
                    fcntl.flock(handle.number, how)
        except BaseException:
            os.close(handle.number)
            raise
        return handle

    @contextlib.contextmanager
    def _waiting(self, path: Path) -> Iterator[None]:
        since, over = time.monotonic(), threading.Event()
        self._since = since
        threading.Thread(target=self._look, args=(path, since, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            self._waited_s, self._since = self.waited_s(), None

    def _look(self, path: Path, since: float, over: threading.Event) -> None:
        said = ""
        while not over.wait(LOOK_S):
            late = time.monotonic() - since >= PATIENCE_S
            sentence = f"waiting for the device {self._device}, {holders(path)}" if late else ""
            self._watch(self.waited_s(), sentence if sentence != said else "")
            said = sentence or said


class _Handle:
    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        fcntl.flock(self.number, fcntl.LOCK_UN)  # a process forked meanwhile holds a copy of the handle
        os.close(self.number)


def holders(path: Path) -> str:
    """Who holds a file's lock, in words, and what ends it where that is a process that was stopped."""
    host = platform.node()
    pids = _pids(path)
    if not pids:
        return f"which another process on {host} holds"
    named = ", ".join(f"pid {pid} ({_command(pid)})" for pid in pids)
    stopped = " ".join(str(pid) for pid in pids if _state(pid) in ("T", "t"))
    text = f"which {named} on {host} holds"
    return f"{text}; {stopped} was stopped: `kill -CONT {stopped}` lets it go on" if stopped else text


def _pids(path: Path) -> list[int]:
    """The processes that hold the lock of a file; none where the system does not say."""
    try:
        inode = path.stat().st_ino
        lines = [line.split() for line in _LOCKS.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return []
    held = [words for words in lines if len(words) > 5 and words[1] == "FLOCK"]  # of one that waits it is an arrow
    return sorted({int(words[4]) for words in held if words[5].endswith(f":{inode}") and words[4].isdigit()} - {0})


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return "?"
    text = " ".join(words)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
