"""The one scale of a data set's images of more than 8 bits a value, and what a person must know about its pixels."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.data.decode import BACKGROUND, Reading, scaled
from coatnet_search.data.index import Index

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

FLAT_SHARE = 0.5  # more images of one colour than this teach nothing: they were read wrongly, or are the wrong files
MOST = 0.95  # share of the images by which a range is judged
FEW_LEVELS = 32  # of 256; where most images keep within so few, a few extreme images have set the range


def reading_of(spec: "DataSpec", index: Index) -> Reading:
    """How the images of a training split are read: by the study's range of values, or the one found in all of them.

    Raises InputError for a range that no image needs, and where more than half of the images come out as one colour.
    """
    deep = is_deep(index)
    if spec.value_range and not deep.any():
        raise InputError("data.value_range: all images have 8 bits a value, which are taken as they are; remove it")
    background = BACKGROUND if spec.background is None else spec.background
    found = spec.value_range or (usual_range(index.extremes[deep]) if deep.any() else None)
    reading = Reading(channels=index.channels, value_range=found, background=background)
    flat = num_flat(index, reading)
    if flat > FLAT_SHARE * len(index.labels):
        said = "; ".join(pixel_facts(index, reading))
        raise InputError(f"{flat:,} of {len(index.labels):,} images are one colour throughout: nothing can be learned "
                         f"from them; look at the files, data.value_range and data.background ({said})")  # fmt: skip
    return reading


def is_deep(index: Index) -> NDArray[np.bool_]:
    """(N,): whether an image has more than 8 bits a value."""
    return ~np.isnan(index.extremes[:, 0])


def usual_range(extremes: NDArray[np.float64]) -> tuple[float, float]:
    """The range that all images fit, from the (N, 2) extremes of each: 0 to 2^k - 1 (1, 255, 1023, 4095, 65535, ...)
    where they fill at least half of that, so that later images fit too, else just what they have."""
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if low >= 0:
        whole = 2.0 ** max(1, int(np.ceil(np.log2(high + 1)))) - 1
        if high - low >= whole / 2 or high == low:
            return 0.0, whole
    return (low, high) if high > low else (low, low + 1)


def special_values(index: Index, reading: Reading) -> dict[str, Any]:
    """What the pixels of these images follow from besides the files; nothing for opaque images of 8 bits a value."""
    found: dict[str, Any] = {}
    if is_deep(index).any() and reading.value_range:
        found["values"] = "{!r}-to-{!r}".format(*reading.value_range)
    if index.transparent.any():
        found["background"] = f"on-{reading.background}"
    return found


def num_flat(index: Index, reading: Reading) -> int:
    """How many images are one colour throughout when they are read so."""
    flat = index.flat.copy()
    if reading.value_range:
        deep = is_deep(index) & ~index.transparent
        flat[deep] |= np.equal(*scaled(index.extremes[deep], reading.value_range).T)
    return int(flat.sum())


def pixel_facts(index: Index, reading: Reading) -> list[str]:
    """What became of values, transparency and frames, as parts of sentences; nothing for plain images of 8 bits."""
    deep, total, said = is_deep(index), len(index.labels), []
    if deep.any() and reading.value_range:
        low, high = reading.value_range
        said.append(f"values from {low:g} to {high:g} become 0 to 255 (data.value_range)")
        if not deep.all():
            said.append(f"{total - deep.sum():,} of {total:,} images have 8 bits a value and stay as they are")
        said += _few_levels(index.extremes[deep], reading.value_range)
    if number := int(index.transparent.sum()):
        said.append(f"{_images(number)} transparent in places, on grey {reading.background} (data.background)")
    if number := int(index.frames.sum()):
        said.append(f"{_images(number)} the first of several in a file")
    if number := num_flat(index, reading):
        said.append(f"{_images(number)} one colour throughout")
    return said


def _images(number: int) -> str:
    return f"{number:,} image{' is' if number == 1 else 's are'}"


def facts_of_test(index: Index, reading: Reading) -> list[str]:
    """What a person must know of a test split that is read as training's images are. Raises InputError where its values
    cannot be put on training's scale, as that has none."""
    deep = is_deep(index)
    if reading.value_range is None:
        if deep.any():
            raise InputError(f"{_images(int(deep.sum()))} of more than 8 bits a value in the test split, and training "
                             "has no such images: convert the test images as those were")  # fmt: skip
        return []
    (low, high), said = reading.value_range, []
    outside = (index.extremes[:, 0] < low) | (index.extremes[:, 1] > high)
    if outside.any():
        said.append(f"{int(outside.sum()):,} test images have values outside of training's {low:g} to {high:g}, which "
                    "were cut there")  # fmt: skip
    if not deep.all():
        said.append(f"{int((~deep).sum()):,} test images have 8 bits a value and stay as they are, off training's "
                    f"scale of {low:g} to {high:g}")  # fmt: skip
    return said


def _few_levels(extremes: NDArray[np.float64], value_range: tuple[float, float]) -> list[str]:
    """Where a few images have stretched the range so far that most show few grey levels: what to write instead."""
    low = float(np.quantile(extremes[:, 0], 1 - MOST, method="higher"))
    high = float(np.quantile(extremes[:, 1], MOST, method="lower"))
    first, last = scaled(np.asarray([low, high]), value_range).astype(int)
    if last - first >= FEW_LEVELS or not low < high:
        return []
    return [f"most images keep within {low:g} to {high:g}, {last - first + 1} of 256 grey levels: data.value_range "
            f"[{low:g}, {high:g}] shows more of them"]  # fmt: skip
