"""Tells from names of folders and files which hold a data set's training, validation and test images.

Any case and the usual additions: ``Training``, ``seg_train``, ``test_images``, ``ValSet``, ``flowers-train`` beside
``flowers-test``. The words are those of Hugging Face's ``datasets`` library.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
KINDS: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}  # as messages call them
_SPLIT_OF: dict[str, Split] = {word: split for split, words in WORDS.items() for word in words}
ADDITIONS = (
    "set", "sets", "data", "dataset", "datasets", "split", "images", "image", "imgs", "img", "pictures", "photos",
    "folder", "files", "seg", "parquet", "part", "partial", "shard", "batch", "chunk", "of",
)  # fmt: skip # what is added to such a word without saying anything
# of a folder that is no class
NOTHING_SAID = ("all", "unknown", "unlabeled", "unlabelled", "none", *ADDITIONS, *_SPLIT_OF)
_JOINED = re.compile(rf"({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})({'|'.join(ADDITIONS)})")


def split_of(name: str) -> tuple[Split | None, tuple[str, ...]]:
    """The split that a name speaks of, if it is one, and the words in it that say something else."""
    words = _words(name)
    found = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    others = tuple(word for word in words if word not in _SPLIT_OF and not _is_addition(word))
    return (found.pop() if len(found) == 1 else None), others


def splits_of(names: Collection[str]) -> dict[str, Split]:
    """Names of splits among ``names``, which lie beside each other. One that says something else too (``bus_train``)
    counts where another split has the same addition (``bus_test``)."""
    found = {name: split_of(name) for name in names}
    kinds: dict[tuple[str, ...], set[Split]] = {}
    for split, others in found.values():
        if split:
            kinds.setdefault(others, set()).add(split)
    return {name: split for name, (split, others) in found.items() if split and (not others or len(kinds[others]) > 1)}


def unused_beside(path: Path) -> tuple[str, ...]:
    """A sentence where ``path`` is a training folder whose neighbours are splits that are not looked at."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.is_dir()] if path.is_dir() else []
    except OSError:
        return ()
    named = splits_of(names)
    closed = sorted(name for name, split in named.items() if split != "train")
    if named.get(path.name) != "train" or not closed:
        return ()
    return (f"not used: {', '.join(f'{name}/' for name in closed)} beside {path.name}/; give the folder above for it",)


def says_nothing(name: str) -> bool:
    """Whether a folder of this name is no class, but only there for the images to lie in."""
    return all(word in NOTHING_SAID for word in _words(name))


def _is_addition(word: str) -> bool:
    return word in ADDITIONS or word.isdigit() or len(word) == 1


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+|\d+", parted)]
    joined = ((word, _JOINED.fullmatch(word)) for word in words)
    return [part for word, match in joined for part in (match.groups() if match else (word,))]
