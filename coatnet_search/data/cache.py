"""Files made once per machine and shared by all processes: built under a lock, renamed into place when whole."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from coatnet_search.core.errors import SetupError

VARIABLE = "COATNET_SEARCH_CACHE"


def cache_dir() -> Path:
    """The folder of the environment variable COATNET_SEARCH_CACHE, else ``~/.cache/coatnet-search``; made if missing.

    Raises SetupError where it cannot be written.
    """
    folder = Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "coatnet-search")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cache folder {folder}: {error.strerror}; set {VARIABLE} to a folder you may write") from None
    if not os.access(folder, os.W_OK):
        raise SetupError(f"cache folder {folder} is not writable; set {VARIABLE} to a folder you may write")
    return folder


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The file ``name`` in the cache; if it is not there, one process builds it and the others wait for that.

    ``build(path)`` writes a temporary file. A build that fails or is killed leaves nothing under the final name.
    Raises SetupError where the disk is full.
    """
    final = cache_dir() / name
    if final.exists():
        return final
    with FileLock(final.with_name(f".{name}.lock")):
        if not final.exists():
            _build(final, build)
    return final


def _build(final: Path, build: Callable[[Path], None]) -> None:
    temporary = final.with_name(f".{final.stem}.tmp{final.suffix}")  # the lock allows one builder: the name is free
    try:
        build(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise SetupError(f"cannot write {final}: {error.strerror}; free some space or set {VARIABLE}") from None
    finally:
        temporary.unlink(missing_ok=True)
