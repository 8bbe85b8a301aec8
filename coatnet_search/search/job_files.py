"""Which files of a folder travel with a job: plain ones, neither hidden nor ignored by git; links are not followed."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coatnet_search.core.document import one_line
from coatnet_search.core.errors import SetupError

NOT_NEEDED = ("runs", "__pycache__", "node_modules")
ENVIRONMENT = "pyvenv.cfg"  # in the folder of an environment of Python
SHOWN = 20  # names in the line that says what travels
HIDDEN, LINK, IGNORED, ODD, LARGE = "hidden", "links", "ignored by git", "no plain files", "runs, caches, environments"


@dataclass(frozen=True)
class JobFiles:
    """``names``: what travels, as paths below ``folder``; ``left``: what stays, counted by the reason."""

    folder: Path
    names: tuple[str, ...]
    left: Counter[str] = field(default_factory=Counter)

    def copy(self, target: Path) -> None:
        """Copies what travels. Raises SetupError with the file that cannot be read."""
        for name in self.names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(self.folder / name, target / name, follow_symlinks=False)
            except OSError as error:
                raise SetupError(f"{self.folder / name}: cannot be sent along: {error.strerror}") from None

    def __str__(self) -> str:
        size = sum((self.folder / name).lstat().st_size for name in self.names)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left.items()))
        said = f"{len(self.names)} files of {self.folder} ({size / 1024:,.0f} KiB) go along: "
        said += f"{', '.join(self.names[:SHOWN]) or 'none'}{more}"
        return one_line(said + (f"; stay here: {left}" if left else ""))


def job_files(folder: Path) -> JobFiles:
    """What of ``folder`` a job needs to import a trainer of the user's. Raises SetupError where git has to say what is
    ignored and cannot."""
    left: Counter[str] = Counter()
    found = sorted(_plain_files(folder, Path(), left))
    kept = set(found) - _ignored(folder, found)
    if len(found) > len(kept):
        left[IGNORED] = len(found) - len(kept)
    return JobFiles(folder, tuple(name for name in found if name in kept), left)


def _plain_files(folder: Path, below: Path, left: Counter[str]) -> Iterator[str]:
    for entry in sorted(os.scandir(folder / below), key=lambda entry: entry.name):
        place = below / entry.name
        if entry.name.startswith("."):
            left[HIDDEN] += 1
        elif entry.is_symlink():
            left[LINK] += 1
        elif entry.is_dir():
            if entry.name in NOT_NEEDED or (folder / place / ENVIRONMENT).exists():
                left[LARGE] += 1
            else:
                yield from _plain_files(folder, place, left)
        elif entry.is_file():
            yield place.as_posix()
        else:
            left[ODD] += 1


def _ignored(folder: Path, names: list[str]) -> set[str]:
    """Those of the names that git ignores, by the rules of its repository or, outside of one, of the folder alone."""
    places = {above for name in names for above in Path(name).parents}
    rules = any((folder / place / ".gitignore").is_file() for place in places)
    repository = any((above / ".git").exists() for above in (folder.resolve(), *folder.resolve().parents))
    if not names or not (rules or repository):
        return set()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with tempfile.TemporaryDirectory(prefix="coatnet-search-git-") as place:
        there = [] if repository else [f"--git-dir={place}", f"--work-tree={folder.resolve()}"]
        try:
            if not repository:
                subprocess.run(["git", "init", "--quiet", "--bare", place], env=environment, check=True,
                               capture_output=True)  # fmt: skip
            told = subprocess.run(
                ["git", *there, "check-ignore", "--stdin", "-z"], cwd=folder, env=environment, check=False,
                input="\0".join(names).encode(errors="surrogateescape"), capture_output=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(_without_git(folder, str(error))) from None
    if told.returncode not in (0, 1):  # 1: none is ignored
        raise SetupError(_without_git(folder, told.stderr.decode(errors="replace")))
    return set(told.stdout.decode(errors="surrogateescape").split("\0")) - {""}


def _without_git(folder: Path, said: str) -> str:
    first = (said.splitlines() or ["no answer"])[0][:200]
    return f"{folder}: git has to say which files are ignored and stay here, and does not: {first}"
