"""The Hugging Face image layout: parquet files with a column ``image`` (or ``img``) of {bytes, path} and ``label``.

``data.path`` is one file or a folder that holds ``train*.parquet`` (also in its folder ``data``).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.data.cache import cached
from coatnet_search.data.source import Source, fingerprint, require_path

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")


@dataclass
class Blob:
    """Encoded images one after another in one memory-mapped file: random access without reading whole row groups."""

    path: Path
    offsets: NDArray[np.int64]  # (N + 1,)
    labels: NDArray[np.int64]
    file_name: str
    _map: NDArray[np.uint8] | None = field(default=None, repr=False)

    def read(self, number: int) -> bytes:
        if self._map is None:
            self._map = np.memmap(self.path, dtype=np.uint8, mode="r")
        return self._map[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def name(self, number: int) -> str:
        return f"{self.file_name}: row {number}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # a worker maps the file itself instead of receiving a copy


TEST_NAMES = ("test", "val")  # beginnings of file names; the first that is there is the test split


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if files := _begin(path, "train"):
        return files
    raise InputError(f"data.path: no train*.parquet in {path}")


def _begin(path: Path, name: str) -> list[Path]:
    """Parquet files of a split, in the folder or in its folder ``data``."""
    found = (sorted(folder.glob(f"{name}*.parquet")) for folder in (path, path / "data"))
    return next((files for files in found if files), [])


def _test_files(path: Path) -> list[Path]:
    if path.is_file() and not path.name.startswith("train"):
        return []  # the one file of a data set without splits
    folder = path.parent if path.is_file() else path
    return next((files for name in TEST_NAMES if (files := _begin(folder, name))), [])


def _column(schema: pa.Schema, names: tuple[str, ...], file: Path) -> str:
    for name in names:
        if name in schema.names:
            return name
    known = ", ".join(schema.names)
    raise InputError(f"{file}: no column {' or '.join(repr(name) for name in names)}; the columns are {known}")


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a parquet file: {error}") from None


def _check_image_type(kind: pa.DataType, column: str, file: Path) -> None:
    struct = pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    if not (struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(f"{file}: column {column!r}: expected {{bytes, path}} or bytes, got {kind}")


def _named_classes(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """The class names that the ``datasets`` library writes into the file's metadata, if they are there."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = info.get("names") or info["feature"]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return tuple(str(name) for name in names)


def _labels(files: list[Path], column: str) -> tuple[NDArray[Any], int]:
    """The label column as it stands, and its first null's row (-1: none)."""
    values = pa.chunked_array([c for f in files for c in pq.read_table(f, columns=[column])[column].chunks])
    if len(values) == 0:
        raise InputError(f"{files[0]}: no rows")
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy()))
        raise InputError(f"{files[0]}: column {column!r}: row {row} has no label")
    return values.to_numpy(zero_copy_only=False), len(values)


def _classes(
    values: NDArray[Any], named: tuple[str, ...] | None, where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as 0..K-1 and the K names. Raises InputError for holes, negative labels and labels beyond the names."""
    if values.dtype.kind in "OUS":
        found, numbers = np.unique(values.astype(str), return_inverse=True)
        labels, names = numbers.astype(np.int64), tuple(str(name) for name in found)
    elif values.dtype.kind in "iu":
        labels = values.astype(np.int64)
        names = named or tuple(str(number) for number in range(int(labels.max()) + 1))
    else:
        raise InputError(f"{where}: expected whole numbers or text, got {values.dtype}")
    if labels.min() < 0:
        raise InputError(f"{where}: label {labels.min()} is negative (unlabelled images?); expected 0 .. classes - 1")
    if labels.max() >= len(names):
        raise InputError(f"{where}: label {labels.max()}, but the file names only {len(names)} classes")
    if len(names) > len(labels):
        raise InputError(f"{where}: labels reach {len(names) - 1} with only {len(labels)} images")
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        raise InputError(
            f"{where}: class {names[empty[0]]!r} ({empty[0]}) has no images; labels must be 0 .. classes - 1"
        )
    if len(names) < 2:
        raise InputError(f"{where}: one class only; at least two are needed")
    return labels, names


def _known_classes(values: NDArray[Any], names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Labels of a test split as places among training's classes. Raises InputError for others."""
    texts = values.dtype.kind in "OUS"
    places = {name: place for place, name in enumerate(names)} if texts else dict(enumerate(range(len(names))))
    wrong = [value for value in np.unique(values.astype(str) if texts else values) if value not in places]
    if wrong:
        raise InputError(f"{where}: {wrong[0]!s} is no class of the training images, which have {len(names)}")
    return np.asarray([places[value] for value in values.tolist()], dtype=np.int64)


def _encoded(files: list[Path], column: str) -> Any:
    """Arrays of bytes, a batch of rows at a time, so that a file larger than memory can be read."""
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024, columns=[column]):
            values = batch.column(0)
            values = values.field("bytes") if pa.types.is_struct(values.type) else values
            if values.null_count:
                raise InputError(f"{file}: column {column!r} has rows without bytes (paths only?); embed the images")
            yield values


def _blob(files: list[Path], column: str, labels: NDArray[np.int64], key: str) -> Blob:
    lengths: list[int] = []

    def write(path: Path) -> None:
        with path.open("wb") as out:
            for values in _encoded(files, column):
                for value in values:
                    content = value.as_py()
                    lengths.append(len(content))
                    out.write(content)
            np.asarray(lengths, dtype="<i8").tofile(out)  # the lengths come last: one file, made whole by one rename

    path = cached(f"images-{key}.bin", write)
    tail = np.memmap(path, dtype=np.uint8, mode="r")[path.stat().st_size - 8 * len(labels) :]
    offsets = np.concatenate([[0], np.cumsum(np.frombuffer(tail.tobytes(), dtype="<i8"))]).astype(np.int64)
    return Blob(path=path, offsets=offsets, labels=labels, file_name=files[0].name)


def open_source(spec: "DataSpec") -> Source:
    """Raises InputError for missing columns, odd types, label holes and files that aren't parquet."""
    path = require_path(spec, "a parquet file or a folder with train*.parquet")
    return _opened(_files(path), None)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source | None:
    """The files ``test*.parquet`` beside the training's, else ``val*.parquet``; None where there are none.

    Raises as ``open_source``, and for a class that training does not have.
    """
    files = _test_files(require_path(spec, "a parquet file or a folder with train*.parquet"))
    return _opened(files, class_names) if files else None


def _opened(files: list[Path], class_names: tuple[str, ...] | None) -> Source:
    """``class_names``: those of training, where this is the test split."""
    schema = _schema(files[0])
    image, label = _column(schema, IMAGE_COLUMNS, files[0]), _column(schema, LABEL_COLUMNS, files[0])
    _check_image_type(schema.field(image).type, image, files[0])
    for file in files[1:]:
        other = _schema(file)
        if any(name not in other.names for name in (image, label)):
            raise InputError(f"{file}: no column {image!r} or {label!r}, unlike {files[0].name}")
    values, num_images = _labels(files, label)
    where = f"{files[0]}: column {label!r}"
    if class_names is None:
        labels, names = _classes(values, _named_classes(schema, label), where)
    else:
        labels, names = _known_classes(values, class_names, where), class_names
    key = f"parquet-{fingerprint(files[0].parent, files)}"
    return Source(
        fingerprint=key,
        class_names=names,
        num_images=num_images,
        all_classes=class_names is None,
        load=lambda: _blob(files, image, labels, key),
        sample=lambda count: [value.as_py() for value in next(_encoded(files, image))[:count]],
    )
