"""Ends a block of code that takes longer than it may, in whichever thread it runs."""

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class OutOfTime(BaseException):
    """A block took longer than it may. No Exception, so that code that catches all of these does not go on."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime within the block once it has taken so long, between two steps of Python: a call into a compiled
    library is not cut short, and ends the block when it returns."""
    thread, ended, turn = threading.get_ident(), threading.Event(), threading.Lock()

    def ring() -> None:
        with turn:
            if not ended.is_set():
                _raise(thread, OutOfTime)

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with turn:
            ended.set()
            _raise(thread, None)  # one that has been sent and has not arrived


def _raise(thread: int, error: type[BaseException] | None) -> None:
    """Python's own way to have another thread raise; None takes back what it has not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
