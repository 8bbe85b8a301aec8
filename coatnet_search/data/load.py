"""Opens a data set of a study: DataSpec -> train and val, indexed, split, normalised and, where they fit, in memory."""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from coatnet_search.core.canonical import digest
from coatnet_search.core.csv_file import write_csv
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.data import DATASETS
from coatnet_search.data.batches import Data, Images
from coatnet_search.data.decode import BACKGROUND, Reading, inspect
from coatnet_search.data.image_file import quiet_decoder
from coatnet_search.data.index import Index, build_index
from coatnet_search.data.memory import InMemory, decoded, fits, stored_side
from coatnet_search.data.notes import note
from coatnet_search.data.source import Pixels, Source
from coatnet_search.data.sources.listing import IMAGE_ENDINGS, read_folder
from coatnet_search.data.sources.split_names import split_of
from coatnet_search.data.splits_and_regimes import nested_order, shared_images, split
from coatnet_search.data.stream import Streamed
from coatnet_search.data.value_range import FLAT_SHARE, num_flat, reading_of, special_values

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec


ENDING = ".parquet"
SUMMARY_SAMPLE = 256  # images that `summarize` opens where looking at all of them would take long
FULL_LOOK = 60_000  # up to so many images, `summarize` looks at all of them (once per machine)
OTHER_LABELS = 0.01  # at most this share of a split's images may have another class in training: as many as broken ones
TEST_SEED = 2_106_04803  # of what is held out for a test: no seed of a validation split
NORM_SAMPLE = 2048  # images that mean and standard deviation are taken from
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of ImageNet's training images, 0..255; streams are normalised by them
IMAGENET_STD = (58.395, 57.12, 57.375)


def _open(spec: "DataSpec") -> Source:
    if spec.name not in DATASETS:
        raise InputError(f"data.name: {unknown('data set', spec.name, DATASETS)}")
    for key in ("image_column", "label_column"):
        if getattr(spec, key) is not None and spec.name != "parquet":
            raise InputError(f"data.{key}: only data.name parquet has columns, this is {spec.name}; leave it out")
    source: Source = importlib.import_module(DATASETS[spec.name]).open_source(spec)
    return source


def kind_of(path: Path) -> str:
    """The kind of data set that a path is, from what is there: ``parquet`` or ``image_folder``."""
    if not path.is_dir():
        return "parquet" if path.suffix == ENDING else "image_folder"
    folder = read_folder(path, (ENDING,))
    first = [*folder.files, *(file for inner in folder.folders if inner.name == "data" for file in inner.files)]
    images = any(folder.all_passed()[ending] for ending in IMAGE_ENDINGS)
    named = any(split_of(file.name)[0] == "train" for file in first)
    return "parquet" if folder.count and (named or not images) else "image_folder"


def _split(spec: "DataSpec", source: Source, index: Index) -> tuple[np.ndarray, np.ndarray]:
    if source.is_val is None:
        train, val = split(
            index.hashes, index.labels, val_fraction=spec.val_fraction, seed=spec.seed, class_names=source.class_names
        )
    else:
        train, val = _own_split(source, index)
    if spec.num_images is not None:
        least = spec.min_per_class * len(source.class_names)
        if not least <= spec.num_images <= len(train):
            raise InputError(
                f"data.num_images: expected {least} ({spec.min_per_class} a class) to {len(train)} (all of train), "
                f"got {spec.num_images}"
            )
        order = nested_order(index.hashes[train], index.labels[train], seed=spec.seed, per_class=spec.min_per_class)
        train = train[order[: spec.num_images]]
    return _sorted(index, train), _sorted(index, val)


def _own_split(source: Source, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """The validation split that came with the data. Raises InputError where it or a class of training has no image, or
    where training has its images under other labels."""
    is_val = source.is_val[index.numbers]  # type: ignore[index]
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    counts = np.bincount(index.labels[train], minlength=len(source.class_names))
    if not len(val) or not counts.all():
        missing = f"class {source.class_names[int(np.argmin(counts))]!r} of training" if len(val) else "validation"
        raise InputError(f"{missing} has no usable image: {'; '.join(index.problems)}")
    shared, others = shared_images(index.hashes[val], index.labels[val], index.hashes[train], index.labels[train])
    check_labels("validation", source, index.only(val), shared, others)
    return train, val


def check_labels(split_name: str, source: Source, index: Index, shared: int, others: Sequence[tuple[int, int]]) -> None:
    """Raises InputError where more of a split's images than can be slips of the pen have other labels in training.
    ``shared``, ``others``: see ``shared_images``."""
    if len(others) <= OTHER_LABELS * len(index.labels) and 2 * len(others) <= shared:
        return
    place, label = others[0]
    images, number = source.load(), int(index.numbers[place])
    name = f"image {number}" if isinstance(images, Pixels) else images.name(number)
    raise InputError(
        f"data.path: {len(others)} of the {shared} {split_name} images that training has too, byte for byte, have "
        f"another class there: {name} is {source.class_names[index.labels[place]]!r}, in training "
        f"{source.class_names[label]!r}; are the classes in another order? Correct the labels or remove these images"
    )


def _sorted(index: Index, numbers: np.ndarray) -> np.ndarray:
    """By content, so that training does not depend on the order of rows or file names."""
    words = np.ascontiguousarray(index.hashes[numbers]).view(">u8")
    return numbers[np.lexsort((index.labels[numbers], words[:, 1], words[:, 0]))]


def _digest(source: Source, index: Index, reading: Reading, train: np.ndarray, val: np.ndarray) -> str:
    def part(numbers: np.ndarray) -> list[str]:
        return [index.hashes[numbers].tobytes().hex(), index.labels[numbers].astype("<i8").tobytes().hex()]

    parts = {"classes": source.class_names, "train": part(train), "val": part(val)}
    return digest({**parts, **special_values(index, reading)}, length=16)


def _norms(pixels: np.ndarray, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from whole-number sums: the same bits on every machine."""
    sample = pixels[np.sort(train[:NORM_SAMPLE])]
    value = np.arange(256)
    norms = []
    for channel in range(sample.shape[1]):
        counts = np.bincount(sample[:, channel].ravel(), minlength=256)
        mean = int(counts @ value) / int(counts.sum())
        variance = int(counts @ value**2) / int(counts.sum()) - mean**2
        norms.append((mean, math.sqrt(max(variance, 1.0))))  # a constant channel is left as it is
    return tuple(mean for mean, _ in norms), tuple(std for _, std in norms)


def held_out(name: str, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """(others, test): positions, where a data set without a test split holds out a share of its images for one."""
    share = getattr(importlib.import_module(DATASETS[name]), "HELD_OUT", 0.0)
    if not share:
        return np.arange(len(index.labels)), np.arange(0)
    names = [str(number) for number in range(int(index.labels.max()) + 1)]
    return split(index.hashes, index.labels, val_fraction=share, seed=TEST_SEED, class_names=names)


def load_data(spec: "DataSpec", *, image_size: int | None = None, full: bool = False) -> Data:
    """Train and val of a data set. ``image_size``: the side in pixels that networks will see. ``full``: without the
    images that ``held_out`` keeps for the test of full training.

    Images whose pixels fit 2 GiB are decoded once per machine and kept whole in memory, later on the device; others are
    decoded by ``data.workers`` processes as they are needed. Without ``image_size`` the images must be equal squares.
    Raises InputError for faulty data (classes, columns, broken images) and SetupError for data that is not there.
    """
    source = _open(spec)
    index = build_index(source, spec.background)
    reading = reading_of(spec, index)
    if full:
        index = index.only(held_out(spec.name, index)[0])
    train, val = _split(spec, source, index)
    images = images_of(spec, source, index, reading, image_size)
    if isinstance(images, InMemory):
        mean, std = _norms(images.pixels.numpy(), train)
    else:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if index.channels == 3 else ((118.0,), (58.0,))
    return Data(
        class_names=source.class_names,
        in_channels=index.channels,
        reading=reading,
        digest=_digest(source, index, reading, train, val),
        note=note(source, index, reading, train, val),
        findings=source.findings,
        num_broken=index.num_broken,
        image_size=image_size or images.sides(0)[1],
        seed=spec.seed,
        per_class=spec.min_per_class,
        mean=mean,
        std=std,
        images=images,
        labels=torch.from_numpy(index.labels),
        hashes=index.hashes,
        train_numbers=train,
        val_numbers=val,
    )


def class_counts(spec: "DataSpec") -> tuple[np.ndarray, np.ndarray]:
    """(K,) images of each class that train and that validate; of very many images by their labels alone, before broken
    ones are left out. Raises as ``load_data``."""
    source = _open(spec)
    classes = len(source.class_names)
    if source.num_images > FULL_LOOK and source.labels is not None:
        every = np.bincount(source.labels, minlength=classes)
        if source.is_val is None:
            val = np.maximum(1, np.rint(spec.val_fraction * every)).astype(np.int64)
        else:
            val = np.bincount(source.labels[source.is_val], minlength=classes)
        return every - val, val
    index = build_index(source, spec.background)
    train, val = (np.bincount(index.labels[part], minlength=classes) for part in _split(spec, source, index))
    return train, val


def write_regimes(spec: "DataSpec", sizes: Sequence[int], draws: int, folder: Path) -> Path:
    """Write which images each regime has: ``draw-K.csv`` (image: its number in the data set, label: its class, hash: 32
    hex digits of its content), of which the first n rows are the regime of n images, and ``index.json`` with a digest
    of each. Equal on every machine that has the same images. Returns the index's path."""
    source = _open(spec)
    index = build_index(source, spec.background)
    train, _ = _split(spec, source, index)
    hashes, labels = index.hashes[train], index.labels[train]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, str]] = {}
    for draw in range(draws):
        order = nested_order(hashes, labels, seed=spec.seed, draw=draw, per_class=spec.min_per_class)[: max(sizes)]
        names = [row.tobytes().hex() for row in hashes[order]]
        rows = zip(train[order], (source.class_names[label] for label in labels[order]), names, strict=True)
        write_csv(folder / f"draw-{draw}.csv", ("image", "label", "hash"), rows)
        found[f"draw-{draw}.csv"] = {str(size): digest(names[:size], 16) for size in sorted(sizes)}
    path = folder / "index.json"
    path.write_text(json.dumps({"seed": spec.seed, "files": found}, indent=1) + "\n", encoding="utf-8")
    return path


def images_of(spec: "DataSpec", source: Source, index: Index, reading: Reading, image_size: int | None) -> Images:
    """The images in memory where they fit, else decoded as they are needed. Raises InputError where that cannot be."""
    if fits(index, reading.channels, image_size):
        side, shown = stored_side(index, image_size)
        return InMemory(decoded(source, index, reading, side), shown)
    encoded = source.load()
    if isinstance(encoded, Pixels) or image_size is None:
        raise InputError(f"data set {spec.name!r}: too large for memory, and an image_size is needed to stream it")
    return Streamed(encoded, index.numbers, reading, spec.workers)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A look at a data set. ``image_sizes``: smallest, median, largest shorter side in pixels.

    ``exact`` is False where only a sample of a large data set was opened: then sizes, channels and ``num_broken`` are
    the sample's, the counts are before broken images are left out, and ``digest`` is None.

    ``value_range``: the values that become 0 and 255, where images have more than 8 bits a value; ``background``: the
    grey behind what is transparent, where something is; ``num_flat``: images of one colour throughout.
    """

    num_train: int
    num_val: int
    num_classes: int
    in_channels: int
    class_names: tuple[str, ...]
    image_sizes: tuple[int, int, int]
    digest: str | None
    num_broken: int
    exact: bool
    note: str | None
    value_range: tuple[float, float] | None = None
    background: int | None = None
    num_flat: int = 0
    findings: tuple[str, ...] = ()  # see ``Source``
    own_val: bool = False  # whether the data came with a validation split


def summarize(spec: "DataSpec", *, whole: bool = False) -> Summary:
    """What is in a data set: a look at all images, once per machine, or at a sample of very many unless ``whole``.

    Raises as ``load_data`` does.
    """
    source = _open(spec)
    if not whole and source.sample and source.num_images > FULL_LOOK:
        return _sampled(spec, source, source.sample(SUMMARY_SAMPLE))
    index = build_index(source, spec.background)
    reading = reading_of(spec, index)
    train, val = _split(spec, source, index)
    return Summary(
        num_train=len(train),
        num_val=len(val),
        num_classes=len(source.class_names),
        in_channels=index.channels,
        class_names=source.class_names,
        image_sizes=index.image_sizes,
        digest=_digest(source, index, reading, train, val),
        num_broken=index.num_broken,
        exact=True,
        note=note(source, index, reading, train, val),
        value_range=reading.value_range,
        background=reading.background if index.transparent.any() else None,
        num_flat=num_flat(index, reading),
        findings=source.findings,
        own_val=source.is_val is not None,
    )


def _sampled(spec: "DataSpec", source: Source, sample: Sequence[bytes]) -> Summary:
    with quiet_decoder():
        found = [inspect(content, BACKGROUND if spec.background is None else spec.background) for content in sample]
    good = [item for item in found if not item.problem]
    if not good:
        raise InputError(f"none of {len(found)} images could be used: {found[0].problem}")
    if sum(item.flat for item in good) > FLAT_SHARE * len(good):
        raise InputError(f"most of {len(good)} images are one colour throughout: nothing can be learned from them")
    sides = sorted(min(item.height, item.width) for item in good)
    own = source.is_val
    num_val = round(source.num_images * spec.val_fraction) if own is None else int(own.sum())
    return Summary(
        num_train=spec.num_images or source.num_images - num_val,
        num_val=num_val,
        num_classes=len(source.class_names),
        in_channels=1 if all(item.gray for item in good) else 3,
        class_names=source.class_names,
        image_sizes=(sides[0], sides[len(sides) // 2], sides[-1]),
        digest=None,
        num_broken=len(found) - len(good),
        exact=False,
        note=source.note,
        findings=source.findings,
        own_val=own is not None,
    )
