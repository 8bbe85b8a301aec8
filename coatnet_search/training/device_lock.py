"""A lock file for each device: trainers share it during a step, a measurement holds it alone.

Node-local, between processes, by the kernel's file locks: a process that dies leaves nothing locked. A measurement that
waits closes the gate, so that trainers cannot keep it out by taking turns.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


class DeviceLock:
    """``device``: a name that is one per device on this machine, such as ``cpu`` or a GPU's UUID."""

    def __init__(self, device: str, folder: Path | None = None) -> None:
        place = folder or Path(tempfile.gettempdir()) / f"coatnet-search-{os.getuid()}"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = "".join(char if char.isalnum() else "-" for char in device)
        self._gate, self._room = (place / f"{name}.{part}" for part in ("gate", "room"))

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Held by any number of trainers at once, for one step each."""
        with _held(self._gate, fcntl.LOCK_EX):
            room = _take(self._room, fcntl.LOCK_SH)
        with contextlib.closing(room):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held by one measurement while no trainer is in a step."""
        with _held(self._gate, fcntl.LOCK_EX), _held(self._room, fcntl.LOCK_EX):
            yield


class _Handle:
    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        fcntl.flock(self.number, fcntl.LOCK_UN)  # a process forked meanwhile holds a copy of the handle
        os.close(self.number)


def _take(path: Path, how: int) -> _Handle:
    handle = _Handle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    fcntl.flock(handle.number, how)
    return handle


def _held(path: Path, how: int) -> "contextlib.closing[_Handle]":
    return contextlib.closing(_take(path, how))
