"""Paths of SQLite files as URIs, also of folders whose names hold what means something in a URI."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from coatnet_search.core.sqlite_uri import misread_folders, sqlite_file, sqlite_uri


@pytest.mark.parametrize(
    "name", ["plain", "what?", "50% off", "a%20b", "a%3Fb", "hash#tag", "both?#%", "ü & ö", "a?b=c&d"]
)
def test_the_file_lies_where_its_path_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "mlflow.db"
    file.parent.mkdir()

    with create_engine(sqlite_uri(file)).begin() as connection:
        connection.execute(text("create table trials (number int)"))

    assert sqlite_file(sqlite_uri(file)) == file and file.stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_plain_path_reads_as_it_always_did(tmp_path: Path) -> None:
    file = tmp_path / "my runs" / "mlflow.db"

    assert sqlite_uri(file) == f"sqlite:///{file}"
    assert misread_folders(sqlite_uri(file)) == []


def test_other_databases_have_no_file() -> None:
    assert sqlite_file("http://127.0.0.1:5000") is None and sqlite_file("sqlite://") is None


def test_the_folders_that_a_misread_uri_leaves_are_known_innermost_first(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()

    found = misread_folders(sqlite_uri(tmp_path / "what?" / "runs" / "mlflow.db"))

    assert found == [tmp_path / "what%3F" / "runs", tmp_path / "what%3F"]
