"""One folder a class: ``root/class/*.jpg``, or ``root/train/class/*.jpg`` beside a ``val`` and a ``test``."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError, unknown
from coatnet_search.data.source import Source, Unlabelled, fingerprint, label_key, require_path
from coatnet_search.data.sources.folder_layout import find_layout, labelled
from coatnet_search.data.sources.listing import IMAGE_ENDINGS, Folder, passed_over, read_file, read_folder, shown
from coatnet_search.data.sources.split_names import unused_beside

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

WHAT = "a folder with one folder of images a class"


@dataclass(frozen=True)
class Files:
    """Encoded images that lie in files of their own."""

    root: Path
    files: list[Path]
    labels: NDArray[np.int64]

    def read(self, number: int) -> bytes:
        return read_file(self.files[number])

    def name(self, number: int) -> str:
        return shown(self.files[number].relative_to(self.root))


def _read(spec: "DataSpec") -> Folder:
    path = require_path(spec, WHAT)
    if not path.is_dir():
        other = "; data.name=parquet reads it" if path.suffix == ".parquet" else ""
        raise InputError(f"data.path: {shown(path)} is a file; image_folder needs a folder with one folder a class"
                         f"{other}")  # fmt: skip
    return read_folder(path, IMAGE_ENDINGS)


def open_source(spec: "DataSpec") -> Source:
    """Training's images, and those of a validation folder beside them.

    Raises InputError for a folder without images, an empty class, fewer than two classes, and folders that could be
    splits as well as classes.
    """
    root = _read(spec)
    layout = find_layout(root)
    images = {folder.name: folder.all_files() for folder in layout.train.folders}
    for folder in layout.train.folders:
        if not folder.count:
            passed = passed_over(folder.all_passed())
            raise InputError(f"data.path: class {folder.name!r} in {shown(layout.train.path)} has no images"
                             f"{f' ({passed})' if passed else ''}; add some or remove the folder")  # fmt: skip
    if not images:
        raise InputError(f"data.path: {shown(layout.train.path)} holds images but no folder a class; expected "
                         "CLASS/IMAGE")  # fmt: skip
    if len(images) < 2:
        raise InputError(f"data.path: {shown(layout.train.path)} has one class, {next(iter(images))!r}; at least two "
                         "folders are needed")  # fmt: skip
    names = tuple(images)
    files, labels = _flat(images, names)
    findings = (*layout.findings, *unused_beside(root.path))
    validation = labelled(layout.val, names) if layout.val else None
    if layout.val and validation is None:
        findings = (*findings, f"{layout.val.name}/ is passed over: its images lie in no folder of a class")
    if validation is None:
        return _source(layout.train.path, files, labels, names, findings)
    val_files, val_labels = _flat(_known(validation, names), names)
    is_val = np.repeat([False, True], [len(files), len(val_files)])
    return _source(root.path, [*files, *val_files], np.concatenate([labels, val_labels]), names, findings, is_val)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source | None:
    """The test folder beside training's; None where there is none. Raises InputError for a class that training does
    not have, Unlabelled where no folder tells the classes."""
    folder = find_layout(_read(spec)).test
    if folder is None:
        return None
    level = labelled(folder, class_names)
    if level is None:
        raise Unlabelled(f"{shown(folder.path)}: its images lie in no folder of a class")
    files, labels = _flat(_known(level, class_names), class_names)
    found = _source(level.path, files, labels, class_names, ())
    key = f"{found.fingerprint}-{label_key(class_names, labels)}"
    return dataclasses.replace(found, fingerprint=key, all_classes=False)


def _known(level: Folder, class_names: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each class in a validation or test folder. Raises InputError for a class that is not training's."""
    known = set(class_names)
    for folder in level.filled:
        if folder.name not in known:
            problem = unknown("class of the training images", folder.name, class_names)
            raise InputError(f"{shown(folder.path)}: {problem}")
    return {folder.name: folder.all_files() for folder in level.filled}


def _flat(images: dict[str, list[Path]], names: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    place = {name: number for number, name in enumerate(names)}
    labels = np.repeat([place[name] for name in images], [len(files) for files in images.values()])
    return [file for files in images.values() for file in files], labels.astype(np.int64)


def _source(root: Path, files: list[Path], labels: NDArray[np.int64], names: tuple[str, ...],
            findings: tuple[str, ...], is_val: NDArray[np.bool_] | None = None) -> Source:  # fmt: skip
    found = Files(root=root, files=files, labels=labels)
    return Source(
        fingerprint=f"folder-{fingerprint(root, files)}",
        class_names=names,
        num_images=len(files),
        load=lambda: found,
        sample=functools.partial(_sample, found),
        is_val=is_val,
        findings=findings,
        labels=found.labels,
    )


def _sample(images: Files, count: int) -> list[bytes]:
    """Some files from beginning to end; one that cannot be read is no image."""
    found = []
    for number in range(count):
        try:
            found.append(images.read(number * len(images.files) // count))
        except OSError:
            found.append(b"")
    return found
