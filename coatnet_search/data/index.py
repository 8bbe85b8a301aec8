"""What is known of every image without its pixels: hash, size, fault. Made once per machine, then a file."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.data.cache import cached
from coatnet_search.data.decode import BACKGROUND, Inspected, image_hash, inspect
from coatnet_search.data.image_file import quiet_decoder
from coatnet_search.data.source import Encoded, Pixels, Source

BLOCK = 8192  # images handed to the threads at once: a pool keeps an object for each
BROKEN_SHARE = 0.01  # more broken images than this (and more than one) is a broken data set, not bad luck

T = TypeVar("T")


@dataclass(frozen=True)
class Index:
    """The usable images of a source, in the source's order; ``numbers`` says which ones they are there."""

    numbers: NDArray[np.int64]  # (N,)
    hashes: NDArray[np.uint8]  # (N, 16)
    labels: NDArray[np.int64]  # (N,)
    sizes: NDArray[np.int64]  # (N, 2): height, width
    extremes: NDArray[np.float64]  # (N, 2): lowest and highest value of an image of more than 8 bits a value, else NaN
    flat: NDArray[np.bool_]  # (N,): one colour throughout
    transparent: NDArray[np.bool_]  # (N,): in places
    frames: NDArray[np.bool_]  # (N,): several in one file
    channels: int
    num_broken: int
    problems: tuple[str, ...]  # the first few broken images, as sentences

    @property
    def image_sizes(self) -> tuple[int, int, int]:
        """Smallest, median and largest shorter side in pixels."""
        sides = np.sort(self.sizes.min(axis=1))
        return int(sides[0]), int(sides[len(sides) // 2]), int(sides[-1])

    @property
    def uniform_side(self) -> int | None:
        """The side of the images where all are equal squares."""
        side = int(self.sizes[0, 0])
        return side if bool((self.sizes == side).all()) else None

    def only(self, positions: NDArray[np.int64]) -> "Index":
        """The images at these positions alone."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        each: dict[str, Any] = {name: value[positions] for name, value in arrays.items()}
        return dataclasses.replace(self, **each)

    def content_digest(self) -> str:
        """Hex digest of all images and labels in this order."""
        seen = hashlib.blake2b(self.hashes.tobytes(), digest_size=16)
        seen.update(self.labels.astype("<i8").tobytes())
        return seen.hexdigest()


def parallel(one: Callable[[int], T], count: int) -> list[T]:
    """``one(0) .. one(count - 1)`` by a thread a core: Pillow decodes outside Python's lock."""
    with quiet_decoder(), ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = range(0, count, BLOCK)
        return [item for begin in blocks for item in pool.map(one, range(begin, min(begin + BLOCK, count)))]


def _inspect_pixels(pixels: NDArray[np.uint8]) -> Inspected:
    channels, height, width = pixels.shape
    flat = bool((pixels == pixels[:, :1, :1]).all())
    return Inspected(image_hash(pixels.tobytes()), height=height, width=width, gray=channels == 1, flat=flat)


def _inspect_files(images: Encoded, background: int) -> list[Inspected]:
    def one(number: int) -> Inspected:
        try:
            return inspect(images.read(number), background)
        except OSError as error:
            return Inspected(bytes(16), problem=f"cannot be read: {error.strerror}")

    return parallel(one, len(images.labels))


def build_index(source: Source, background: int | None = None) -> Index:
    """The index of a source, from the cache where its files are unchanged. Reads every image otherwise. ``background``:
    the grey that transparent images are looked at on, None: the usual.

    Broken images are left out, up to one or 1 % of all, whichever is more. Raises InputError beyond that, and for a
    class that loses all its images.
    """

    ground = BACKGROUND if background is None else background

    def write(path: Path) -> None:
        images = source.load()
        if isinstance(images, Pixels):
            found = [_inspect_pixels(pixels) for pixels in images.pixels]
        else:
            found = _inspect_files(images, ground)
        broken = [number for number, item in enumerate(found) if item.problem]
        names = [number if isinstance(images, Pixels) else images.name(number) for number in broken]
        with path.open("wb") as file:
            np.savez(
                file,
                labels=images.labels,
                hashes=np.frombuffer(b"".join(item.hash for item in found), dtype=np.uint8).reshape(-1, 16),
                sizes=np.asarray([(item.height, item.width) for item in found], dtype=np.int64),
                gray=np.asarray([item.gray for item in found]),
                extremes=np.asarray([(item.low, item.high) for item in found], dtype=np.float64),
                flat=np.asarray([item.flat for item in found]),
                transparent=np.asarray([item.transparent for item in found]),
                frames=np.asarray([item.frames for item in found]),
                broken=np.asarray(broken, dtype=np.int64),
                problems=np.asarray(
                    [f"{name}: {found[n].problem}" for name, n in zip(names, broken, strict=True)][:3], dtype=str
                ),
            )

    with np.load(cached(f"index-{source.fingerprint}-{ground}.npz", write), allow_pickle=False) as saved:
        return _usable(source, {name: saved[name] for name in saved.files})


def _usable(source: Source, saved: dict[str, NDArray[np.generic]]) -> Index:
    labels = saved["labels"].astype(np.int64)
    total, broken = len(labels), saved["broken"].astype(np.int64)
    problems = tuple(str(text) for text in saved["problems"])
    if len(broken) > max(1, int(total * BROKEN_SHARE)):
        listed = "; ".join(problems)
        raise InputError(f"{len(broken)} of {total} images cannot be used (at most 1 % may be broken): {listed}")
    good = np.setdiff1d(np.arange(total), broken)
    empty = np.flatnonzero(np.bincount(labels[good], minlength=len(source.class_names)) == 0)
    if len(empty) and source.all_classes:
        raise InputError(f"class {source.class_names[empty[0]]!r} has no usable image: {'; '.join(problems)}")
    return Index(
        numbers=good,
        hashes=np.ascontiguousarray(saved["hashes"][good], dtype=np.uint8),
        labels=labels[good],
        sizes=saved["sizes"][good].astype(np.int64),
        extremes=saved["extremes"][good].astype(np.float64),
        flat=saved["flat"][good].astype(np.bool_),
        transparent=saved["transparent"][good].astype(np.bool_),
        frames=saved["frames"][good].astype(np.bool_),
        channels=1 if bool(saved["gray"][good].all()) else 3,
        num_broken=len(broken),
        problems=problems,
    )
