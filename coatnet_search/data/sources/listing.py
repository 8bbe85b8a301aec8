"""Lists the files of a folder that count as data, and counts those that are passed over, by ending.

One rule for folders of images, parquet files and prediction: hidden files and folders, and what systems leave behind,
are no data; linked folders are followed; a linked file, a pipe or a broken link is a file like others, and unreadable
where reading it fails.
"""

import errno
import functools
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coatnet_search.core.errors import InputError, SetupError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
LEFT_BEHIND = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
               "desktop.ini", "__pycache__")  # fmt: skip # by macOS, Synology, Windows, file systems, Python
DEEPEST = 100  # folders inside one another
HIDDEN = "hidden"  # these are counted together, whatever their endings


@dataclass(frozen=True)
class Folder:
    """A folder with what counts in it, by name: ``files`` that have one of the wanted endings, and ``folders``.

    ``passed``: how many other files lie in this folder alone, by ending.
    """

    path: Path
    files: tuple[Path, ...]
    folders: tuple["Folder", ...]
    passed: Counter[str]

    @property
    def name(self) -> str:
        return shown(self.path.name)

    @functools.cached_property
    def count(self) -> int:
        """The files here and below."""
        return len(self.files) + sum(folder.count for folder in self.folders)

    @property
    def filled(self) -> list["Folder"]:
        """The folders in it that hold files, at any depth."""
        return [folder for folder in self.folders if folder.count]

    def all_files(self) -> list[Path]:
        return sorted([*self.files, *(file for folder in self.folders for file in folder.all_files())])

    def all_passed(self) -> Counter[str]:
        return sum((folder.all_passed() for folder in self.folders), Counter(self.passed))


def read_folder(path: Path, endings: Sequence[str], above: tuple[tuple[int, int], ...] = ()) -> Folder:
    """What lies below ``path``. ``above``: the folders on the way here; a link back to one of them is not followed.

    Raises SetupError for a folder that cannot be read, InputError for folders without an end.
    """
    if len(above) > DEEPEST:
        raise InputError(f"{shown(path)}: more than {DEEPEST} folders inside one another")
    files: list[Path] = []
    folders: list[Folder] = []
    passed: Counter[str] = Counter()
    try:
        here = os.stat(path)
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise SetupError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        if is_hidden(entry.name):
            passed[HIDDEN] += 1
        elif _is_folder(entry):
            if not entry.is_symlink() or _identity(entry.path) not in above:
                folders.append(read_folder(Path(entry.path), endings, above))
        elif entry.name.lower().endswith(tuple(endings)):
            files.append(Path(entry.path))
        else:
            passed[os.path.splitext(shown(entry.name))[1].lower() or "no ending"] += 1
    return Folder(path, tuple(files), tuple(folders), passed)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def passed_over(passed: Counter[str]) -> str | None:
    """``passed over: 3 files ending in .txt, 1 ending in .heic, 2 hidden files or folders``, or None."""
    ends = [(ending, count) for ending, count in passed.most_common() if count and ending != HIDDEN]
    texts = [f"{count:,} with no ending" if ending == "no ending" else f"{count:,} ending in {ending}"
             for ending, count in ends[:8]]  # fmt: skip
    rest = sum(count for _, count in ends[8:])
    texts += [f"{rest:,} with other endings"] if rest else []
    texts += [f"{passed[HIDDEN]:,} hidden files or folders"] if passed[HIDDEN] else []
    return f"passed over: {', '.join(texts)}" if texts else None


def shown(name: str | Path) -> str:
    """A file's name as text: bytes that are not UTF-8 are written as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, also for a pipe or a device, which might never end."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()
