"""Parses a study file (a bundled one by name, a path, a RUN's study.yaml) into a checked Study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coatnet_search.core import bundled
from coatnet_search.core.checks import safe_name
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.core.schema import Document, read_document
from coatnet_search.data.load import Summary
from coatnet_search.space.file import SpaceFile
from coatnet_search.space.space import Space, load_space
from coatnet_search.study.checks import check_names
from coatnet_search.study.file import StudyFile
from coatnet_search.study.study import Study
from coatnet_search.training.recipe import Recipe, make_recipe


def load_study(name: str | Path, sets: Sequence[str] = (), evaluator: str | None = None) -> Study:
    """A bundled study by name, or a study file by path, with ``a.b=c`` settings laid over it.

    Raises InputError that names file, line and key.
    """
    path = bundled.find("studies", name)
    source = read_document(path)
    resolved = isinstance(source.value, dict) and source.value.get("data_summary") is not None  # RUN/study.yaml
    for assignment in sets:
        source.set(assignment)
    if resolved:
        return study_of_values({**source.value, **({"evaluator": evaluator} if evaluator else {})})
    file = source.parse(StudyFile)
    space = _space(file, source, path)
    study = Study(name=safe_name(path.stem), file=file, space=space, recipe=_recipe(file, source), evaluator=evaluator)
    check_names(study, source)
    return study


def study_files(name: str | Path) -> list[Path]:
    """The files that make a study elsewhere what it is here: its own and its space's; none where both are bundled."""
    path = bundled.find("studies", name)
    if path.parent == bundled.folder("studies"):
        return []
    value = read_document(path).value
    named = value.get("space") if isinstance(value, dict) else None
    beside = path.parent / str(named)
    spaces = [beside] if isinstance(named, str) and beside.is_file() else []
    return [path, *spaces]


def _space(file: StudyFile, source: Document, path: Path) -> Space:
    if isinstance(file.space, SpaceFile):
        try:
            return Space(file.space, path.stem)
        except InputError as error:
            raise source.error(("space",), str(error)) from None
    beside = path.parent / f"{file.space}"
    try:
        found = beside if beside.is_file() else bundled.find("search_spaces", file.space)
    except InputError as error:
        raise source.error(("space",), str(error)) from None
    return load_space(found)  # its mistakes have the space's own file and line


def _recipe(file: StudyFile, source: Document) -> Recipe:
    try:
        return make_recipe(file.recipe)
    except InputError as error:
        where, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        key = where.removeprefix("recipe.")
        raise source.error(("recipe", key) if key in file.recipe else ("recipe",), message) from None


def study_of_values(values: Mapping[str, Any]) -> Study:
    """The study that a RUN's study.yaml holds, checked again. Inverse of ``Study.values``."""
    inner = dict(values)
    summary, evaluator = inner.pop("data_summary", None), inner.pop("evaluator", None)
    name, space_name = inner.pop("name"), inner.pop("space_name", "space")
    inner.pop("data_digest", None)
    source = read_document(f"{name}.yaml", dump(inner))
    file = source.parse(StudyFile)
    assert isinstance(file.space, SpaceFile)
    lists = {key: tuple(value) for key, value in (summary or {}).items() if isinstance(value, list)}
    known = Summary(**{**summary, **lists}) if summary else None
    return Study(name=name, file=file, space=Space(file.space, space_name), recipe=make_recipe(file.recipe),
                 evaluator=evaluator, summary=known)  # fmt: skip
