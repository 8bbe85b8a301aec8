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
TENSORS, NOTE = ".safetensors", ".json"  # a checkpoint's two files; the second completes it
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
        self._bring(source, target, file.mtime_ns)

    def _copy(self, source: str, target: Path) -> None:
        with self._files.open_input_stream(source) as stream, target.open("wb") as file:
            while part := stream.read(PART_BYTES):
                file.write(part)

    def push(self, folder: Path, name: str) -> None:
        """Copies the checkpoints of ``folder`` to ``name`` there, each with its tensors first, then the JSON that
        completes it; removes there what is older than all of them, and never what is newer."""
        here, there = _whole(_files(folder)), self._again(lambda: self._names(name))
        for stem in sorted(here - _whole(there)):
            for file in (f"{stem}{TENSORS}", f"{stem}{NOTE}"):
                self._again(lambda file=file: self._write(folder / file, f"{self._root}/{name}/{file}"))  # type: ignore[misc]
        old = {file for file in there if here and file.partition(".")[0] < min(here)}
        for file in sorted(old, key=lambda file: (not file.endswith(NOTE), file)):
            self._again(lambda file=file: self._files.delete_file(f"{self._root}/{name}/{file}"))  # type: ignore[misc]

    def pull(self, name: str, folder: Path) -> None:
        """Fetches the checkpoints that ``name`` holds there and ``folder`` does not, where they are newer than all that
        it has: each by renaming, its tensors first. What was cut short is fetched again."""
        here, there = _whole(_files(folder)), _whole(self._again(lambda: self._names(name)))
        if here and (not there or max(there) <= max(here)):
            return
        for stem in sorted(there - here):
            for file in (f"{stem}{TENSORS}", f"{stem}{NOTE}"):
                self._bring(f"{self._root}/{name}/{file}", folder / file)

    def _bring(self, source: str, target: Path, mtime_ns: int | None = None) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f".{target.name}.half")
        try:
            self._again(lambda: self._copy(source, half))
            if mtime_ns is not None:
                os.utime(half, ns=(mtime_ns, mtime_ns))
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)

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
        return {info.base_name for info in found if info.type == fs.FileType.File and info.base_name[0] != "."}

    def _write(self, source: Path, target: str) -> None:
        """A file there, whole or not at all: objects are there once they are closed, files once they are renamed."""
        folder, _, name = target.rpartition("/")
        self._files.create_dir(folder, recursive=True)
        half = f"{folder}/.{name}.half" if isinstance(self._files, fs.LocalFileSystem) else target
        self._put(source.read_bytes(), half)
        if half != target:
            self._files.move(half, target)

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


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("epoch-*")}


def _whole(files: set[str]) -> set[str]:
    """The checkpoints (``epoch-000003``) of which both files are there."""
    notes = {file.removesuffix(NOTE) for file in files if file.endswith(NOTE)}
    return {stem for stem in notes if f"{stem}{TENSORS}" in files}
