"""One folder a class: ``root/class/*.jpg``, or ``root/train/class/*.jpg`` beside a ``test`` or ``val`` kept closed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError, unknown
from coatnet_search.data.source import Source, fingerprint, require_path

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
KEPT_CLOSED = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Files:
    """Encoded images that lie in files of their own."""

    root: Path
    files: list[Path]
    labels: NDArray[np.int64]

    def read(self, number: int) -> bytes:
        return self.files[number].read_bytes()

    def name(self, number: int) -> str:
        return str(self.files[number].relative_to(self.root))


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """All image files below a class's folder, by name; hidden files are somebody else's."""
    found = [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    return sorted(found)


def _root(path: Path) -> Path:
    """The folder that holds the classes' folders."""
    if not path.is_dir():
        other = "; data.name=parquet reads it" if path.suffix == ".parquet" else ""
        raise InputError(f"data.path: {path} is a file; image_folder needs a folder with one folder a class{other}")
    if (path / "train").is_dir():
        return path / "train"
    for name in KEPT_CLOSED:
        if (path / name).is_dir():
            raise InputError(f"data.path: {path} has {name}/ but no train/; name the training folder train")
    return path


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source | None:
    """The folder ``test`` beside ``train``, else ``val``; None where there is neither. Raises InputError for a class
    that training does not have."""
    path = require_path(spec, "a folder with one folder of images a class")
    root = next((path / name for name in KEPT_CLOSED if (path / "train").is_dir() and (path / name).is_dir()), None)
    if root is None:
        return None
    images = {folder.name: _images(folder) for folder in _folders(root)}
    for name in images:
        if name not in class_names:
            raise InputError(f"{root / name}: {unknown('class of the training images', name, class_names)}")
    files = [file for found in images.values() for file in found]
    if not files:
        raise InputError(f"data.path: no images below {root}; add some or remove the folder")
    labels = [class_names.index(name) for name, found in images.items() for _ in found]
    found = Files(root=root, files=files, labels=np.asarray(labels, dtype=np.int64))
    return Source(fingerprint=f"folder-{fingerprint(root, files)}", class_names=class_names, num_images=len(files),
                  load=lambda: found, all_classes=False)  # fmt: skip


def open_source(spec: "DataSpec") -> Source:
    """Raises InputError for a folder without images, an empty class, or fewer than two classes."""
    root = _root(require_path(spec, "a folder with one folder of images a class"))
    images = {folder.name: _images(folder) for folder in _folders(root)}
    if not any(images.values()):
        raise InputError(f"data.path: no images below {root}; expected CLASS/IMAGE with {', '.join(SUFFIXES)}")
    for name, files in images.items():
        if not files:
            raise InputError(f"data.path: class {name!r} in {root} has no images; add some or remove the folder")
    if len(images) < 2:
        raise InputError(f"data.path: {root} has one class, {next(iter(images))!r}; at least two folders are needed")
    names = tuple(images)
    labels = np.repeat(np.arange(len(names)), [len(images[name]) for name in names]).astype(np.int64)
    files = [file for name in names for file in images[name]]
    found = Files(root=root, files=files, labels=labels)
    return Source(
        fingerprint=f"folder-{fingerprint(root, files)}",
        class_names=names,
        num_images=len(files),
        load=lambda: found,
        sample=lambda count: [found.read(n * len(files) // count) for n in range(count)],
    )
