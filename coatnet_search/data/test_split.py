"""The test split: opened by full training alone, when training is over. A contract of imports holds it."""

import dataclasses
import importlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from coatnet_search.data import DATASETS
from coatnet_search.data.batches import Data
from coatnet_search.data.index import build_index
from coatnet_search.data.load import check_labels, held_out, images_of
from coatnet_search.data.source import Unlabelled
from coatnet_search.data.splits_and_regimes import shared_images
from coatnet_search.data.value_range import facts_of_test, reading_of

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec


def load_test(spec: "DataSpec", data: Data) -> tuple[Data, int] | None:
    """The test split as a data set whose val part it is, read and normalised as ``data`` (training's, of the same
    ``spec``), with a note of its own; and how many of its images training or validation hold too, byte for byte; None
    where there is no test split.

    Raises InputError and SetupError as ``load_data`` does, and for classes that training does not have.
    """
    module = importlib.import_module(DATASETS[spec.name])
    try:
        source = module.open_test(spec, data.class_names)
    except Unlabelled:
        return None
    if source is not None:
        index = build_index(source, spec.background)
    else:
        source = module.open_source(spec)
        index = build_index(source, spec.background)
        test = held_out(spec.name, index)[1]
        if not len(test):
            return None
        index = index.only(test)
    shared, others = shared_images(index.hashes, index.labels, data.hashes, data.labels.numpy())
    check_labels("test", source, index, shared, others)
    reading = data.reading or reading_of(spec, index)
    told = facts_of_test(index, reading)
    found = dataclasses.replace(
        data, images=images_of(spec, source, index, reading, data.image_size), labels=torch.from_numpy(index.labels),
        hashes=index.hashes, train_numbers=np.arange(0), val_numbers=np.arange(len(index.labels)),
        num_broken=index.num_broken, note="; ".join(told) or None,
    )  # fmt: skip
    return found, shared


def check_test(spec: "DataSpec", data: Data) -> str | None:
    """Finds before any training what ``load_test`` would refuse after it; no network sees an image. Returns a sentence
    where there is a test split that cannot be used, since it has no labels. Raises as ``load_test``."""
    module = importlib.import_module(DATASETS[spec.name])
    try:
        source = module.open_test(spec, data.class_names)
    except Unlabelled as error:
        return f"the test split is passed over: {error}"
    if source is not None:
        index = build_index(source, spec.background)
        shared, others = shared_images(index.hashes, index.labels, data.hashes, data.labels.numpy())
        check_labels("test", source, index, shared, others)
        if data.reading:
            facts_of_test(index, data.reading)
    return None
