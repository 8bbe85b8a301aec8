"""Parquet files as users have them: names and types that differ between shards, columns, layouts, labels, holes."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coatnet_search.core.errors import InputError
from coatnet_search.data.load import kind_of, load_data, summarize
from coatnet_search.data.spec import DataSpec
from coatnet_search.data.test_split import check_test, load_test

IMAGES = 24


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "cache"))


def ppm(seed: int) -> bytes:
    values = (np.arange(192, dtype=np.uint64) * 2654435761 + seed * 40503) >> np.uint64(7)
    return b"P6 8 8 255\n" + values.astype(np.uint8).tobytes()


def images(count: int = IMAGES, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": ppm(first + number), "path": None} for number in range(count)]


def write(path: Path, labels: Any, *, names: list[str] | None = None, first: int = 0, image: str = "image",
          label: str = "label", **more: Any) -> Path:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = labels if isinstance(labels, (pa.Array, pa.ChunkedArray)) else pa.array(labels)
    table = pa.table({image: images(len(labels), first), label: labels, **more})
    if names is not None:
        info = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path)
    return path


def spec(path: Path, **more: Any) -> DataSpec:
    return DataSpec(name="parquet", path=str(path), val_fraction=0.2, **more)


def by_hash(path: Path) -> dict[bytes, str]:
    """The class of each image."""
    data = load_data(spec(path))
    return {row.tobytes(): data.class_names[label] for row, label in zip(data.hashes, data.labels, strict=True)}


TURNS = [n % 2 for n in range(IMAGES)]  # cat, dog, cat, ...
OTHER = [1 - n for n in TURNS]


def test_a_test_split_that_names_its_numbers_otherwise_agrees_by_name(tmp_path):
    write(tmp_path / "train.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / "test.parquet", OTHER, names=["dog", "cat"])
    data = load_data(spec(tmp_path))

    test, shared = load_test(spec(tmp_path), data)

    assert (test.labels.tolist(), shared) == (TURNS, IMAGES)


def test_each_shard_has_its_own_order_of_names(tmp_path):
    write(tmp_path / "a" / "train-0.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / "a" / "train-1.parquet", OTHER, names=["dog", "cat"], first=100)
    write(tmp_path / "b" / "train-0.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / "b" / "train-1.parquet", TURNS, names=["cat", "dog"], first=100)

    assert by_hash(tmp_path / "a") == by_hash(tmp_path / "b")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_numbers_without_names_mean_what_training_names_them(split, tmp_path):
    write(tmp_path / "train.parquet", [1 + n for n in TURNS], names=["ant", "cat", "dog"])  # no image of ant
    write(tmp_path / f"{split}.parquet", [2] * 4, first=100)
    data = load_data(spec(tmp_path))

    found = load_test(spec(tmp_path), data)[0] if split == "test" else data

    assert data.class_names == ("cat", "dog")
    assert {data.class_names[found.labels[number]] for number in found.val_numbers} == {"dog"}


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], ["cat", "cow"], "cow is no class of the training images"),
        ([0, 5], None, "label 5, but the file names only 2 classes"),
        (["cat", "owl"], None, "owl is no class of the training images"),
        ([0, -1], None, "label -1 is negative"),
        ([0, None], None, "row 1 has no label"),
    ],
)
def test_a_class_that_training_does_not_have_is_refused_before_training(split, labels, names, message, tmp_path):
    write(tmp_path / "train.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / f"{split}.parquet", labels, names=names, first=100)

    with pytest.raises(InputError) as caught:
        check_test(spec(tmp_path), load_data(spec(tmp_path)))

    assert message in str(caught.value)
    assert f"{split}.parquet" in str(caught.value)


def test_names_that_disagree_leave_numbers_without_names_no_meaning(tmp_path):
    write(tmp_path / "train-0.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / "train-1.parquet", TURNS, names=["dog", "cat"], first=100)
    write(tmp_path / "train-2.parquet", TURNS, first=200)

    with pytest.raises(InputError, match=r"train-2\.parquet: .*numbers without names"):
        summarize(spec(tmp_path))


@pytest.mark.parametrize("split", ["val", "test"])
def test_shared_images_with_other_labels_are_refused(split, tmp_path):
    write(tmp_path / "train.parquet", TURNS)
    write(tmp_path / f"{split}.parquet", OTHER)

    with pytest.raises(InputError, match=r"24 of the 24 .*: row 0 is '1', in training '0'; are the classes in another"):
        check_test(spec(tmp_path), load_data(spec(tmp_path)))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array(TURNS, pa.int8()), ("0", "1")),
        (pa.array(TURNS, pa.uint64()), ("0", "1")),
        (pa.array([float(n) for n in TURNS]), ("0", "1")),
        (pa.array(np.asarray(TURNS, dtype=np.float16)), ("0", "1")),
        (pa.array([n == 1 for n in TURNS]), ("false", "true")),
        (pa.array([[n] for n in TURNS]), ("0", "1")),
        (pa.array([[n] for n in TURNS], pa.list_(pa.int64(), 1)), ("0", "1")),
        (pa.array([["cat", "dog"][n] for n in TURNS]), ("cat", "dog")),
        (pa.array([["cat", "dog"][n] for n in TURNS], pa.large_string()), ("cat", "dog")),
        (pa.array([["cat", "dog"][n] for n in TURNS]).dictionary_encode(), ("cat", "dog")),
        (pa.array([[b"cat", b"dog"][n] for n in TURNS]), ("cat", "dog")),
        (pa.array([1 + n for n in TURNS]), ("1", "2")),
        (pa.array([10 - 7 * n for n in TURNS]), ("3", "10")),
        (pa.array([2 * n - 1 for n in TURNS]), ("-1", "1")),
        (pa.array(TURNS).cast(pa.decimal128(20, 1)), ("0", "1")),
    ],
)
def test_labels_of_any_type_that_can_be_a_class_are_read(labels, names, tmp_path):
    path = write(tmp_path / "train.parquet", labels)

    assert load_data(spec(path)).class_names == names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.int32()), (pa.string(), pa.large_string()), (pa.int8(), pa.float32()),
        (pa.int64(), pa.string()), (pa.dictionary(pa.int32(), pa.string()), pa.string()),
    ],
)  # fmt: skip
def test_shards_may_store_labels_in_other_types(one, other, tmp_path):
    plain = [n % 3 for n in range(IMAGES)]
    for number, kind in enumerate((one, other)):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        labels = pa.array([str(n) for n in plain] if text else plain)
        labels = labels.dictionary_encode() if pa.types.is_dictionary(kind) else labels.cast(kind)
        write(tmp_path / f"train-{number}.parquet", labels, first=100 * number)

    data = load_data(spec(tmp_path))

    assert data.class_names == ("0", "1", "2")
    assert data.num_train + data.num_val == 2 * IMAGES


def test_names_without_images_are_left_out_and_said(tmp_path):
    path = write(tmp_path / "train.parquet", [2 * n for n in TURNS], names=["cat", "cow", "dog", "emu"])

    seen = summarize(spec(path))

    assert seen.class_names == ("cat", "dog")
    assert "2 of the named classes without images left out: cow, emu" in seen.findings


def test_one_row_without_an_image_is_left_out_and_named(tmp_path):
    table = pa.table({"image": [*images(5), None, *images(IMAGES, 100)], "label": [0, 1] * 15})
    pq.write_table(table, tmp_path / "train.parquet")

    data = load_data(spec(tmp_path))

    assert (data.num_broken, data.num_train + data.num_val) == (1, 29)
    assert data.note is not None and "train.parquet: row 5: cannot be read: the row has no image" in data.note


def test_an_image_of_a_later_shard_is_named_by_its_own_file_and_row(tmp_path):
    write(tmp_path / "train-0.parquet", TURNS)
    table = pa.table({"image": [*images(3, 100), {"bytes": b"x", "path": None}], "label": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "train-1.parquet")

    note = load_data(spec(tmp_path)).note

    assert note is not None and "train-1.parquet: row 3" in note


@pytest.mark.parametrize(
    ("image", "label", "more"),
    [
        ("image", "labels", {}), ("img", "fine_label", {"coarse_label": TURNS}), ("picture", "class", {"id": TURNS}),
        ("jpg", "cls", {"__key__": [str(n) for n in range(IMAGES)]}), ("image", "target", {"age": TURNS}),
        ("image", "kind", {"width": TURNS, "height": TURNS, "filename": [f"{n}" for n in range(IMAGES)]}),
    ],
)  # fmt: skip
def test_columns_are_found_where_only_one_can_be_meant(image, label, more, tmp_path):
    path = write(tmp_path / "train.parquet", TURNS, image=image, label=label, **more)

    assert load_data(spec(path)).num_train == 20


def test_columns_may_be_named_in_the_study(tmp_path):
    path = write(tmp_path / "train.parquet", TURNS, label="one", two=pa.array(["a", "b", "c"] * 8), thumb=images())
    pq.write_table(pq.read_table(path).rename_columns(["full", "one", "two", "thumb"]), path)

    data = load_data(spec(path, image_column="thumb", label_column="two"))

    assert data.class_names == ("a", "b", "c")
    with pytest.raises(InputError, match=r"no column 'three' \(data\.label_column\); the columns are"):
        load_data(spec(path, image_column="full", label_column="three"))
    with pytest.raises(InputError, match=r"--set data\.image_column=NAME"):
        load_data(spec(path))


@pytest.mark.parametrize(
    "place",
    [
        "default/train/0000.parquet", "train/0000.parquet", "data/train-00000-of-00001-6f3344faa23e9b0a.parquet",
        "train.parquet/part-0.parquet", "default/partial-train/0000.parquet", "part-00000.snappy.parquet",
        "photos.parquet", "year=2020/part-0.parquet", "training.parquet", "Train_images.parquet",
        "train_clean-0.parquet",
    ],
)  # fmt: skip
def test_a_file_is_found_where_tools_put_it(place, tmp_path):
    write(tmp_path / "data" / place, TURNS)

    assert load_data(spec(tmp_path / "data")).num_train == 20
    assert kind_of(tmp_path / "data") == "parquet"


def test_a_folder_named_by_column_and_value_is_a_label(tmp_path):
    for number, name in enumerate(("big%20cat", "dog")):
        write(tmp_path / "train" / f"label={name}" / "part-0.parquet", [0] * 12, label="x", first=100 * number)
        table = pq.ParquetFile(tmp_path / "train" / f"label={name}" / "part-0.parquet").read().drop_columns(["x"])
        pq.write_table(table, tmp_path / "train" / f"label={name}" / "part-0.parquet")

    data = load_data(spec(tmp_path))

    assert data.class_names == ("big cat", "dog")
    assert np.bincount(data.labels).tolist() == [12, 12]


def test_files_of_other_splits_are_passed_over_and_named(tmp_path):
    write(tmp_path / "train-00000-of-00001.parquet", TURNS)
    write(tmp_path / "train_unlabeled-00000-of-00001.parquet", OTHER, first=100)
    write(tmp_path / "unsupervised.parquet", OTHER, first=200)
    (tmp_path / "._train.parquet").write_bytes(b"of macOS")
    (tmp_path / "README.md").write_text("words")

    seen = summarize(spec(tmp_path))

    assert seen.num_train + seen.num_val == IMAGES
    assert any("train_unlabeled-00000-of-00001.parquet and 1 more, no split by name" in text for text in seen.findings)
    assert "passed over: 1 ending in .md, 1 hidden files or folders" in seen.findings


def test_several_data_sets_in_one_folder_are_refused(tmp_path):
    write(tmp_path / "small" / "train" / "0.parquet", TURNS)
    write(tmp_path / "large" / "train" / "0.parquet", TURNS)

    with pytest.raises(InputError, match="holds several data sets: large, small; give one of these folders"):
        summarize(spec(tmp_path))


@pytest.mark.parametrize("name", ["validation-0.parquet", "val.parquet", "dev/0.parquet", "data/valid-0.parquet"])
def test_validation_files_are_the_validation_split(name, tmp_path):
    train = write(tmp_path / "train.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / name, [0, 1, 1], names=["dog", "cat"], first=100)

    data, seen = load_data(spec(tmp_path)), summarize(spec(tmp_path))

    assert (data.num_train, data.num_val, seen.own_val, seen.digest) == (IMAGES, 3, True, data.digest)
    assert sorted(data.class_names[data.labels[number]] for number in data.val_numbers) == ["cat", "cat", "dog"]
    assert "validation images in " + name in data.findings[0]
    assert load_test(spec(tmp_path), data) is None
    if "/" not in name:  # one file is training, and its neighbours are what their names say
        assert load_data(spec(train)).digest == data.digest


@pytest.mark.parametrize("labels", [[-1, -1], pa.array([None, None], pa.int64()), [[], []]])
def test_a_test_split_without_labels_is_passed_over_and_said(labels, tmp_path):
    write(tmp_path / "train.parquet", TURNS, names=["cat", "dog"])
    write(tmp_path / "test.parquet", labels, first=100)
    data = load_data(spec(tmp_path))

    assert load_test(spec(tmp_path), data) is None
    assert "the test split is passed over" in str(check_test(spec(tmp_path), data))


def test_a_test_file_without_a_column_of_labels_is_passed_over_and_said(tmp_path):
    write(tmp_path / "train.parquet", TURNS)
    pq.write_table(pa.table({"image": images(3, 100)}), tmp_path / "test.parquet")
    data = load_data(spec(tmp_path))

    assert load_test(spec(tmp_path), data) is None
    assert "the test split is passed over" in str(check_test(spec(tmp_path), data))


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "cut", "empty"])
def test_a_training_file_that_cannot_be_read_is_one_line_of_error(kind, tmp_path):
    path = write(tmp_path / "train.parquet", TURNS)
    content = path.read_bytes()
    path.unlink()
    makers = {
        "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("nowhere"), "folder": path.mkdir,
        "cut": lambda: path.write_bytes(content[: len(content) // 2]),
        "empty": lambda: pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": TURNS[:0]}), path),
    }  # fmt: skip
    makers[kind]()

    with pytest.raises(InputError) as caught:
        summarize(spec(tmp_path))

    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_any_damage_to_a_file_is_one_line_of_error(seed, tmp_path):
    random = np.random.default_rng(seed)
    path = write(tmp_path / "train.parquet", [["cat", "dog"][n] for n in TURNS])
    content = bytearray(path.read_bytes())
    for place in random.integers(0, len(content), 40):
        content[place] = random.integers(0, 256)
    path.write_bytes(content)

    said = ""
    try:
        load_data(spec(path))
    except InputError as error:
        said = str(error)

    assert "\n" not in said
