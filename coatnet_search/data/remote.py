"""Data at a URI (s3://, gs://, file://): its files, fetched once per machine into the cache, and found there."""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import SetupError
from coatnet_search.core.storage import Remote, Storage
from coatnet_search.data.cache import cache_dir

AT_ONCE = 16  # files; small ones wait for the network, not for its bandwidth


def local_path(path: str) -> Path:
    """``path`` itself, or where this machine has the files of a URI; those that are missing or changed are fetched.

    Raises InputError for a URI that is none, SetupError where there is nothing or it cannot be reached.
    """
    return _fetched(path.rstrip("/")) if "://" in path else Path(path).expanduser()


@functools.cache  # a process trusts what it has fetched: listing many files takes long
def _fetched(uri: str) -> Path:
    storage = Storage(uri, "data.path")
    files = storage.files()
    if not files:
        raise SetupError(f"data.path: there is nothing at {uri}")
    folder = cache_dir() / "data" / digest(uri)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")), ThreadPoolExecutor(AT_ONCE) as pool:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder).as_posix() not in files:
                path.unlink()
        missing = [(name, file) for name, file in files.items() if not _same(_place(folder, name), file)]
        for _ in pool.map(lambda one: storage.fetch(one[0], one[1], _place(folder, one[0])), missing):
            pass  # the first error is raised here
    only = next(iter(files))
    return folder / only if files[only].alone else folder


def _place(folder: Path, name: str) -> Path:
    """Where a file goes. Raises SetupError for a name that leads out of the folder."""
    if not (place := folder / name).resolve().is_relative_to(folder.resolve()):
        raise SetupError(f"data.path: a file is named {name!r}, which leads out of its folder")
    return place


def _same(path: Path, file: Remote) -> bool:
    if not path.is_file():
        return False
    found = path.stat()
    return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)
