"""Makes the RUN's folder with its study.yaml, and refuses a study that changed since the RUN began."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import coatnet_search
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.core.whole_file import write_text
from coatnet_search.record.fold import RUNS, read_values
from coatnet_search.study.load import study_of_values
from coatnet_search.study.study import Study

# what a RUN's results follow from; the rest (trials, resources, tracking, choose, question) may change on resume
FIXED = ("space", "data", "evaluate", "supernet", "evaluator", "recipe", "objectives", "measure", "measure_when",
         "conditions", "limits", "equal_cost", "tune", "match", "data_digest")  # fmt: skip
AUDITED = ("epochs", "num_images", "recipe")  # of an audit: those that its results follow from
FREE_IN_DATA = ("path", "download", "workers")


def prepare_run(study: Study, runs: Path = RUNS) -> Path:
    """The study's folder with its study.yaml; one that is there already must hold the same study.

    Raises InputError with the differences where space, data, recipe, objectives, strategy or seed changed.
    """
    run = runs / study.name
    path, values = run / "study.yaml", study.values()
    if path.is_file():
        # read as a study again: a key that came with a later version stood at its default
        changes = list(differences(study_of_values(read_values(path)).values(), values))
        if changes:
            raise InputError(f"{run} holds another study: {'; '.join(changes[:5])}. Give the same file and --set as "
                             f"before, or --fork NAME for a new study that starts with what still holds")  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, dump(values))
    return run


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What changed of that which a RUN's results follow from, as ``recipe.epochs: 5 -> 6``."""
    for name in FIXED:
        yield from _changed(name, before.get(name), after.get(name))
    audits = before.get("audit"), after.get("audit")
    for name in AUDITED if all(audits) else ():
        yield from _changed(f"audit.{name}", *(audit.get(name) for audit in audits if audit))
    for name in ("strategy", "seed", "options", "halving"):
        yield from _changed(f"search.{name}", before.get("search", {}).get(name), after.get("search", {}).get(name))


def _changed(name: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if not (name == "data" and key in FREE_IN_DATA):
                yield from _changed(f"{name}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{name}: {before!r} -> {after!r}"


@functools.cache
def code_version() -> str:
    """The package's version and a digest of its source files: what a record says it was made with."""
    files = sorted(Path(coatnet_search.__file__).parent.rglob("*.py"))
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return f"{coatnet_search.__version__}+{content}"
