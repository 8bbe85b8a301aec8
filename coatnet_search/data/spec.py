"""The section ``data`` of a study file: which images, and how a validation split is made of them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, with_config

from coatnet_search.core import checks
from coatnet_search.core.keys import FORM, Count, CountOrZero, Number, Switch, Text


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What is learned from, and how its validation split is made."""

    name: Text
    """The kind of data set: digits, parquet, image_folder, cifar10, cifar100."""
    path: Annotated[Text, AfterValidator(checks.data_place)] | None = None
    """File or folder of the data, also as a URI (s3://bucket/folder, gs://...), which each machine fetches once; null
    where the kind needs none."""
    val_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that is held out for validation."""
    seed: CountOrZero = 0
    """Seed of the validation split."""
    num_images: Count | None = None
    """Train on a stratified subset of so many images, nested by size; null: on all."""
    min_per_class: Count = 1
    """Least images of a class in such a subset, and in every regime."""
    download: Switch = False
    """Whether data that is not there may be downloaded."""
    workers: CountOrZero | None = None
    """Processes that decode images; 0: the training process does. null: as many as the process has cores where there is
    a GPU, else 0, as training itself takes the cores."""
