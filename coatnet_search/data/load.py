"""Opens a data set of a study: DataSpec -> train and val, indexed, split, normalised and, where they fit, in memory."""

import csv
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
from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.data import DATASETS
from coatnet_search.data.batches import Data, Images
from coatnet_search.data.decode import inspect, quiet_decoder
from coatnet_search.data.index import Index, build_index
from coatnet_search.data.memory import InMemory, decoded, fits, stored_side
from coatnet_search.data.source import Pixels, Source
from coatnet_search.data.splits_and_regimes import nested_order, split
from coatnet_search.data.stream import Streamed

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec


SUMMARY_SAMPLE = 256  # images that `summarize` opens where looking at all of them would take long
FULL_LOOK = 60_000  # up to so many images, `summarize` looks at all of them (once per machine)
TEST_SEED = 2_106_04803  # of what is held out for a test: no seed of a validation split
NORM_SAMPLE = 2048  # images that mean and standard deviation are taken from
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of ImageNet's training images, 0..255; streams are normalised by them
IMAGENET_STD = (58.395, 57.12, 57.375)


def _open(spec: "DataSpec") -> Source:
    if spec.name not in DATASETS:
        raise InputError(f"data.name: {unknown('data set', spec.name, DATASETS)}")
    source: Source = importlib.import_module(DATASETS[spec.name]).open_source(spec)
    return source


def _split(spec: "DataSpec", source: Source, index: Index) -> tuple[np.ndarray, np.ndarray]:
    train, val = split(
        index.hashes, index.labels, val_fraction=spec.val_fraction, seed=spec.seed, class_names=source.class_names
    )
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


def _sorted(index: Index, numbers: np.ndarray) -> np.ndarray:
    """By content, so that training does not depend on the order of rows or file names."""
    words = np.ascontiguousarray(index.hashes[numbers]).view(">u8")
    return numbers[np.lexsort((index.labels[numbers], words[:, 1], words[:, 0]))]


def _digest(source: Source, index: Index, train: np.ndarray, val: np.ndarray) -> str:
    def part(numbers: np.ndarray) -> list[str]:
        return [index.hashes[numbers].tobytes().hex(), index.labels[numbers].astype("<i8").tobytes().hex()]

    return digest({"classes": source.class_names, "train": part(train), "val": part(val)}, length=16)


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
    index = build_index(source)
    if full:
        index = index.only(held_out(spec.name, index)[0])
    train, val = _split(spec, source, index)
    images = images_of(spec, source, index, image_size)
    if isinstance(images, InMemory):
        mean, std = _norms(images.pixels.numpy(), train)
    else:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if index.channels == 3 else ((118.0,), (58.0,))
    return Data(
        class_names=source.class_names,
        in_channels=index.channels,
        digest=_digest(source, index, train, val),
        note=_note(source, index),
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


def write_regimes(spec: "DataSpec", sizes: Sequence[int], draws: int, folder: Path) -> Path:
    """Write which images each regime has: ``draw-K.csv`` (image: its number in the data set, label: its class, hash: 32
    hex digits of its content), of which the first n rows are the regime of n images, and ``index.json`` with a digest
    of each. Equal on every machine that has the same images. Returns the index's path."""
    source = _open(spec)
    index = build_index(source)
    train, _ = _split(spec, source, index)
    hashes, labels = index.hashes[train], index.labels[train]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, str]] = {}
    for draw in range(draws):
        order = nested_order(hashes, labels, seed=spec.seed, draw=draw, per_class=spec.min_per_class)[: max(sizes)]
        names = [row.tobytes().hex() for row in hashes[order]]
        rows = zip(train[order], (source.class_names[label] for label in labels[order]), names, strict=True)
        with open(folder / f"draw-{draw}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "label", "hash"))
            writer.writerows(rows)
        found[f"draw-{draw}.csv"] = {str(size): digest(names[:size], 16) for size in sorted(sizes)}
    path = folder / "index.json"
    path.write_text(json.dumps({"seed": spec.seed, "files": found}, indent=1) + "\n", encoding="utf-8")
    return path


def images_of(spec: "DataSpec", source: Source, index: Index, image_size: int | None) -> Images:
    """The images in memory where they fit, else decoded as they are needed. Raises InputError where that cannot be."""
    if fits(index, image_size):
        side, shown = stored_side(index, image_size)
        return InMemory(decoded(source, index, side), shown)
    encoded = source.load()
    if isinstance(encoded, Pixels) or image_size is None:
        raise InputError(f"data set {spec.name!r}: too large for memory, and an image_size is needed to stream it")
    return Streamed(encoded, index.numbers, index.channels, decoding_workers(spec))


def decoding_workers(spec: "DataSpec") -> int:
    """Processes that decode images for this one: as asked, or its share of the cores where a GPU does the training."""
    if spec.workers is not None:
        return spec.workers
    return min(torch.get_num_threads(), usable_cores()) if torch.cuda.is_available() else 0


def _note(source: Source, index: Index) -> str | None:
    broken = (
        f"{index.num_broken} broken images were left out: {'; '.join(index.problems)}" if index.num_broken else None
    )
    return "; ".join(text for text in (source.note, broken) if text) or None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A look at a data set. ``image_sizes``: smallest, median, largest shorter side in pixels.

    ``exact`` is False where only a sample of a large data set was opened: then sizes, channels and ``num_broken`` are
    the sample's, the counts are before broken images are left out, and ``digest`` is None.
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


def summarize(spec: "DataSpec", *, whole: bool = False) -> Summary:
    """What is in a data set: a look at all images, once per machine, or at a sample of very many unless ``whole``.

    Raises as ``load_data`` does.
    """
    source = _open(spec)
    if not whole and source.sample and source.num_images > FULL_LOOK:
        return _sampled(spec, source, source.sample(SUMMARY_SAMPLE))
    index = build_index(source)
    train, val = _split(spec, source, index)
    return Summary(
        num_train=len(train),
        num_val=len(val),
        num_classes=len(source.class_names),
        in_channels=index.channels,
        class_names=source.class_names,
        image_sizes=index.image_sizes,
        digest=_digest(source, index, train, val),
        num_broken=index.num_broken,
        exact=True,
        note=_note(source, index),
    )


def _sampled(spec: "DataSpec", source: Source, sample: Sequence[bytes]) -> Summary:
    with quiet_decoder():
        found = [inspect(content) for content in sample]
    good = [item for item in found if not item.problem]
    if not good:
        raise InputError(f"none of {len(found)} images could be used: {found[0].problem}")
    sides = sorted(min(item.height, item.width) for item in good)
    num_val = round(source.num_images * spec.val_fraction)
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
    )
