"""Scikit-learn's embedded digits: 1,797 grey images of 8x8 pixels (UCI ML hand-written digits). Needs no files."""

from typing import TYPE_CHECKING

import numpy as np

from coatnet_search.data.source import Pixels, Source

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

HELD_OUT = 0.2  # it has no test split of its own: full training holds out this share of all images for one
NOTE = "digits is a demonstration: 1,797 images of 8x8 pixels cannot tell layouts apart"


def _load() -> Pixels:
    from sklearn.datasets import load_digits  # noqa: PLC0415  # slow to import, and only the first use needs it

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Pixels(labels=digits.target.astype(np.int64), pixels=pixels)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> None:
    """It has none of its own."""


def open_source(spec: "DataSpec") -> Source:
    names = tuple(str(digit) for digit in range(10))
    return Source(fingerprint="digits-1", class_names=names, num_images=1797, load=_load, note=NOTE)
