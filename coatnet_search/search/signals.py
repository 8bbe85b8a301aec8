"""Turns SIGINT, SIGTERM or the end of the minutes into a stop after the running epochs."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Protocol


class Stoppable(Protocol):
    """What looks at ``stopping`` between epochs."""

    stopping: bool


@contextlib.contextmanager
def stop_signals(session: Stoppable, deadline: float | None) -> Iterator[None]:
    """While it is open, a signal or the ``deadline`` (of ``time.monotonic``) sets ``session.stopping``; a second signal
    does what it did before. Ray sets a handler of its own when it starts: open this after it."""

    def stop(number: int, frame: FrameType | None) -> None:
        session.stopping = True
        restore()

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    before[signal.SIGALRM] = signal.SIG_IGN  # the minutes may end after a signal did
    if deadline is not None:
        signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        restore()
