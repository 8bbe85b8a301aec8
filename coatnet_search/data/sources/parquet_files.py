"""Finds which parquet files of a folder hold a data set's training, validation and test images.

Names that are understood: ``train-00000-of-00002.parquet``, also in ``data/``; ``default/train/0000.parquet``;
``train.parquet/part-0.parquet``; ``train/label=cat/part-0.parquet``; files without any split in their names.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from coatnet_search.core.errors import InputError
from coatnet_search.data.sources.listing import is_hidden, passed_over, read_folder, shown
from coatnet_search.data.sources.split_names import KINDS, Split, split_of, splits_of

ENDING = ".parquet"
CLOSED: tuple[Split, ...] = ("val", "test")  # beside training
_SHARD = re.compile(r"([-_.]\d+([-_]of[-_]\d+)?([-_.][0-9a-f]{16})?)+$")  # -00000-of-00002-0123456789abcdef
_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class ParquetFiles:
    """The files of each split, by name. ``findings``: as ``Source`` has them."""

    root: Path
    train: list[Path]
    val: list[Path]
    test: list[Path]
    findings: tuple[str, ...]


def find_parquet(path: Path) -> ParquetFiles:
    """``path``: a folder, or one file, which is all of training; splits beside it count where it is named as training.

    Raises InputError where there is no training file, or several data sets.
    """
    if path.is_dir():
        place, folder = path, read_folder(path, (ENDING,))
        files, passed = folder.all_files(), passed_over(folder.all_passed())
        named = _split_names(files, place)
        if not any(named.values()):
            named = dict.fromkeys(files, "train")  # a data set without splits
    else:
        place, passed = path.parent, None
        files = [path, *_closed_beside(path)]
        named = {**_split_names(files, place), path: "train"}
    train = _one_data_set(place, [file for file in files if named.get(file) == "train"])
    if not train:
        others = f"; there is {', '.join(sorted({shown(file.name) for file in files})[:4])}" if files else ""
        raise InputError(f"data.path: no train*.parquet in {shown(path)}{others}")
    home = _home(place, train[0])
    parts: dict[Split, list[Path]] = {
        split: [file for file in files if named.get(file) == split and _home(place, file) in (home, (), ("data",))]
        for split in CLOSED
    }
    used = {*train, *parts["val"], *parts["test"]}
    findings = _findings(place, {"train": train, **parts}, [file for file in files if file not in used])
    for file in used:
        if not file.is_file():
            raise InputError(f"{shown(file)}: not a file that can be read")
    return ParquetFiles(place, train, parts["val"], parts["test"], (*findings, passed) if passed else findings)


def partition_values(file: Path, root: Path) -> dict[str, str]:
    """The columns that the folders of a file name: ``label=cat/part-0.parquet`` -> {"label": "cat"}."""
    found = (_PARTITION.fullmatch(part) for part in file.relative_to(root).parts[:-1])
    return {match[1]: unquote(match[2]) for match in found if match}


def _closed_beside(path: Path) -> list[Path]:
    """The validation and test files beside one that is named as training."""
    beside = [path, *(file for file in sorted(path.parent.glob(f"*{ENDING}")) if file != path)]
    named = _split_names([file for file in beside if not is_hidden(file.name)], path.parent)
    return [file for file, split in named.items() if split in ("val", "test")] if named.get(path) == "train" else []


def _name(file: Path) -> str:
    """A file's name without its ending and the number of its shard."""
    return _SHARD.sub("", shown(file.name).removesuffix(ENDING))


def _split_names(files: list[Path], root: Path) -> dict[Path, Split | None]:
    """The split of each file, from its own name, else from the nearest folder that is named as a split."""
    names = splits_of({_name(file) for file in files})
    if "train" not in names.values():
        loose = {_name(file) for file in files if split_of(_name(file))[0] == "train"}
        names |= dict.fromkeys(loose, "train") if len(loose) == 1 else {}
    parents = {file: file.relative_to(root).parts[:-1] for file in files}
    folders = splits_of({part for parts in parents.values() for part in parts if not _PARTITION.fullmatch(part)})
    found: dict[Path, Split | None] = {}
    for file in files:
        above = next((folders[part] for part in reversed(parents[file]) if part in folders), None)
        found[file] = names.get(_name(file)) if split_of(_name(file))[0] else above
    return found


def _home(root: Path, file: Path) -> tuple[str, ...]:
    """The folders above a file that name neither a split nor a column."""
    parts = file.relative_to(root).parts[:-1]
    return tuple(part for part in parts if split_of(part)[0] is None and not _PARTITION.fullmatch(part))


def _one_data_set(root: Path, files: list[Path]) -> list[Path]:
    """The files of one data set: in the folder itself, else in its folder ``data``, else in the only one there is."""
    homes: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        homes.setdefault(_home(root, file), []).append(file)
    for home in ((), ("data",)):
        if home in homes:
            return homes[home]
    if len(homes) > 1:
        names = ", ".join(shown(Path(*home)) for home in list(homes)[:4])
        raise InputError(f"data.path: {shown(root)} holds several data sets: {names}; give one of these folders")
    return next(iter(homes.values()), [])


def _findings(root: Path, splits: dict[Split, list[Path]], others: list[Path]) -> tuple[str, ...]:
    def listed(files: list[Path]) -> str:
        first = shown(files[0].relative_to(root))
        return first if len(files) == 1 else f"{first} and {len(files) - 1} more"

    places = [f"{KINDS[split]} images in {listed(files)}" for split, files in splits.items() if files]
    if not splits["val"]:
        places.insert(1, "validation images held out of these")
    if splits["test"]:
        places[-1] += ", which only full training opens"
    found = ["; ".join(places)] if splits["val"] or splits["test"] or others else []
    return (*found, *([f"passed over: {listed(others)}, no split by name"] if others else []))
