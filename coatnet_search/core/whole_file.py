"""Writes a file that is whole or as it was before; a failure leaves nothing over, and its error names the file."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_NUMBER = re.compile(r"os error (\d+)")  # how safetensors tells of the system


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place afterwards. Raises OSError with the path's name."""
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        yield half
        half.replace(path)
    except OSError as error:
        raise _named(error.errno or errno.EIO, path) from error
    except Exception as error:
        if (found := _NUMBER.search(str(error))) is None:
            raise
        raise _named(int(found[1]), path) from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8 as the whole file."""
    with whole_file(path) as half:
        half.write_text(text, encoding="utf-8")


def _named(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
