"""Writes the path of an SQLite file as a URI, and reads it back: characters with a meaning in URIs are escaped."""

from pathlib import Path
from urllib.parse import quote, unquote

_SCHEME = "sqlite:///"
_PLAIN = "/ #&+=@:~,;!'()[]"  # left as they are: only ? and % mean something there


def sqlite_uri(file: Path) -> str:
    return f"{_SCHEME}{quote(str(file.resolve()), safe=_PLAIN)}"


def sqlite_file(uri: str) -> Path | None:
    """The file that SQLAlchemy opens for a URI; None where that is no SQLite file."""
    path = unquote(uri.removeprefix(_SCHEME).partition("?")[0])
    return Path(path) if uri.startswith(_SCHEME) and path else None


def misread_folders(uri: str) -> list[Path]:
    """Folders that are not there, and that a program which does not read the escapes (MLflow) makes for such a URI, the
    innermost first."""
    file = sqlite_file(uri)
    taken = Path(uri.removeprefix(_SCHEME))
    if file is None or taken == file:
        return []
    return [folder for folder in taken.parents if not folder.exists() and folder not in file.parents]
