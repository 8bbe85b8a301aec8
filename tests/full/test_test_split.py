"""The test split: found beside training's, disjoint where it is held out, and opened by full training alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import digit_folder

from coatnet_search.core.errors import InputError
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.data.test_split import load_test


def parquet(folder: Path, name: str, labels: list[object], first: int = 0) -> Path:
    files = sorted(digit_folder(folder / "png", 60).rglob("*.png"))
    rows = [{"image": {"bytes": files[first + n].read_bytes(), "path": None}, "label": label}
            for n, label in enumerate(labels)]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / name)
    return folder


def test_digits_hold_out_a_fifth_that_full_training_never_trains_on():
    spec = DataSpec(name="digits")
    data = load_data(spec, full=True)

    test, shared = load_test(spec, data)

    assert (data.num_train + data.num_val, test.num_val) == (1438, 359)
    assert shared == 0
    assert np.bincount(test.labels.numpy(), minlength=10).min() >= 30
    images, labels = next(test.val_batches(batch_size=8, device=torch.device("cpu")))
    assert images.shape == (8, 1, 8, 8) and len(labels) == 8


def test_a_folder_named_test_is_the_test_split_and_may_lack_classes(tmp_path):
    digit_folder(tmp_path / "train", 120)
    digit_folder(tmp_path / "all", 140)  # the first 120 of these train
    (tmp_path / "test" / "digit-3").mkdir(parents=True)
    for file in sorted((tmp_path / "all" / "digit-3").iterdir())[:5]:
        file.rename(tmp_path / "test" / "digit-3" / file.name)
    spec = DataSpec(name="image_folder", path=str(tmp_path))
    data = load_data(spec)

    test, shared = load_test(spec, data)

    assert test.num_val == 5
    assert set(test.labels.tolist()) == {data.class_names.index("digit-3")}
    assert shared == 4  # one of the five is not in training


def test_a_test_class_that_training_does_not_have_is_named(tmp_path):
    digit_folder(tmp_path / "train", 120)
    digit_folder(tmp_path / "test", 20)
    (tmp_path / "test" / "digit-4").rename(tmp_path / "test" / "digit-44")
    spec = DataSpec(name="image_folder", path=str(tmp_path))

    with pytest.raises(InputError, match="no class of the training images named 'digit-44'; did you mean"):
        load_test(spec, load_data(spec))


def test_data_without_a_test_split_has_none(tmp_path):
    digit_folder(tmp_path, 120)
    spec = DataSpec(name="image_folder", path=str(tmp_path))

    assert load_test(spec, load_data(spec)) is None


@pytest.mark.parametrize("classes", [(0, 1, 2), ("cat", "dog", "fox")])
def test_parquet_files_named_test_are_found_beside_trainings(tmp_path, classes):
    parquet(tmp_path, "train-0.parquet", [classes[n % 3] for n in range(40)])
    parquet(tmp_path, "test-0.parquet", [classes[1]] * 4, first=40)
    spec = DataSpec(name="parquet", path=str(tmp_path / "train-0.parquet"))
    data = load_data(spec)

    test, shared = load_test(spec, data)

    assert test.labels.tolist() == [1] * 4
    assert shared == 0
    assert test.class_names == data.class_names


def test_a_parquet_label_beyond_trainings_classes_is_named(tmp_path):
    parquet(tmp_path, "train.parquet", [n % 3 for n in range(40)])
    parquet(tmp_path, "test.parquet", [7], first=40)
    spec = DataSpec(name="parquet", path=str(tmp_path))

    with pytest.raises(InputError, match="'label': 7 is no class of the training images, which have 3"):
        load_test(spec, load_data(spec))
