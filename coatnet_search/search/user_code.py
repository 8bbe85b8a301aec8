"""Runs a user's trainer step by step, so that what it does to the process (folder, streams) stays with it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from coatnet_search.training.guard import Overrun

T = TypeVar("T")


class Stray(RuntimeError):
    """A trainer raised what is no Exception and nothing that ends a process."""


def contained(trainer: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What a trainer yields. Between two of its steps this process has its own working folder and open streams; the
    trainer finds its own folder again."""
    iterator: Iterator[T] | None = None
    folder = os.getcwd()
    while True:
        with _streams_kept(), _folder_kept(folder) as left:
            try:
                iterator = iter(trainer()) if iterator is None else iterator
                row = next(iterator)
            except StopIteration:
                return
            except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit, Overrun):
                raise
            except BaseException as error:
                raise Stray(f"{type(error).__name__}: {text_of(error)}") from error
        folder = left[0]
        yield row


@contextlib.contextmanager
def _folder_kept(folder: str) -> Iterator[list[str]]:
    """Works in ``folder``; afterwards the list holds the one that was left for."""
    ours, left = os.open(".", os.O_RDONLY), [folder]
    try:
        with contextlib.suppress(OSError):  # it may have removed its own
            os.chdir(folder)
        yield left
        with contextlib.suppress(OSError):
            left[0] = os.getcwd()
    finally:
        os.fchdir(ours)
        os.close(ours)


@contextlib.contextmanager
def _streams_kept() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    spare = {number: os.dup(number) for number in (1, 2) if _is_open(number)}
    sys.stdout, sys.stderr = (_Lasting(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for number, copy in spare.items():
            if not _is_open(number):
                os.dup2(copy, number)
            os.close(copy)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class _Lasting:
    """A stream that others cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def text_of(value: object, form: Any = str) -> str:
    """A value in words, by ``str`` or ``repr``; the name of its type where it has none."""
    try:
        return str(form(value))
    except Exception:
        return f"{type(value).__name__} (it fails to describe itself)"
