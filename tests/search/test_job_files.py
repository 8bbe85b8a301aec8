"""What travels with a job: a trainer's files, and nothing that is hidden, ignored, linked or no plain file."""

import os
import subprocess
from pathlib import Path

import pytest

from coatnet_search.core.errors import SetupError
from coatnet_search.search.job_files import job_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of work with what lies around in one, and a neighbour that links lead to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "private.txt").write_text("private")
    work = tmp_path / "work"
    for name in ("trainer.py", "net/blocks.py", "net/token.py", ".env", ".aws/credentials", ".ssh/id_rsa",
                 "net/.hidden/x", "runs/a/trials.jsonl", "net/__pycache__/x.pyc", "env/pyvenv.cfg", "env/lib/x.py",
                 "secret.txt", "build/x.o", "net/local.cfg"):  # fmt: skip
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    (work / "dangling").symlink_to("nowhere")
    (work / "data.txt").symlink_to(elsewhere / "private.txt")
    (work / "net" / "up").symlink_to(elsewhere)
    os.mkfifo(work / "pipe")
    return work


IGNORE = "secret.txt\n/build/\n"


def travelling(folder: Path, target: Path) -> list[str]:
    found = job_files(folder)
    found.copy(target)
    there = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert there == list(found.names)
    return there


def test_hidden_files_links_and_what_is_no_plain_file_stay(folder: Path, tmp_path: Path) -> None:
    names = travelling(folder, tmp_path / "job")

    assert names == ["build/x.o", "net/blocks.py", "net/local.cfg", "net/token.py", "secret.txt", "trainer.py"]
    assert (tmp_path / "job" / "net" / "token.py").read_text() == "net/token.py"


@pytest.mark.parametrize("repository", ["none", "here", "above"])
def test_what_git_ignores_stays(repository: str, folder: Path, tmp_path: Path) -> None:
    (folder / ".gitignore").write_text(IGNORE)
    (folder / "net" / ".gitignore").write_text("*.cfg\n")
    if repository != "none":
        place = folder if repository == "here" else tmp_path
        subprocess.run(["git", "init", "--quiet", str(place)], check=True)

    assert travelling(folder, tmp_path / "job") == ["net/blocks.py", "net/token.py", "trainer.py"]


def test_an_ignored_file_that_is_tracked_travels(folder: Path, tmp_path: Path) -> None:
    (folder / ".gitignore").write_text(IGNORE)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run(["git", "add", "--force", "secret.txt"], cwd=folder, check=True)

    assert "secret.txt" in travelling(folder, tmp_path / "job")


def test_what_travels_and_what_stays_is_said(folder: Path) -> None:
    (folder / ".gitignore").write_text(IGNORE)
    (folder / "a\nb.py").write_text("")

    said = str(job_files(folder))

    assert said.startswith(
        f"5 files of {folder} (0 KiB) go along: a b.py, net/blocks.py, net/local.cfg, net/token.py, "
    )
    assert said.endswith(
        "; stay here: 5 hidden, 2 ignored by git, 3 links, 1 no plain files, 3 runs, caches, environments"
    )
    assert "\n" not in said


def test_a_file_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    found = job_files(folder)
    (folder / "trainer.py").unlink()

    with pytest.raises(SetupError, match=r"work/trainer.py: cannot be sent along: No such file"):
        found.copy(tmp_path / "job")


def test_without_git_nothing_that_might_be_ignored_is_sent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = job_files(folder).names
    (folder / ".gitignore").write_text(IGNORE)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SetupError, match="git has to say which files are ignored and stay here, and does not"):
        job_files(folder)
    (folder / ".gitignore").unlink()
    assert job_files(folder).names == plain
