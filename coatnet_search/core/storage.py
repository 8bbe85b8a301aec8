"""Files at a URI that all nodes reach (s3://, gs://, file://), for clusters whose nodes share no folder.

Data lies there to be fetched (``datasets/remote.py``), and so may checkpoints: a trial writes them to the folder of its
own node as ever; after each epoch they are copied to the URI, and a node that has none starts from what lies there.
What is copied is checked on reading like any other checkpoint.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.redact import has_login

T = TypeVar("T")
PART_BYTES = 1 << 24
TRIES, FIRST_PAUSE_S = 4, 1.0  # of one call; each pause is twice the one before, with jitter


@dataclass(frozen=True)
class Remote:
    """A file at a URI: bytes, when it was changed, and whether the URI is the file's own, not a folder's."""

    size: int
    mtime_ns: int
    alone: bool


class Storage:
    """A folder at a URI. Each method tries again a few times, then raises SetupError; what is no URI is an
    InputError, what cannot be reached a SetupError.

    ``key``: of the study, for what is said of it.
    """

    def __init__(self, uri: str, key: str = "storage", sleep: Callable[[float], None] = time.sleep) -> None:
        self.uri, self._key, self._sleep = uri, key, sleep
        if has_login(uri):
            raise InputError(
                f"{key}: expected a URI without keys; give them by the environment (AWS_ACCESS_KEY_ID, ...)"
            )
        try:
            self._files, self._root = fs.FileSystem.from_uri(self.uri)
        except ValueError as error:
            raise InputError(f"{key}: {uri}: {str(error).splitlines()[0]}") from None
        except OSError as error:
            raise SetupError(f"{key}: {uri}: {str(error).splitlines()[0]}") from None

    def files(self) -> dict[str, Remote]:
        """All files below the URI by their names from there, or the one file that it is; none where nothing is."""
        itself = self._again(lambda: self._files.get_file_info(self._root))
        if itself.type == fs.FileType.File:
            return {itself.base_name: Remote(itself.size, itself.mtime_ns or 0, alone=True)}
        below = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        start = len(self._root.rstrip("/")) + 1
        found = self._again(lambda: self._files.get_file_info(below))
        return {info.path[start:]: Remote(info.size, info.mtime_ns or 0, alone=False)
                for info in found if info.type == fs.FileType.File}  # fmt: skip

    def fetch(self, name: str, file: Remote, target: Path) -> None:
        """One of ``files`` to a path on this machine: all of it, with its time of change, or nothing."""
        source = self._root if file.alone else f"{self._root.rstrip('/')}/{name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f".{target.name}.half")
        self._again(lambda: self._copy(source, half))
        os.utime(half, ns=(file.mtime_ns, file.mtime_ns))
        half.replace(target)

    def _copy(self, source: str, target: Path) -> None:
        with self._files.open_input_stream(source) as stream, target.open("wb") as file:
            while part := stream.read(PART_BYTES):
                file.write(part)

    def push(self, folder: Path, name: str) -> None:
        """Makes ``name`` there what ``folder`` holds: tensors first, then the JSON files that complete them."""
        here = {path.name: path for path in folder.glob("epoch-*")}
        there = self._again(lambda: self._names(name))
        for file in sorted(set(here) - there, key=lambda file: (file.endswith(".json"), file)):
            self._again(lambda file=file: self._write(here[file], f"{self._root}/{name}/{file}"))  # type: ignore[misc]
        for file in there - set(here):
            self._again(lambda file=file: self._files.delete_file(f"{self._root}/{name}/{file}"))  # type: ignore[misc]

    def pull(self, name: str, folder: Path) -> None:
        """Fetches what ``name`` holds there into a folder that has no checkpoints."""
        if any(folder.glob("epoch-*.json")):
            return
        folder.mkdir(parents=True, exist_ok=True)
        for file in self._again(lambda: self._names(name)):
            content = self._again(lambda file=file: self._read(f"{self._root}/{name}/{file}"))  # type: ignore[misc]
            (folder / file).write_bytes(content)

    def forget(self, name: str) -> None:
        """Removes ``name`` there."""
        if self._again(lambda: self._names(name)):
            self._again(lambda: self._files.delete_dir(f"{self._root}/{name}"))

    def check(self) -> None:
        """Writes, reads and removes a small file. Raises SetupError where one of these fails."""
        name = f"{self._root}/.check-{random.getrandbits(64):016x}"
        self._again(lambda: self._files.create_dir(self._root, recursive=True))
        with_content = b"coatnet-search"
        self._again(lambda: self._put(with_content, name))
        if self._again(lambda: self._read(name)) != with_content:
            raise SetupError(f"{self._key}: {self.uri} does not give back what was written")
        self._again(lambda: self._files.delete_file(name))

    def _names(self, name: str) -> set[str]:
        found = self._files.get_file_info(fs.FileSelector(f"{self._root}/{name}", allow_not_found=True))
        return {info.base_name for info in found if info.type == fs.FileType.File}

    def _write(self, source: Path, target: str) -> None:
        self._files.create_dir(target.rpartition("/")[0], recursive=True)
        self._put(source.read_bytes(), target)

    def _put(self, content: bytes, target: str) -> None:
        with self._files.open_output_stream(target) as file:
            file.write(content)

    def _read(self, source: str) -> bytes:
        with self._files.open_input_stream(source) as file:
            return bytes(file.readall())

    def _again(self, call: Callable[[], T]) -> T:
        """``call``, tried a few times: networks fail for a while."""
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except OSError as error:
                if tried == TRIES:
                    first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
                    raise SetupError(f"{self._key}: {self.uri}: {first} ({TRIES} tries)") from None
                self._sleep(FIRST_PAUSE_S * 2 ** (tried - 1) * random.uniform(0.5, 1.5))
        raise AssertionError
