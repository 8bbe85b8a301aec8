"""The section ``data`` of a study file: which images, and how a validation split is made of them."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

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
    """Share of the training images that is held out for validation, where the data has no validation split itself."""
    seed: CountOrZero = 0
    """Seed of the validation split."""
    num_images: Count | None = None
    """Train on a stratified subset of so many images, nested by size; null: on all."""
    min_per_class: Count = 1
    """Least images of a class in such a subset, and in every regime."""
    download: Switch = False
    """Whether data that is not there may be downloaded."""
    value_range: Annotated[tuple[Number, Number], AfterValidator(checks.value_range)] | None = None
    """Values that become black and white in images of more than 8 bits a value, as [low, high]; null: found in all
    training images."""
    background: Annotated[CountOrZero, Field(le=255)] | None = None
    """Grey, 0 to 255, behind what is transparent; null: 128."""
    image_column: Text | None = None
    """Column of parquet files that has the images; null: the one that can be meant."""
    label_column: Text | None = None
    """Column of parquet files that has the labels; null: the one that can be meant."""
    workers: CountOrZero = 0
    """Processes that decode images; 0: the training process does."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values. Keys that came after the first records are left out at their defaults, so that these do not
        read as changed."""
        later = ("image_column", "label_column", "value_range", "background")
        return {key: value for key, value in asdict(self).items() if key not in later or value is not None}
