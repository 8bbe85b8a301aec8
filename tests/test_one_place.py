"""What only one file may do, since what others did would be unsafe: opening images, writing CSV."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    file for folder in ("coatnet_search", "dashboards", "scripts") for file in sorted((ROOT / folder).rglob("*.py"))
]
PILLOW = ("coatnet_search/data/image_file.py", ("Image.open", "PIL.Image.open"))
CSV = ("coatnet_search/core/csv_file.py",
       ("csv.writer", "csv.DictWriter", "*.to_csv", "*.savetxt"))  # fmt: skip


def names_in(source: str) -> Iterator[str]:
    """All dotted names that a file uses, ``csv.writer``, and those that it imports from a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def users(names: tuple[str, ...]) -> set[str]:
    """The files that use one of the names; ``*.NAME`` is an attribute of anything."""
    found = set()
    for file in FILES:
        used = list(names_in(file.read_text(encoding="utf-8")))
        ends = tuple(name[1:] for name in names if name.startswith("*"))
        if any(name in names or name.endswith(ends or ("\0",)) for name in used):
            found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize(("place", "names"), [PILLOW, CSV], ids=["images", "csv"])
def test_only_one_file_does_it(place: str, names: tuple[str, ...]) -> None:
    assert users(names) == {place}


def test_pillow_is_told_which_formats_it_may_open() -> None:
    tree = ast.parse((ROOT / PILLOW[0]).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open"]

    assert len(calls) == 1
    assert "formats" in {word.arg for word in calls[0].keywords}


@pytest.mark.parametrize("line", [
    "Image.open(file)", "from PIL.Image import open", "table.to_csv(path)", "csv.writer(file)", "np.savetxt(path, x)",
    "from csv import DictWriter",
])  # fmt: skip
def test_another_place_would_be_seen(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.py").write_text(line + "\n")
    monkeypatch.setattr("test_one_place.ROOT", tmp_path)
    monkeypatch.setattr("test_one_place.FILES", [tmp_path / "other.py"])

    assert "other.py" in users(PILLOW[1]) | users(CSV[1])
