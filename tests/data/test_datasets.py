"""Every data set of the menu keeps the same promises; faulty data is named in one line."""

import copy
import dataclasses
import hashlib
import io
import json
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data import DATASETS, memory, stream
from coatnet_search.data import load as datasets
from coatnet_search.data.augmentation import Choices, augment, draw_choices, generator
from coatnet_search.data.cache import cached
from coatnet_search.data.decode import Reading, open_image, open_pixels, to_array
from coatnet_search.data.load import load_data, summarize
from coatnet_search.data.randaugment import OPERATIONS, RandAugment
from coatnet_search.data.spec import DataSpec
from coatnet_search.data.splits_and_regimes import nested_order, split
from coatnet_search.training.recipe import RECIPES, Recipe

CPU = torch.device("cpu")
KNOWN_DIGITS_DIGEST = "390f45bc43785caa"
KNOWN_DIGITS_REGIME = [1517, 275, 1090, 979, 1775, 370, 842, 56, 1703, 507]
PLAIN = dataclasses.replace(RECIPES["digits"], shift=0, flip=False)
FULL = dataclasses.replace(
    PLAIN, flip=True, min_crop_area=0.3, randaugment_layers=2, randaugment_magnitude=15, batch_size=8
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, size: tuple[int, int] = (12, 12), mode: str = "RGB", kind: str = "PNG") -> bytes:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values, mode=mode).save(out, kind)
    return out.getvalue()


def make_folder(root: Path, per_class: int = 20, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for place in range(per_class):
            (root / name / f"{place}.png").write_bytes(picture(1000 * number + place))
    return root


def write_parquet(path: Path, images: Any, labels: Any, column: str = "image", names: list[str] | None = None) -> Path:
    table = pa.table({column: images, "label": labels})
    if names is not None:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path)
    return path


def embedded(count: int) -> list[dict[str, Any]]:
    return [{"bytes": picture(number), "path": f"{number}.png"} for number in range(count)]


def fake_cifar(root: Path, cls: Any, key: str, num_classes: int, patch: pytest.MonkeyPatch) -> Path:
    """A folder in torchvision's layout with a few images, and the checksums that torchvision would check."""
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    count = 4 * num_classes
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3072), dtype=np.uint8)
    batch = {"data": pixels, key: [number % num_classes for number in range(count)]}
    names = {cls.meta["key"]: [str(number) for number in range(num_classes)]}
    sums = []
    for name, content in ((cls.train_list[0][0], batch), (cls.meta["filename"], names)):
        (folder / name).write_bytes(pickle.dumps(content))
        sums.append(hashlib.md5((folder / name).read_bytes()).hexdigest())
    patch.setattr(cls, "train_list", [[cls.train_list[0][0], sums[0]]])
    patch.setattr(cls, "test_list", [])
    patch.setattr(cls, "meta", {**cls.meta, "md5": sums[1]})
    return root


@pytest.fixture
def spec_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], DataSpec]:
    """A small working example of each data set of the menu."""
    makers: dict[str, Callable[[], Path | None]] = {
        "digits": lambda: None,
        "parquet": lambda: write_parquet(tmp_path / "train.parquet", embedded(60), [n % 3 for n in range(60)]),
        "image_folder": lambda: make_folder(tmp_path / "images"),
        "cifar10": lambda: fake_cifar(tmp_path / "c10", CIFAR10, "labels", 10, monkeypatch),
        "cifar100": lambda: fake_cifar(tmp_path / "c100", CIFAR100, "fine_labels", 100, monkeypatch),
    }

    def spec(name: str) -> DataSpec:
        path = makers[name]()
        return DataSpec(name=name, path=None if path is None else str(path), val_fraction=0.2)

    return spec


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_splits_all_its_images_into_train_and_val_with_every_class_on_both_sides(name, spec_of):
    spec = spec_of(name)

    data = load_data(spec)

    labels = data.labels.numpy()
    assert sorted([*data.train_numbers, *data.val_numbers]) == list(range(len(labels)))
    assert set(labels[data.train_numbers]) == set(labels[data.val_numbers]) == set(range(data.num_classes))
    assert data.num_val == pytest.approx(0.2 * len(labels), abs=data.num_classes)


@pytest.mark.parametrize("name", DATASETS)
def test_a_second_load_reads_only_the_cache_and_gives_the_same_data(name, spec_of, monkeypatch):
    spec = spec_of(name)
    first = load_data(spec)
    source = datasets._open(spec)
    untouchable = dataclasses.replace(source, load=lambda: pytest.fail("the images were opened again"))
    monkeypatch.setattr(datasets, "_open", lambda spec: untouchable)

    second = load_data(spec)

    assert second.digest == first.digest
    assert torch.equal(second.images.on(CPU), first.images.on(CPU))


@pytest.mark.parametrize("name", DATASETS)
def test_val_batches_are_normalised_images_with_the_labels_of_the_val_part(name, spec_of):
    data = load_data(spec_of(name))

    batches = list(data.val_batches(batch_size=7, device=CPU))

    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    assert images.shape == (data.num_val, data.in_channels, data.image_size, data.image_size)
    assert images.dtype == torch.float32
    assert images.abs().mean() < 2
    assert torch.equal(labels, data.labels[data.val_numbers])


@pytest.mark.parametrize("name", DATASETS)
def test_augmented_batches_depend_on_seed_and_epoch_alone(name, spec_of):
    data = load_data(spec_of(name))

    def epoch(seed: int, epoch: int) -> torch.Tensor:
        regime = data.regime(min(data.num_train, 120))
        batches = data.train_batches(batch_size=8, seed=seed, epoch=epoch, recipe=FULL, device=CPU, regime=regime)
        return torch.cat([images for images, _ in batches])

    assert torch.equal(epoch(0, 1), epoch(0, 1))
    assert not torch.equal(epoch(0, 1), epoch(0, 2))
    assert not torch.equal(epoch(0, 1), epoch(1, 1))


@pytest.mark.parametrize("name", DATASETS)
def test_a_summary_agrees_with_the_loaded_data(name, spec_of):
    spec = spec_of(name)

    seen, data = summarize(spec), load_data(spec)

    assert (seen.num_train, seen.num_val, seen.num_classes) == (data.num_train, data.num_val, data.num_classes)
    assert (seen.in_channels, seen.class_names, seen.digest) == (data.in_channels, data.class_names, data.digest)
    assert seen.exact


@pytest.mark.parametrize("name", DATASETS)
def test_another_split_has_another_digest_and_a_missing_path_says_how_to_give_it(name, spec_of, tmp_path):
    spec = spec_of(name)

    other = dataclasses.replace(spec, seed=5)

    assert load_data(spec).digest != load_data(other).digest
    if spec.path is not None:
        with pytest.raises(SetupError, match=r"--set data\.path="):
            load_data(dataclasses.replace(spec, path=str(tmp_path / "absent")))


def test_the_digits_split_and_regimes_are_the_known_ones_on_every_machine():
    data = load_data(DataSpec(name="digits"))

    first = data.regime(10).tolist()

    assert data.digest == KNOWN_DIGITS_DIGEST
    assert first == KNOWN_DIGITS_REGIME
    assert (data.num_train, data.num_val) == (1618, 179)
    assert data.note is not None
    assert "demonstration" in data.note


def test_identical_images_stay_on_one_side_even_under_different_labels():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 256, (300, 16), dtype=np.uint8)[random.integers(0, 300, 2000)]
    labels = random.integers(0, 4, 2000)

    train, val = split(hashes, labels, val_fraction=0.3, seed=1, class_names="abcd")

    assert not {row.tobytes() for row in hashes[train]} & {row.tobytes() for row in hashes[val]}
    assert len(val) == pytest.approx(600, rel=0.1)


def test_the_split_does_not_depend_on_the_order_of_the_images():
    random = np.random.default_rng(0)
    hashes, labels = random.integers(0, 256, (500, 16), dtype=np.uint8), random.integers(0, 5, 500)
    mixed = random.permutation(500)

    _, val = split(hashes, labels, val_fraction=0.1, seed=0, class_names="abcde")
    _, other = split(hashes[mixed], labels[mixed], val_fraction=0.1, seed=0, class_names="abcde")

    assert set(val) == set(mixed[other])


def test_regimes_nest_hold_every_class_and_keep_the_classes_shares():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 256, (1000, 16), dtype=np.uint8)
    balanced, skewed = np.arange(1000) % 10, np.minimum(random.geometric(0.4, 1000) - 1, 6)

    for labels in (balanced, skewed):
        order = nested_order(hashes, labels, seed=0, draw=0)
        share = np.bincount(labels) / 1000
        for count in (10, 50, 300, 1000):
            held = np.bincount(labels[order[:count]], minlength=len(share))
            assert (held >= 1).all()
            assert np.abs(held - count * share).max() <= len(share)

    even = nested_order(hashes, balanced, seed=0, draw=0)
    assert (np.bincount(balanced[even[:200]]) == 20).all()
    assert not np.array_equal(even, nested_order(hashes, balanced, seed=0, draw=1))


def test_a_regime_beyond_the_data_or_below_the_classes_is_refused():
    data = load_data(DataSpec(name="digits"))

    for count in (9, 1619):
        with pytest.raises(InputError, match="num_images: expected 10"):
            data.regime(count)
    with pytest.raises(InputError, match=r"data\.num_images"):
        load_data(DataSpec(name="digits", num_images=5000))


def test_shards_of_a_parquet_folder_are_one_data_set_whatever_their_order(tmp_path):
    rows, labels = embedded(40), [n % 2 for n in range(40)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "data").mkdir(parents=True)
    write_parquet(tmp_path / "a" / "train.parquet", rows, labels)
    write_parquet(tmp_path / "b" / "data" / "train-0.parquet", rows[25:], labels[25:])
    write_parquet(tmp_path / "b" / "data" / "train-1.parquet", rows[:25], labels[:25])

    whole, shards = (load_data(DataSpec(name="parquet", path=str(tmp_path / part))) for part in "ab")

    assert whole.digest == shards.digest
    one, other = (
        torch.cat([x for x, _ in data.train_batches(
            batch_size=4, seed=0, epoch=1, recipe=PLAIN, device=CPU, regime=data.regime())])
        for data in (whole, shards)
    )  # fmt: skip
    assert torch.equal(one, other)


def test_parquet_takes_class_names_from_its_metadata_and_plain_bytes_as_images(tmp_path):
    rows = [row["bytes"] for row in embedded(20)]
    path = write_parquet(tmp_path / "x.parquet", rows, [n % 2 for n in range(20)], "img", ["cat", "dog"])

    data = load_data(DataSpec(name="parquet", path=str(path)))

    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"one": [b""], "two": [b""], "label": [0]}, None, "no column 'image' or 'img'; the columns are one, two, l"),
        ({"one": [b""], "two": [b""], "label": [0]}, None, "--set data.image_column=NAME"),
        ({"image": [b""], "a": [0], "b": [0]}, None, "no column 'label' or 'fine_label'; the columns are a, b"),
        ({"image": ["text"], "label": [0]}, None, "expected {bytes, path} or bytes, got string"),
        ({"image": [b""] * 3, "label": [0, 1, 2]}, ["a", "b"], "label 2, but the file names only 2 classes"),
        ({"image": [b""] * 2, "label": [0, -1]}, None, "label -1 is negative"),
        ({"image": [b""] * 2, "label": [0, None]}, None, "row 1 has no label"),
        ({"image": [b""] * 2, "label": [0.5, 1.0]}, None, "expected whole numbers or text"),
        ({"image": [b""] * 2, "label": [0, 0]}, None, "one class only"),
        ({"image": [b""] * 2, "label": [["a"], ["a", "b"]]}, None, "row 1 has 2 labels"),
        ({"image": [b""] * 2, "label": [None, None]}, None, "row 0 has no label, nor has any other"),
        ({"image": [{"bytes": None, "path": "a.png"}] * 3, "label": [0, 1, 1]}, None, "embed the images"),
    ],
)
def test_a_faulty_parquet_file_is_named_with_what_is_wrong(tmp_path, columns, names, message):
    path = tmp_path / "train.parquet"
    table = pa.table(columns)
    if names:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}
        )
    pq.write_table(table, path)

    with pytest.raises(InputError) as caught:
        load_data(DataSpec(name="parquet", path=str(path)))

    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_and_a_folder_without_any_are_input_errors(tmp_path):
    (tmp_path / "train.parquet").write_text("not parquet")
    (tmp_path / "empty").mkdir()

    for path, message in ((tmp_path, "not a parquet file"), (tmp_path / "empty", r"no train\*\.parquet")):
        with pytest.raises(InputError, match=message):
            load_data(DataSpec(name="parquet", path=str(path)))


def folder_spec(root: Path) -> DataSpec:
    return DataSpec(name="image_folder", path=str(root))


def test_image_folder_trains_on_train_and_leaves_test_closed(tmp_path):
    make_folder(tmp_path / "root" / "train")
    (tmp_path / "root" / "test" / "cat").mkdir(parents=True)
    (tmp_path / "root" / "test" / "cat" / "x.png").write_bytes(b"reading this would fail")
    make_folder(tmp_path / "plain")

    nested, plain = (load_data(folder_spec(tmp_path / name)) for name in ("root", "plain"))

    assert nested.digest == plain.digest
    assert nested.num_broken == 0


def test_image_folder_names_what_is_wrong_with_a_folder(tmp_path):
    one, empty, bare, held = (tmp_path / name for name in ("one", "empty", "bare", "held"))
    make_folder(one, classes=("cat",))
    (make_folder(empty) / "fox").mkdir()
    (bare / "cat").mkdir(parents=True)
    (held / "test" / "cat").mkdir(parents=True)
    (tmp_path / "file").write_text("")

    for root, message in (
        (one, "one class, 'cat'"),
        (empty, "class 'fox' in .* has no images"),
        (bare, "no images below"),
        (held, "has test/ but no train/"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(folder_spec(root))


def test_a_few_broken_images_are_left_out_and_counted_and_many_are_an_error(tmp_path):
    root = make_folder(tmp_path / "images", per_class=70)
    (root / "cat" / "0.png").write_bytes(b"no image")
    (root / "dog" / "1.png").write_bytes(picture(5)[:200])

    data = load_data(folder_spec(root))
    (root / "eel" / "2.png").write_bytes(b"")

    assert data.num_broken == 2
    assert data.num_train + data.num_val == 208
    assert data.note is not None
    assert "cat/0.png" in data.note
    with pytest.raises(InputError, match=r"3 of 210 images cannot be used .* cat/0\.png"):
        load_data(folder_spec(root))


def test_a_decompression_bomb_counts_as_broken_and_is_never_decoded(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "images")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("L", (300, 300)).save(root / "cat" / "bomb.png")
    Image.new("L", (120, 120)).save(root / "cat" / "0.png")

    with pytest.raises(InputError, match="2 of 61 images cannot be used"):
        load_data(folder_spec(root), image_size=12)


def test_images_of_all_modes_and_sizes_become_squares_of_one_shape(tmp_path):
    root = make_folder(tmp_path / "images", classes=("cat", "dog"))
    (root / "cat" / "gray.png").write_bytes(picture(1, (30, 20), "L"))
    (root / "cat" / "alpha.png").write_bytes(picture(2, (20, 41), "RGBA"))
    (root / "dog" / "print.jpg").write_bytes(picture(3, (64, 16), "CMYK", "JPEG"))
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(root / "dog" / "deep.png")
    palette = Image.open(io.BytesIO(picture(4, (9, 33)))).quantize(8)
    palette.save(root / "dog" / "palette.png", transparency=bytes(range(8)))

    data = load_data(folder_spec(root), image_size=16)

    images, _ = next(data.val_batches(batch_size=100, device=CPU))
    assert images.shape == (data.num_val, 3, 16, 16)
    assert data.num_broken == 0
    with pytest.raises(InputError, match="an image_size is needed"):
        load_data(folder_spec(root))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whoever_decodes_a_jpeg_file_the_pixels_are_the_same(mode, channels):
    whole = picture(1, (31, 20), mode, "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    sideways = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(sideways, "JPEG", exif=turned)

    for content in (whole, sideways.getvalue()):
        found = open_pixels(content, Reading(channels=channels))

        assert np.array_equal(found.numpy(), to_array(open_image(content, Reading(channels=channels))))


def test_a_folder_of_grey_images_has_one_channel(tmp_path):
    root = make_folder(tmp_path / "images", classes=("cat", "dog"))
    for file in root.rglob("*.png"):
        file.write_bytes(picture(hash(file.name) % 1000 + len(file.parent.name) * ord(file.parent.name[0]), mode="L"))

    data = load_data(folder_spec(root))

    assert data.in_channels == 1


def test_a_photo_that_carries_a_rotation_is_turned_upright(tmp_path):
    root = make_folder(tmp_path / "images", classes=("cat", "dog"))
    sideways = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8), 100).reshape(200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(root / "cat" / "turned.jpg", exif=exif)

    index = datasets.build_index(datasets._open(folder_spec(root)))

    assert index.sizes[index.sizes[:, 1] > 12].tolist() == [[100, 200]]


def test_what_does_not_fit_memory_is_streamed_and_agrees_with_what_is_kept(tmp_path, monkeypatch):
    spec = folder_spec(make_folder(tmp_path / "images"))
    kept = load_data(spec, image_size=12)
    monkeypatch.setattr(memory, "LIMIT_BYTES", 100)
    monkeypatch.setattr(memory, "SMALL_SIDE", 100)

    streamed = load_data(spec, image_size=12)

    assert streamed.digest == kept.digest
    numbers = torch.from_numpy(streamed.val_numbers)
    shown = next(streamed.images.plain(numbers, 6, 12, CPU))
    assert shown.shape == (6, 3, 12, 12)
    assert 0 <= shown.min() < shown.max() <= 255


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_a_stream_gives_the_same_batches_with_and_without_workers(tmp_path, monkeypatch, crop):
    monkeypatch.setattr(memory, "LIMIT_BYTES", 100)
    spec = folder_spec(make_folder(tmp_path / "images", per_class=6))
    recipe = dataclasses.replace(FULL, min_crop_area=crop, shift=2)

    def epoch(workers: int) -> torch.Tensor:
        data = load_data(dataclasses.replace(spec, workers=workers), image_size=12)
        batches = data.train_batches(batch_size=4, seed=0, epoch=1, recipe=recipe, device=CPU, regime=data.regime())
        return torch.cat([images for images, _ in batches])

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(epoch(0), epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_comes_in_chunks_is_the_same_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "LIMIT_BYTES", 100)
    data = load_data(folder_spec(make_folder(tmp_path / "images", per_class=6)), image_size=12)
    numbers, sizes = torch.arange(11), []
    whole = [batch.clone() for batch in data.images.plain(numbers, 8, 12, CPU)]
    real = stream._Images.__getitem__
    monkeypatch.setattr(stream._Images, "__getitem__",
                        lambda images, chunk: sizes.append(len(chunk.numbers)) or real(images, chunk))  # fmt: skip
    monkeypatch.setattr(stream, "CHUNK", 3)

    parts = list(data.images.plain(numbers, 8, 12, CPU))

    assert sizes == [3, 3, 2, 3]
    assert [len(batch) for batch in parts] == [8, 3]
    assert all(torch.equal(*pair) for pair in zip(parts, whole, strict=True))
    assert list(data.images.plain(numbers[:0], 8, 12, CPU)) == []


def test_workers_stay_for_the_next_epoch_and_iterators_beside_each_other_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "LIMIT_BYTES", 100)
    spec = folder_spec(make_folder(tmp_path / "images", per_class=6))
    expected = list(load_data(spec, image_size=12).images.plain(torch.arange(6), 2, 12, CPU))
    data = load_data(dataclasses.replace(spec, workers=1), image_size=12)

    def epoch() -> list[torch.Tensor]:
        return list(data.images.plain(torch.arange(6), 2, 12, CPU))

    before = set(multiprocessing.active_children())
    epoch()
    workers = set(multiprocessing.active_children()) - before
    epoch()
    again = set(multiprocessing.active_children()) - before
    first = data.images.plain(torch.arange(6), 2, 12, CPU)
    begun = [next(first)]
    beside = epoch()

    assert len(workers) == 1 and again == workers
    for found in ([*begun, *first], beside, epoch()):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert copy.copy(data.images)._kept == {}  # a copy, on Ray for one, starts its own


@pytest.mark.parametrize(("side", "workers"), [(224, 8), (224, 64), (512, 32), (32, 0)])
def test_chunks_that_wait_fit_the_budget_of_shared_memory(side, workers):
    size = stream.chunk_images(3 * side**2, workers)

    assert 1 <= size <= stream.CHUNK
    assert workers * (stream.PREFETCH + 1) * size * 3 * side**2 <= stream.BUDGET_BYTES


def test_a_shift_moves_an_image_by_whole_pixels_and_a_flip_mirrors_it():
    image = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).repeat(2, 1, 1, 1)
    choices = Choices(flip=torch.tensor([False, True]), shift=torch.tensor([[1, 0], [0, 0]]), crop=None)

    moved, flipped = augment(image, choices, 5, 5)

    assert torch.equal(moved[0, :4], image[0, 0, 1:].float())
    assert torch.equal(moved[0, 4], image[0, 0, 3].float())
    assert torch.equal(flipped[0], image[0, 0].flip(1).float())


def test_a_resized_crop_of_the_whole_image_is_the_image():
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator(0))
    whole = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(2, 1)

    same = augment(image, Choices(flip=None, shift=None, crop=whole), 8, 8)
    half = augment(image, Choices(flip=None, shift=None, crop=whole * 0.5), 8, 4)

    assert torch.allclose(same, image.float(), atol=1e-3)
    assert torch.allclose(half, image[..., :4, :4].float(), atol=1e-3)


def test_drawn_crops_stay_inside_the_image():
    recipe = dataclasses.replace(FULL, min_crop_area=0.05)

    crop = draw_choices(recipe, 1000, CPU, generator(3)).crop

    assert crop is not None
    assert (crop >= 0).all()
    assert (crop[:, 0] + crop[:, 2]).max() <= 1 + 1e-6
    assert (crop[:, 1] + crop[:, 3]).max() <= 1 + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_each_randaugment_operation_keeps_shape_and_range_and_identity_keeps_the_image(channels):
    images = torch.rand(2, channels, 16, 16, generator=generator(1)) * 255
    change = RandAugment(1, 15, 2, generator(0), batch=2)

    for number, name in enumerate(OPERATIONS):
        change.layers = [change.layer(torch.full((2,), number), torch.tensor([1, -1]))]
        result = change(images, 0, 2)
        assert result.shape == images.shape, name
        assert result.isfinite().all(), name
        assert result.min() >= 0, name
        assert result.max() <= 255.001, name
        assert torch.equal(result, images) == (name == "identity" or (name == "color" and channels == 1)), name


def test_a_cache_that_cannot_be_made_says_which_variable_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.raises(SetupError, match="set COATNET_SEARCH_CACHE"):
        load_data(DataSpec(name="digits"))


def test_a_build_that_fails_leaves_nothing_in_the_cache(cache):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise InputError("no")

    with pytest.raises(InputError):
        cached("thing.bin", fail)

    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []


def test_a_full_disk_is_a_setup_error(monkeypatch):
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SetupError, match="No space left"):
        cached("thing.bin", full)


def test_an_unknown_data_set_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        load_data(DataSpec(name="digit"))


def test_a_download_happens_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "download", lambda self: pytest.fail("downloaded"))

    with pytest.raises(SetupError, match=r"data\.download=true"):
        load_data(DataSpec(name="cifar10", path=str(tmp_path)))


def test_a_recipe_is_what_data_sets_expect_of_an_augmentation():
    names = {field.name for field in dataclasses.fields(Recipe)}

    assert {"flip", "shift", "min_crop_area", "randaugment_layers", "randaugment_magnitude"} <= names


def test_a_small_regime_holds_the_least_number_of_every_class_and_all_of_a_rare_one():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 900 + [1] * 90 + [2] * 3)
    hashes = rng.integers(0, 256, (len(labels), 16), dtype=np.uint8)

    order = nested_order(hashes, labels, seed=0, per_class=5)

    first = np.bincount(labels[order[:13]], minlength=3)
    assert first.tolist() == [5, 5, 3] and sorted(order) == list(range(len(labels)))
