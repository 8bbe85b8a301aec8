"""Folders as users have them: splits under many names, things that are no images, links, names of any bytes."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coatnet_search.core.errors import InputError
from coatnet_search.data.load import load_data, summarize
from coatnet_search.data.sources.folder_layout import find_layout
from coatnet_search.data.sources.listing import IMAGE_ENDINGS, read_folder
from coatnet_search.data.sources.split_names import splits_of
from coatnet_search.data.spec import DataSpec
from coatnet_search.data.test_split import check_test, load_test
from coatnet_search.full.predict import image_files

ANIMALS = ("cat", "dog", "emu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "cache"))


def ppm(seed: int, side: int = 8) -> bytes:
    """A picture whose bytes no library decides."""
    values = (np.arange(side * side * 3, dtype=np.uint64) * 2654435761 + seed * 40503) >> np.uint64(7)
    return b"P6 %d %d 255\n" % (side, side) + values.astype(np.uint8).tobytes()


def fill(folder: Path, classes: tuple[str, ...] = ANIMALS, count: int = 6, first: int = 0) -> Path:
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.ppm").write_bytes(ppm(first + 100 * place + number))
    return folder


def spec(path: Path) -> DataSpec:
    return DataSpec(name="image_folder", path=str(path), val_fraction=0.2)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "TEST"), ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"), ("trainSet", "testSet"), ("train_images", "test_images"), ("train17", "test17"),
        ("photos/train", "photos/test"), ("archive/data/Train", "archive/data/evaluation"), ("a_train", "a_test"),
        ("photos/photos/train", "photos/photos/eval"), ("flowers-train", "flowers-test"), ("trainset", "testset"),
    ],
)  # fmt: skip
def test_training_and_test_folders_are_found_whatever_their_case_and_additions(train, test, tmp_path):
    fill(tmp_path / "root" / train)
    fill(tmp_path / "root" / test, first=1000)
    plain = fill(tmp_path / "plain")

    data = load_data(spec(tmp_path / "root"))
    found = load_test(spec(tmp_path / "root"), data)

    assert data.class_names == ANIMALS
    assert data.digest == load_data(spec(plain)).digest
    assert found is not None and found[0].num_val == 18
    assert "which only full training opens" in data.findings[0]


@pytest.mark.parametrize(
    "wrapped", ["photos", "photos/photos", "archive/images", "My Data"]
)  # fmt: skip
def test_a_folder_that_wraps_the_classes_is_opened_and_said(wrapped, tmp_path):
    fill(tmp_path / "root" / wrapped)

    data = load_data(spec(tmp_path / "root"))

    assert data.class_names == ANIMALS
    assert data.findings == (f"the classes lie in {wrapped}/",)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["Apprentissage/cat", "Apprentissage/dog", "Essai/cat", "Essai/dog"], "hold the same folders (cat, dog)"),
        (["A/cat", "A/dog", "A/emu", "B/Cat", "B/Dog"], "hold the same folders (cat, dog)"),
        (["A/cat", "A/dog", "B/cat", "B/dog", "C"], "hold the same folders"),
        (["A/cat", "A/dog", "B/cat"], "hold the same folders (cat)"),
        (["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog", "fold3/cat", "fold3/dog"], "if they are splits"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "splits go above the classes"),
        (["train", "dev"], "train/ holds images but no folder a class"),
        (["train", "test"], "train/ holds images but no folder a class"),
        (["cat", "dog", "test"], "has test/ but no train/"),
        (["test/cat", "test/dog"], "has test/ but no train/"),
        (["val/cat", "val/dog", "Testing/cat"], "but no train/"),
        (["train1/cat", "train1/dog", "train2/cat", "train2/dog"], "which one has the training images"),
        (["bus", "car", "train/steam", "train/diesel"], "the training split or a class?"),
        (["train/A/cat", "train/A/dog", "train/B/cat", "train/B/dog", "test/cat"], "hold the same folders"),
    ],
)
def test_folders_that_could_be_splits_as_well_as_classes_are_refused(folders, message, tmp_path):
    fill(tmp_path / "root", tuple(folders))

    with pytest.raises(InputError) as caught:
        summarize(spec(tmp_path / "root"))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["cat/siamese", "cat/persian", "dog/poodle", "dog/pug"], ("cat", "dog")),
        (["cat/images", "dog/images", "emu/images"], ANIMALS),
        (["bus", "car", "train"], ("bus", "car", "train")),
        (["arab", "dev", "latn"], ("arab", "dev", "latn")),
        (["test_tube", "train_station", "valley"], ("test_tube", "train_station", "valley")),
        (["train/cat", "train/dog", "train_unlabeled"], ("cat", "dog")),
        (["train_set/cat", "train_set/dog", "test/cat", "sample/x", "seg_pred"], ("cat", "dog")),
        (["chest/train/cat", "chest/train/dog", "chest/test/cat", "chest/chest/train/cat"], ("cat", "dog")),
    ],
)
def test_classes_with_folders_in_them_or_odd_names_stay_classes(folders, names, tmp_path):
    fill(tmp_path / "root", tuple(folders))

    assert summarize(spec(tmp_path / "root")).class_names == names


def test_what_lies_beside_the_splits_is_named(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=2)
    fill(tmp_path / "seg_pred", (".",))
    (tmp_path / "a.ppm").write_bytes(ppm(1))

    found = summarize(spec(tmp_path)).findings

    assert "passed over: seg_pred/ (6 images), no split by name" in found
    assert "passed over: 1 images outside of the folders" in found


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "dev", "val_set"])
def test_a_validation_folder_is_the_validation_split(name, tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / name, count=2, first=1000)

    data, seen = load_data(spec(tmp_path)), summarize(spec(tmp_path))

    assert (data.num_train, data.num_val) == (18, 6)
    assert (seen.num_train, seen.num_val, seen.digest, seen.own_val) == (18, 6, data.digest, True)
    assert data.findings == (f"training images in train/ (18); validation images in {name}/ (6)",)
    assert load_test(spec(tmp_path), data) is None
    hashes = {data.hashes[number].tobytes() for number in data.val_numbers}
    assert len(hashes & {data.hashes[number].tobytes() for number in data.train_numbers}) == 0


def test_a_training_folder_given_by_itself_says_what_lies_unused_beside_it(tmp_path):
    for name in ("train", "val", "test"):
        fill(tmp_path / name)

    data = load_data(spec(tmp_path / "train"))

    assert data.findings == ("not used: test/, val/ beside train/; give the folder above for it",)
    assert data.num_train + data.num_val == 18


def test_a_validation_split_keeps_subsets_and_seeds_of_training_alone(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", count=2, first=1000)

    part = load_data(DataSpec(name="image_folder", path=str(tmp_path), num_images=9))

    assert (part.num_train, part.num_val) == (9, 6)


def test_the_digest_of_data_without_a_validation_folder_is_the_known_one(tmp_path):
    fill(tmp_path / "plain")
    fill(tmp_path / "split" / "train")
    fill(tmp_path / "split" / "test", first=1000)

    assert {load_data(spec(tmp_path / name)).digest for name in ("plain", "split")} == {"68ef2da952ca6045"}


def test_validation_images_that_training_has_are_counted_and_absent_classes_named(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", ("cat", "dog"), count=2)

    note = load_data(spec(tmp_path)).note

    assert note is not None
    assert "4 of the 4 validation images are training images too" in note
    assert "1 classes have no validation image: emu" in note


@pytest.mark.parametrize("split", ["val", "test"])
def test_shared_images_with_other_labels_are_refused_before_training(split, tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / split, ("dog", "cat"), count=3)  # the images of cat and dog

    with pytest.raises(InputError, match=r"6 of the 6 .* images that training has too.* 'cat', in training 'dog'"):
        check_test(spec(tmp_path), load_data(spec(tmp_path)))
    if split == "test":
        with pytest.raises(InputError, match="6 of the 6 test images"):
            load_test(spec(tmp_path), load_data(spec(tmp_path)))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_does_not_have_is_refused_in_either_split(split, tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / split, ("cat", "dgo"), first=1000)

    with pytest.raises(InputError, match="no class of the training images named 'dgo'; did you mean 'dog'"):
        check_test(spec(tmp_path), load_data(spec(tmp_path)))


@pytest.mark.parametrize("inside", [".", "images", "unknown", "test/all"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_folders_of_classes_is_passed_over_and_said(split, inside, tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / split, (inside,), first=1000)

    data = load_data(spec(tmp_path))
    said = [*data.findings, check_test(spec(tmp_path), data) or ""]

    assert (data.num_train + data.num_val, load_test(spec(tmp_path), data)) == (18, None)
    assert any("passed over" in text and "no folder of a class" in text for text in said)


def test_a_test_class_of_its_own_place_is_not_read_from_an_older_index(tmp_path):
    fill(tmp_path / "train", ("cat", "dog"))
    fill(tmp_path / "test", ("dog",), first=1000)
    first = load_test(spec(tmp_path), load_data(spec(tmp_path)))
    fill(tmp_path / "train", ("ant",), first=2000)  # now every class has another place

    later = load_test(spec(tmp_path), load_data(spec(tmp_path)))

    assert first is not None and later is not None
    assert [set(found[0].labels.tolist()) for found in (first, later)] == [{1}, {2}]


@pytest.mark.parametrize(
    ("clutter", "said"),
    [
        ("cat/.ipynb_checkpoints/0-checkpoint.ppm", "1 hidden"), ("__MACOSX/cat/._0.ppm", "1 hidden"),
        ("cat/._0.ppm", "1 hidden"), ("cat/@eaDir/0.ppm", "1 hidden"), ("cat/Thumbs.db", "1 hidden"),
        (".git/0.ppm", "1 hidden"), ("cat/0.heic", "1 ending in .heic"), ("notes.txt", "1 ending in .txt"),
        ("cat/README", "1 with no ending"), ("dog/a.npy", "1 ending in .npy"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_passed_over_and_counted_by_its_ending(clutter, said, tmp_path):
    plain, root = fill(tmp_path / "plain"), fill(tmp_path / "root")
    (root / clutter).parent.mkdir(parents=True, exist_ok=True)
    (root / clutter).write_bytes(ppm(999))

    data = load_data(spec(root))

    assert data.digest == load_data(spec(plain)).digest
    assert len(data.findings) == 1 and said in data.findings[0]
    assert len(image_files([root])[0]) == 18
    assert sum(image_files([root])[1].values()) == 1


def test_linked_folders_are_read_and_a_circle_of_links_ends(tmp_path):
    root = fill(tmp_path / "root")
    fill(tmp_path / "elsewhere", ("more",), first=1000)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "fox").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "dog" / "round").symlink_to(root)
    (root / "dog" / "itself").symlink_to("itself")

    data = load_data(spec(root))

    assert data.class_names == ("cat", "dog", "emu", "fox")
    assert data.num_train + data.num_val == 4 * 6 + 6


def test_a_broken_link_and_a_pipe_are_unreadable_images_like_others(tmp_path):
    root = fill(tmp_path / "root", count=80)
    (root / "cat" / "zz.png").symlink_to("nowhere")
    os.mkfifo(root / "dog" / "x.png")

    data = load_data(spec(root))

    assert data.num_broken == 2
    assert data.note is not None
    assert "cat/zz.png: cannot be read" in data.note
    assert "dog/x.png: cannot be read: not a regular file" in data.note


def test_names_that_are_not_utf_8_are_used_and_shown_as_text(tmp_path):
    root = fill(tmp_path / "root")
    os.rename(root / "emu", os.fsencode(root) + b"/\xe9mu")
    (root / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")

    data = load_data(spec(root))

    assert data.class_names == ("cat", "dog", "\\xe9mu")
    assert data.note is not None and "cat/caf\\xe9.png" in data.note


def test_a_path_that_is_not_utf_8_is_one_line_of_error(tmp_path):
    root = fill(tmp_path / os.fsdecode(b"photos-\xe9"))

    with pytest.raises(InputError, match=r"photos-\\xe9: the name is not UTF-8"):
        summarize(spec(root))


@pytest.mark.parametrize("text", [b"6\0", b"8\0", b"top-left\0"])
def test_an_orientation_that_is_text_turns_nothing(text, tmp_path):
    place = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", 26)
    tag = struct.pack("<IHHHI", 8, 1, 0x0112, 2, len(text)) + place + struct.pack("<I", 0) + text
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.fromarray(random.integers(0, 255, (30, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / "root" / name / f"{number}.jpg", exif=b"Exif\0\0II*\0" + tag)

    seen, data = summarize(spec(tmp_path / "root")), load_data(spec(tmp_path / "root"), image_size=20)

    assert (seen.num_broken, seen.image_sizes, data.num_train) == (0, (20, 20, 20), 4)


def test_images_in_several_classes_are_counted(tmp_path):
    root = fill(tmp_path / "root", ("cat", "dog"))
    (root / "dog" / "copy.ppm").write_bytes((root / "cat" / "0.ppm").read_bytes())

    note = load_data(spec(root)).note

    assert note == "1 images are in more than one class, byte for byte"


def test_images_without_any_folder_of_a_class_are_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "0.ppm").write_bytes(ppm(0))
    (tmp_path / "root" / "labels.csv").write_text("image,label")

    with pytest.raises(InputError, match="holds images but no folder a class; expected CLASS/IMAGE"):
        summarize(spec(tmp_path / "root"))


def test_folders_without_an_end_are_refused(tmp_path):
    deep = tmp_path / "root" / "cat" / "/".join("a" * 120)
    deep.mkdir(parents=True)

    with pytest.raises(InputError, match="folders inside one another"):
        summarize(spec(tmp_path / "root"))


def test_columns_are_for_parquet_alone(tmp_path):
    with pytest.raises(InputError, match=r"data\.label_column: only data\.name parquet has columns"):
        summarize(DataSpec(name="digits", label_column="label"))


def test_names_of_splits_need_a_split_word_and_nothing_that_says_something_else():
    names = ["train", "Test-Set", "train_unlabeled", "contrast", "latest", "val.2", "trainee", "train_test", "Dev"]

    assert splits_of(names) == {"train": "train", "Test-Set": "test", "val.2": "val", "Dev": "val"}


def test_a_layout_is_found_without_opening_an_image(tmp_path, monkeypatch):
    fill(tmp_path / "train")
    fill(tmp_path / "val", count=2)
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("an image was opened"))

    layout = find_layout(read_folder(tmp_path, IMAGE_ENDINGS))

    assert layout.val is not None and layout.test is None
    assert (layout.train.count, layout.val.count) == (18, 6)
