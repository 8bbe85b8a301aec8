"""Parquet files with a column of images, each {bytes, path} or bytes, and a column of labels: the Hugging Face layout.

``data.path`` is one file or a folder (``parquet_files.py`` says which names are understood).
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coatnet_search.core.canonical import digest
from coatnet_search.core.document import one_line
from coatnet_search.core.errors import InputError
from coatnet_search.data.cache import cached
from coatnet_search.data.source import Source, Unlabelled, fingerprint, label_key, require_path
from coatnet_search.data.sources.listing import shown
from coatnet_search.data.sources.parquet_files import ParquetFiles, find_parquet, partition_values
from coatnet_search.data.sources.parquet_labels import Labels, classes, file_labels, known_labels, metadata_names
from coatnet_search.data.sources.split_names import unused_beside

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
OTHER_LABEL_COLUMNS = ("labels", "class", "class_label", "target", "category", "y")  # where only one of them is there
NO_LABELS = ("id", "idx", "index", "path", "file", "filename", "file_name", "url", "width", "height", "caption", "text")
ROWS = 1024  # read at once


@dataclass
class Blob:
    """Encoded images one after another in one memory-mapped file: random access without reading whole row groups."""

    path: Path
    offsets: NDArray[np.int64]  # (N + 1,)
    labels: NDArray[np.int64]
    files: tuple[str, ...]
    begins: NDArray[np.int64]  # (files,): the number of each file's first image
    _map: NDArray[np.uint8] | None = field(default=None, repr=False)

    def read(self, number: int) -> bytes:
        begin, end = self.offsets[number : number + 2]
        if begin == end:
            raise OSError(errno.ENODATA, "the row has no image")
        if self._map is None:
            self._map = np.memmap(self.path, dtype=np.uint8, mode="r")
        return self._map[begin:end].tobytes()

    def name(self, number: int) -> str:
        file = int(np.searchsorted(self.begins, number, side="right")) - 1
        return f"{self.files[file]}: row {number - self.begins[file]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # a worker maps the file itself instead of receiving a copy


@dataclass(frozen=True)
class Part:
    """The files of a split: where their images are, and their labels as they stand."""

    files: list[Path]
    image: str
    labels: list[Labels]


def open_source(spec: "DataSpec") -> Source:
    """Training's images, and those of a validation split beside them.

    Raises InputError for missing columns, odd types, labels that are no classes and files that aren't parquet.
    """
    found = _find(spec)
    train = _part(found.train, found.root, spec)
    labels, names, unused = classes(train.labels)
    findings = (*found.findings, *unused_beside(found.root))
    if unused:
        findings = (*findings, f"{len(unused)} of the named classes without images left out: {', '.join(unused[:8])}")
    val, problem = _validation(found, spec)
    findings = (*findings, *problem)
    if val is None:
        return _source([train], labels, names, findings)
    val_labels = known_labels(val.labels, names, _orders(train))
    is_val = np.repeat([False, True], [len(labels), len(val_labels)])
    return _source([train, val], np.concatenate([labels, val_labels]), names, findings, is_val)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source | None:
    """The test files beside training's; None where there are none.

    Raises as ``open_source``, for a class that training does not have, and Unlabelled.
    """
    found = _find(spec)
    if not found.test:
        return None
    test = _part(found.test, found.root, spec)
    labels = known_labels(test.labels, class_names, _orders(_part(found.train, found.root, spec)))
    return _source([test], labels, class_names, (), all_classes=False)


def _find(spec: "DataSpec") -> ParquetFiles:
    return find_parquet(require_path(spec, "a parquet file or a folder with train*.parquet"))


def _validation(found: ParquetFiles, spec: "DataSpec") -> tuple[Part | None, list[str]]:
    """The validation split, and why one that is there is not used."""
    try:
        return (_part(found.val, found.root, spec) if found.val else None), []
    except Unlabelled as error:
        return None, [f"the validation split is passed over: {error}"]


def _orders(part: Part) -> list[tuple[str, ...]]:
    """What the files of training name their numbers."""
    return list(dict.fromkeys(labels.named for labels in part.labels if labels.named))


def _part(files: list[Path], root: Path, spec: "DataSpec") -> Part:
    schemas = [_schema(file) for file in files]
    first = files[0]
    image = _image_column(schemas[0], first, spec.image_column)
    label = _label_column(schemas[0], image, first, root, spec.label_column)
    labels = []
    for file, schema in zip(files, schemas, strict=True):
        given = partition_values(file, root)
        if image not in schema.names or (label not in schema.names and label not in given):
            raise InputError(f"{shown(file)}: no column {image!r} or {label!r}, unlike {shown(first.name)}")
        _check_image_type(schema.field(image).type, image, file)
        with _reading(f"{shown(file)}: column {label!r} cannot be read"), pq.ParquetFile(file) as opened:
            if label in schema.names:
                values = opened.read(columns=[label])[label]
            else:
                values = pa.chunked_array([pa.repeat(given[label], opened.metadata.num_rows)])
            labels.append(file_labels(file, label, values, metadata_names(schema, label)))
    return Part(files, image, labels)


def _schema(file: Path) -> pa.Schema:
    with _reading(f"{shown(file)}: not a parquet file"):
        return pq.read_schema(file)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever Arrow raises on a damaged file becomes one line of InputError."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # also text that is not UTF-8
        raise InputError(f"{where}: {one_line(str(error))}") from None


def _image_column(schema: pa.Schema, file: Path, asked: str | None) -> str:
    kinds = {name: schema.field(name).type for name in schema.names}
    found = [name for name, kind in kinds.items() if _holds_images(kind)]
    return _column(schema.names, asked, IMAGE_COLUMNS, (), found, "image", file)


def _label_column(schema: pa.Schema, image: str, file: Path, root: Path, asked: str | None) -> str:
    given = partition_values(file, root)
    names = [name for name in (*schema.names, *given) if name != image]
    found = [name for name in names if metadata_names(schema, name)]
    if not found:
        found = [name for name in names if name.lower() not in NO_LABELS and not name.startswith("__")
                 and (name in given or _holds_labels(schema.field(name).type))]  # fmt: skip
    return _column(names, asked, LABEL_COLUMNS, OTHER_LABEL_COLUMNS, found, "label", file)


def _column(names: list[str], asked: str | None, usual: tuple[str, ...], others: tuple[str, ...], possible: list[str],
            what: str, file: Path) -> str:  # fmt: skip
    """The column that is asked for, else one that is named as usual, else the only one that can be meant."""
    if asked is not None:
        if asked not in names:
            raise InputError(f"{shown(file)}: no column {asked!r} (data.{what}_column); the columns are "
                             f"{', '.join(names)}")  # fmt: skip
        return asked
    for name in usual:
        if name in names:
            return name
    for found in ([name for name in others if name in names], possible):
        if len(found) == 1:
            return found[0]
    kind = InputError if possible else Unlabelled
    raise kind(f"{shown(file)}: no column {' or '.join(repr(name) for name in usual)}; the columns are "
               f"{', '.join(names)}: --set data.{what}_column=NAME says which one has the {what}s")  # fmt: skip


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def _check_image_type(kind: pa.DataType, column: str, file: Path) -> None:
    if not _holds_images(kind):
        raise InputError(f"{shown(file)}: column {column!r}: expected {{bytes, path}} or bytes, got {kind}")


def _encoded(file: Path, column: str) -> Iterator[pa.Array]:
    """Arrays of bytes, a batch of rows at a time, so that a file larger than memory can be read."""
    any_bytes = rows = 0
    where = f"{shown(file)}: column {column!r} cannot be read"
    with _reading(where), pq.ParquetFile(file) as opened:
        batches = opened.iter_batches(batch_size=ROWS, columns=[column])
        while True:
            with _reading(where):
                batch = next(batches, None)
            if batch is None:
                break
            values = batch.column(0)
            values = pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values
            any_bytes, rows = any_bytes + len(values) - values.null_count, rows + len(values)
            yield values
    if rows and not any_bytes:
        raise InputError(f"{shown(file)}: column {column!r} has no bytes in any row (paths only?); embed the images")


def _blob(parts: list[Part], labels: NDArray[np.int64], key: str) -> Blob:
    files = [(file, part.image) for part in parts for file in part.files]
    lengths: list[int] = []

    def write(path: Path) -> None:
        with path.open("wb") as out:
            for file, column in files:
                for values in _encoded(file, column):
                    for value in values:
                        content = value.as_py() or b""  # a row without an image is one that cannot be read
                        lengths.append(len(content))
                        out.write(content)
            np.asarray(lengths, dtype="<i8").tofile(out)  # the lengths come last: one file, made whole by one rename

    path = cached(f"images-{key}.bin", write)
    tail = np.memmap(path, dtype=np.uint8, mode="r")[path.stat().st_size - 8 * len(labels) :]
    offsets = np.concatenate([[0], np.cumsum(np.frombuffer(tail.tobytes(), dtype="<i8"))]).astype(np.int64)
    rows = [len(file.places) for part in parts for file in part.labels]
    return Blob(path=path, offsets=offsets, labels=labels, files=tuple(shown(file.name) for file, _ in files),
                begins=np.cumsum([0, *rows[:-1]]))  # fmt: skip


def _source(parts: list[Part], labels: NDArray[np.int64], names: tuple[str, ...], findings: tuple[str, ...],
            is_val: NDArray[np.bool_] | None = None, all_classes: bool = True) -> Source:  # fmt: skip
    files = [file for part in parts for file in part.files]
    root = Path(os.path.commonpath([file.parent for file in files]))
    key = f"parquet-{fingerprint(root, files)}"
    images = {part.image for part in parts}
    if not images <= {IMAGE_COLUMNS[0]}:
        key += f"-{digest(sorted(images))}"
    return Source(
        fingerprint=f"{key}-{label_key(names, labels)}",
        class_names=names,
        num_images=len(labels),
        all_classes=all_classes,
        load=lambda: _blob(parts, labels, key),
        sample=lambda count: [value.as_py() or b"" for value in next(_encoded(files[0], parts[0].image))[:count]],
        is_val=is_val,
        findings=findings,
        labels=labels,
    )
