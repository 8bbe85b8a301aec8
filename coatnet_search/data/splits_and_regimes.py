"""Which images train, which validate, and which the first n are: decided by content and seed, equal on every machine.

N images, each known by the 16-byte hash of its content; nothing depends on file names, row order or numpy's generators.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError

Hashes = NDArray[np.uint8]  # (N, 16)
Labels = NDArray[np.int64]  # (N,)
Numbers = NDArray[np.int64]  # image numbers


def _keys(hashes: Hashes, salt: str) -> NDArray[np.uint64]:
    """A pseudo-random 64-bit key an image: its hash mixed with the salt by the finaliser of SplitMix64."""
    start = np.frombuffer(hashlib.blake2b(salt.encode(), digest_size=8).digest(), dtype="<u8")
    words = np.ascontiguousarray(hashes).view("<u8")  # (N, 2)
    mixed = words[:, 0] ^ start ^ (words[:, 1] << np.uint64(1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    keys: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return keys


def split(
    hashes: Hashes, labels: Labels, *, val_fraction: float, seed: int, class_names: Sequence[str]
) -> tuple[Numbers, Numbers]:
    """(train, val) image numbers, ascending. In each class ``val_fraction`` of the images validate, at least one.

    Images of equal content always stay together, under whatever labels they appear. Raises InputError for a class that
    cannot give both sides an image.
    """
    unique, first, group = np.unique(
        np.ascontiguousarray(hashes).view("V16").ravel(), return_index=True, return_inverse=True
    )
    sizes = np.bincount(group, minlength=len(unique))
    stratum = np.full(len(unique), len(class_names), dtype=np.int64)
    np.minimum.at(stratum, group, labels)
    keys = _keys(hashes[first], f"split {seed}")
    order = np.lexsort((keys, stratum))
    in_val = np.zeros(len(unique), dtype=bool)
    for members in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        wanted = max(1, round(val_fraction * int(sizes[members].sum())))
        before = np.cumsum(sizes[members]) - sizes[members]
        in_val[members[:-1][before[:-1] < wanted]] = True  # never the last group: train needs one too
    validates = in_val[group]
    for part in (validates, ~validates):
        counts = np.bincount(labels[part], minlength=len(class_names))
        if (counts == 0).any():
            name = class_names[int(np.argmin(counts))]
            raise InputError(f"class {name!r} has too few different images: train and val need at least one each")
    return np.flatnonzero(~validates), np.flatnonzero(validates)


def shared_images(
    hashes: Hashes, labels: Labels, other_hashes: Hashes, other_labels: Labels
) -> tuple[int, list[tuple[int, int]]]:
    """How many images are among the others too, byte for byte; and those that stand there under other labels alone:
    the place of each, and a label that it has there."""
    words = [np.ascontiguousarray(each).view("V16").ravel() for each in (hashes, other_hashes)]
    places = np.flatnonzero(np.isin(words[0], words[1]))
    there: dict[bytes, set[int]] = {}
    for place in np.flatnonzero(np.isin(words[1], words[0])):
        there.setdefault(words[1][place].tobytes(), set()).add(int(other_labels[place]))
    found = ((int(place), there[words[0][place].tobytes()]) for place in places)
    return len(places), [(place, min(known)) for place, known in found if int(labels[place]) not in known]


def nested_order(hashes: Hashes, labels: Labels, *, seed: int, draw: int = 0, per_class: int = 1) -> Numbers:
    """The positions 0..N-1 in an order whose every prefix is a stratified sample, so that smaller ones nest in larger.

    The first ``per_class * num_classes`` hold so many images of each class (all of a class that has fewer); from there
    on each class has its share to within rounding. Another ``draw`` is another sample of the same kind.
    """
    keys = _keys(hashes, f"regime {seed} {draw}")
    by_class = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    sorted_labels = labels[by_class]
    rank = np.arange(len(labels)) - starts[sorted_labels]
    quantile = np.where(rank < per_class, rank - float(per_class), rank / counts[sorted_labels])
    return by_class[np.lexsort((sorted_labels, keys[by_class], quantile))]
