"""Finds what comes with the package: spaces and studies by name (a path works as well), the dashboard's folder."""

from pathlib import Path
from typing import Literal

from coatnet_search.core.errors import InputError, unknown

Kind = Literal["search_spaces", "studies", "dashboards"]
_SINGULAR = {"search_spaces": "space", "studies": "study"}


def folder(kind: Kind) -> Path:
    """In an installed package the files lie inside it, in a checkout beside it."""
    package = Path(__file__).parent.parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: Kind, name: str | Path) -> Path:
    """The file of a bundled name or of a path. Raises InputError that names the bundled ones."""
    path = Path(name)
    if max(map(len, path.parts), default=0) > 255:
        raise InputError(f"{str(name)[:40]}...: a name of a file has at most 255 letters")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise InputError(f"{path}: no such file; bundled: {', '.join(names(kind))}")
    bundled = folder(kind) / f"{name}.yaml"
    if bundled.is_file():
        return bundled
    if path.is_file():
        return path
    raise InputError(unknown(_SINGULAR[kind], str(name), names(kind)))
