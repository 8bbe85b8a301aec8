"""What a person must know of a data set's images before trusting a result, as one text."""

import numpy as np

from coatnet_search.data.decode import Reading
from coatnet_search.data.index import Index
from coatnet_search.data.source import Source
from coatnet_search.data.splits_and_regimes import shared_images
from coatnet_search.data.value_range import pixel_facts


def note(source: Source, index: Index, reading: Reading, train: np.ndarray, val: np.ndarray) -> str | None:
    """Parts of sentences; None where there is nothing to say. ``train``, ``val``: positions in the index."""
    found = [source.note] if source.note else []
    if index.num_broken:
        found.append(f"{index.num_broken} broken images were left out: {'; '.join(index.problems)}")
    found += pixel_facts(index, reading)
    if several := _in_several_classes(index):
        found.append(f"{several} images are in more than one class, byte for byte")
    if source.is_val is not None:
        both, others = shared_images(index.hashes[val], index.labels[val], index.hashes[train], index.labels[train])
        if both:
            under = f", {len(others)} of them under another class" if others else ""
            found.append(f"{both} of the {len(val)} validation images are training images too, byte for byte{under}")
        missing = np.setdiff1d(np.arange(len(source.class_names)), index.labels[val])
        if len(missing):
            names = ", ".join(source.class_names[number] for number in missing[:5])
            found.append(f"{len(missing)} classes have no validation image: {names}")
    return "; ".join(found) or None


def _in_several_classes(index: Index) -> int:
    """How many different images have more than one label."""
    words = np.ascontiguousarray(index.hashes).view("V16").ravel()
    _, group = np.unique(words, return_inverse=True)
    pairs = np.unique(np.stack([group, index.labels]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())
