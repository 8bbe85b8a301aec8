"""Reads the label column of parquet files as places among class names, whatever type each file stores it in.

A number means what its own file's metadata names it; without names it is its own name. So files whose names come in
another order, splits among them, agree by name.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.data.source import Unlabelled
from coatnet_search.data.sources.listing import shown


@dataclass(frozen=True)
class Labels:
    """The labels of one file: ``values``, each once, and the place of each row's among them.

    ``named``: the class names of the file's metadata, where it has some; then values are places among these.
    """

    file: Path
    column: str
    values: list[Any]  # int or str
    places: NDArray[np.int64]  # (rows,)
    named: tuple[str, ...] | None

    @property
    def numbers(self) -> bool:
        return all(isinstance(value, int) for value in self.values)

    def names(self, default: tuple[str, ...] | None) -> list[str]:
        """The class name of each value. ``default``: the names of numbers where the file itself has none. Raises
        InputError for a number without a name."""
        known = self.named or default
        return [str(value) if known is None or isinstance(value, str) else self._name(value, known)
                for value in self.values]  # fmt: skip

    def _name(self, number: int, known: tuple[str, ...]) -> str:
        if number < 0:
            raise self.error(f"label {number} is negative (unlabelled images?); expected 0 .. classes - 1")
        if number >= len(known):
            raise self.error(f"label {number}, but the file names only {len(known)} classes")
        return known[number]

    def error(self, text: str) -> InputError:
        return InputError(f"{shown(self.file)}: column {self.column!r}: {text}")


def metadata_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """The class names that the ``datasets`` library writes into a file's metadata, if they are there."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = info.get("names") or info["feature"]["names"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return tuple(str(name) for name in names)


def file_labels(file: Path, column: str, values: pa.ChunkedArray, named: tuple[str, ...] | None) -> Labels:
    """Raises InputError for labels that are missing or no class (several a row, fractions, other types), Unlabelled
    where all are missing or -1."""
    made = Labels(file, column, [], np.zeros(0, dtype=np.int64), named)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(values), 1).to_numpy()
        if len(lengths) and not lengths.any():
            raise Unlabelled(f"{shown(file)}: column {column!r}: the lists of labels are empty")
        if (lengths != 1).any():
            row = int(np.argmax(lengths != 1))
            raise made.error(f"row {row} has {lengths[row]} labels; one image, one class is expected")
        values = pc.list_element(values, 0)
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    if len(values) and values.null_count == len(values):
        raise Unlabelled(f"{shown(file)}: column {column!r}: row 0 has no label, nor has any other")
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy()))
        raise made.error(f"row {row} has no label")
    try:
        encoded = values.combine_chunks().dictionary_encode()
    except pa.ArrowException:
        raise made.error(f"expected whole numbers or text, got {values.type}") from None
    found = [_plain(made, value) for value in encoded.dictionary.to_pylist()]
    if found and all(value == -1 for value in found):
        raise Unlabelled(f"{shown(file)}: column {column!r}: label -1 is negative: no image has a label")
    return Labels(file, column, found, encoded.indices.to_numpy().astype(np.int64), named)


def _plain(made: Labels, value: Any) -> int | str:
    if isinstance(value, bool):
        return int(value) if made.named else str(value).lower()
    if isinstance(value, (int, str)):
        return value
    if isinstance(value, (float, Decimal)) and float(value).is_integer():
        return int(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise made.error(f"expected whole numbers or text, got {value!r}")


def classes(files: list[Labels]) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """(labels of all rows, the names of the classes that have images, names of classes that have none).

    In the order of the metadata's names, else of the numbers, else of the alphabet. Raises InputError for negative
    labels beside others, for numbers in a file without names where the other files' names disagree, and for fewer than
    two classes.
    """
    where = files[0]
    orders = list(dict.fromkeys(labels.named for labels in files if labels.named))
    default = _default(files, orders)
    texts = [labels.names(default) for labels in files]
    used = {text for names in texts for text in names}
    if orders:
        order = list(dict.fromkeys(name for names in orders for name in names))
        order += sorted(used - set(order))
    elif all(labels.numbers for labels in files):
        numbers = sorted({value for labels in files for value in labels.values})
        if numbers and numbers[0] < 0 and numbers != [-1, 1]:
            raise where.error(f"label {numbers[0]} is negative (unlabelled images?); expected 0 .. classes - 1")
        order = [str(number) for number in numbers]
    else:
        order = sorted(used)
    names = tuple(name for name in order if name in used)
    if not names:
        raise InputError(f"{shown(where.file)}: no rows")
    if len(names) < 2:
        raise where.error(f"one class only, {names[0]!r}; at least two are needed")
    return _placed(files, texts, names), names, tuple(name for name in order if name not in used)


def known_labels(files: list[Labels], names: tuple[str, ...], trained: list[tuple[str, ...]]) -> NDArray[np.int64]:
    """Labels of a validation or test split as places among training's classes. ``trained``: the names of numbers in
    training's files. Raises InputError for other classes."""
    default = _default(files, trained)
    texts = [labels.names(default) for labels in files]
    known = set(names)
    for labels, mine in zip(files, texts, strict=True):
        for name in mine:
            if name not in known:
                raise labels.error(f"{name} is no class of the training images, which have {len(names)}: "
                                   f"{', '.join(names[:8])}")  # fmt: skip
    return _placed(files, texts, names)


def _default(files: list[Labels], orders: list[tuple[str, ...]]) -> tuple[str, ...] | None:
    bare = [labels for labels in files if labels.named is None and labels.numbers and labels.values]
    if bare and len(orders) > 1:
        raise bare[0].error("numbers without names, and the other files name them differently; name them here too")
    return orders[0] if orders else None


def _placed(files: list[Labels], texts: list[list[str]], names: tuple[str, ...]) -> NDArray[np.int64]:
    place = {name: number for number, name in enumerate(names)}
    found = [np.asarray([place[text] for text in mine], dtype=np.int64)[labels.places] if mine else labels.places
             for labels, mine in zip(files, texts, strict=True)]  # fmt: skip
    return np.concatenate(found)
