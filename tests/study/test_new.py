"""A user's own images to a space and a study that run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import call, digit_folder
from PIL import Image

from coatnet_search.data.load import Summary
from coatnet_search.record.fold import read_trials
from coatnet_search.space.space import load_space
from coatnet_search.study import new
from coatnet_search.study.load import load_study
from coatnet_search.study.new import EPOCHS, HOUR_S, STRIDES, TRIALS, default_name, fitted, image_sizes

SUMMARY = Summary(
    num_train=45_000, num_val=5_000, num_classes=10, in_channels=3, class_names=tuple("abcdefghij"),
    image_sizes=(32, 32, 32), digest="d", num_broken=0, exact=True, note=None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new, "SAMPLED", 12)


def look(summary: Summary) -> new.Look:
    spec = new.DataSpec(name="image_folder", path="/images", val_fraction=0.1)
    return new.Look(spec=spec, summary=summary, per_class={"a": 3, "b": 4}, val_per_class={"a": 1, "b": 1})


def test_new_images_are_looked_at_planned_and_searched(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("My Digits"), 200)
    words = ("--set", "search.trials=2", "recipe.epochs=1", "tracking.enabled=false", "--local")

    made = call(capsys, "new", "--data", "My Digits")
    planned = call(capsys, "plan", "my-digits.yaml", "--json")
    ran = call(capsys, "run", "my-digits.yaml", *words)

    assert [made.code, planned.code, ran.code] == [0, 0, 0]
    assert "200 grey images in 10 classes, 8 pixels on the shorter side" in made.out
    assert "the smallest class, digit-" in made.out
    assert "no broken images" in made.out
    assert "next: coatnet-search plan my-digits.yaml" in made.out
    assert planned.json["num_classes"] == 10
    assert [trial.state for trial in read_trials("runs/my-digits")] == ["done", "done"]


def test_the_files_fit_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("images"), 60, side=30)

    made = call(capsys, "new", "--data", "images", "--out", "there", "--name", "mine", "--json")

    assert made.code == 0
    space, study = load_space("there/mine-space.yaml"), load_study("there/mine.yaml")
    assert (space.file.image_size, space.file.in_channels, space.file.num_classes) == (32, 1, 10)
    assert study.space.name == "mine-space"
    assert study.file.data.path == str(Path("images").resolve())
    assert dict(study.file.objectives) == {"val_loss": "min", "macs": "min"}  # twelve val images tell little by error
    assert made.json["study"] == "there/mine.yaml"
    assert made.json["data"]["per_class"]["digit-3"] == 5
    assert study.file.search.trials == made.json["trials"]


def test_classes_of_one_size_are_said_to_be_so() -> None:
    alike = dataclasses.replace(look(SUMMARY), per_class={"a": 20, "b": 20}, val_per_class={"a": 4, "b": 4})

    assert "each class has 20 images, 4 of them for validation" in new.facts(alike)


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("images"), 60)
    Path("mine.yaml").write_text("question: mine\n")

    made = call(capsys, "new", "--data", "images", "--name", "mine")

    assert made.code == 2
    assert "mine.yaml is there already" in made.err
    assert Path("mine.yaml").read_text() == "question: mine\n"
    assert not Path("mine-space.yaml").exists()


def test_parquet_files_are_taken_too(capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    digit_folder(Path("images"), 80)
    files = sorted(Path("images").glob("*/*.png"))
    table = pa.table({"image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
                      "label": [int(file.parent.name[-1]) for file in files]})  # fmt: skip
    Path("digits-of-mine").mkdir()
    pq.write_table(table, "digits-of-mine/train-0.parquet")

    made = call(capsys, "new", "--data", "digits-of-mine")

    assert made.code == 0
    assert yaml.safe_load(Path("digits-of-mine.yaml").read_text())["data"]["name"] == "parquet"


def test_which_folder_is_what_and_what_is_passed_over_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("My Digits/Training"), 100)
    digit_folder(Path("My Digits/valid"), 140)
    digit_folder(Path("My Digits/Testing"), 20)
    Path("My Digits/notes.txt").write_text("words")

    made = call(capsys, "new", "--data", "My Digits")
    planned = call(capsys, "plan", "my-digits.yaml")

    places = ("training images in Training/ (100); validation images in valid/ (140); test images in Testing/ (20), "
              "which only full training opens")  # fmt: skip
    for printed in (made, planned):
        assert printed.code == 0
        assert places in printed.out
        assert "passed over: 1 ending in .txt" in printed.out
    assert "classes: digit-0, digit-1, digit-2" in made.out
    assert "100 images to train on, 140 to validate" in planned.out
    assert yaml.safe_load(Path("my-digits.yaml").read_text())["data"] == {
        "name": "image_folder", "path": str(Path("My Digits").resolve()),
    }  # fmt: skip


def test_a_column_that_is_named_when_asked_for_stands_in_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    digit_folder(Path("images"), 80)
    files = sorted(Path("images").glob("*/*.png"))
    digits = [int(file.parent.name[-1]) for file in files]
    table = pa.table({"image": [file.read_bytes() for file in files], "one": digits, "two": [n % 2 for n in digits]})
    pq.write_table(table, "digits.parquet")

    unclear = call(capsys, "new", "--data", "digits.parquet", "--name", "mine")
    made = call(capsys, "new", "--data", "digits.parquet", "--name", "mine", "--set", "data.label_column=two")
    wrong = call(capsys, "new", "--data", "digits.parquet", "--name", "other", "--set", "search.trials=2")

    assert (unclear.code, made.code, wrong.code) == (2, 0, 2)
    assert "the columns are one, two: --set data.label_column=NAME" in unclear.error
    assert load_study("mine.yaml").file.data.label_column == "two"
    assert "classes: 0, 1" in made.out
    assert "expected data.KEY=VALUE" in wrong.error


def test_a_broken_image_is_counted_and_named_classes_kept(capsys: pytest.CaptureFixture[str]) -> None:
    digit_folder(Path("images"), 150)
    broken = next(Path("images").glob("*/*.png"))
    broken.write_bytes(b"no image")

    made = call(capsys, "new", "--data", "images", "--name", "mine", "--json")

    assert made.code == 0
    assert made.json["data"]["num_broken"] == 1
    assert "1 broken image is left out" in made.err


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("absent", 3, "--data: images does not exist"),
        ("empty", 2, "no images below"),
        ("one class", 2, "has one class"),
        ("corrupt", 2, "images cannot be used"),
        ("one file", 2, "needs a folder with one folder a class"),
    ],
)
def test_images_that_are_none_are_named_and_nothing_is_written(
    kind: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("images")
    if kind in ("one class", "corrupt"):
        digit_folder(folder, 60)
    if kind == "one class":
        for path in list(folder.glob("digit-[1-9]/*")):
            path.unlink()
        for path in list(folder.glob("digit-[1-9]")):
            path.rmdir()
    if kind == "corrupt":
        for path in folder.glob("*/*.png"):
            path.write_bytes(b"\x89PNG")
    if kind == "empty":
        folder.mkdir()
    if kind == "one file":
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save("images.png")
        folder = Path("images.png")

    made = call(capsys, "new", "--data", folder, "--name", "mine")

    assert made.code == code
    assert message in made.error
    assert not list(Path().glob("mine*"))


@pytest.mark.parametrize(
    ("median", "sizes"),
    [(8, [8]), (28, [32]), (48, [64]), (100, [128, 64]), (240, [224, 128, 64]), (3000, [512, 384, 224, 128, 64])],
)
def test_the_sizes_go_down_from_the_one_nearest_to_the_images(median: int, sizes: list[int]) -> None:
    assert image_sizes(dataclasses.replace(SUMMARY, image_sizes=(median, median, median))) == sizes


@pytest.mark.parametrize(("macs_per_s", "size"), [(1e9, 64), (1.5e11, 224), (1e15, 512)])
def test_a_fast_machine_searches_at_a_larger_size(macs_per_s: float, size: int, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(new, "training_speed", lambda arch, macs, *rest: macs_per_s / macs)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(new, "SAMPLED", 3)
    large = look(dataclasses.replace(SUMMARY, image_sizes=(400, 600, 900)))

    written = new.write_new(large, tmp_path, "photos")

    assert written.image_size == size
    assert load_space(written.space).file.image_size == size


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("side", STRIDES)
def test_every_size_has_a_space_in_which_all_layouts_are_legal(side: int, device: str, tmp_path: Path) -> None:
    path = tmp_path / "room.yaml"
    path.write_text(new.dump(new._space(look(SUMMARY), side, device)))

    space = load_space(path)

    for layout in ("C-C-C", "C-C-T", "C-T-T", "T-T-T"):
        blocks = {f"s{place}_block": letter for place, letter in enumerate(layout.split("-"), 2)}
        for end in (0, -1):
            candidate = {name: values[end] for name, values in space.choices.items()} | blocks
            assert space.problems(candidate) == []
    # depths of stages that may go on as one would be two spellings of one network, and the space slow to count
    assert not set(space.choices["s3_width"]) & set(space.choices["s4_width"])


@pytest.mark.parametrize("images_per_s", [1.0, 30.0, 300.0, 3000.0, 1e6])
@pytest.mark.parametrize("num_train", [80, 3000, 45_000, 1_300_000])
def test_trials_and_epochs_take_about_an_hour_or_less(images_per_s: float, num_train: int) -> None:
    summary = dataclasses.replace(SUMMARY, num_train=num_train, num_val=max(20, num_train // 10))

    fit = fitted(summary, images_per_s, at_once=2, batch_size=64)

    assert TRIALS[0] <= fit["trials"] <= TRIALS[-1]
    assert EPOCHS[0] <= fit["epochs"] <= EPOCHS[-1]
    least = 10 * summary.num_classes  # images: fewer would teach nothing, however slow the machine
    assert fit["hours"] <= 1.01 * HOUR_S / 3600 or fit["num_images"] in (least, summary.num_train)
    assert fit["num_images"] is None or fit["num_images"] <= num_train


def test_small_images_on_a_fast_machine_use_the_hour_or_all_that_helps() -> None:
    fit = fitted(SUMMARY, 20_000.0, at_once=1, batch_size=128)

    assert fit["num_images"] is None
    assert fit["hours"] > 0.5


@pytest.mark.parametrize(
    ("path", "name"),
    [("/data/My Birds", "my-birds"), ("/data/birds/train", "birds"), ("/data/birds/data/train-0.parquet", "birds")],
)
def test_the_name_is_the_folder_s_own(path: str, name: str) -> None:
    assert default_name(Path(path)) == name


def test_grey_images_are_not_mirrored_and_small_sets_take_small_batches() -> None:
    grey = look(dataclasses.replace(SUMMARY, in_channels=1, num_train=200))

    recipe, full = new._recipe(grey, 8), new._recipe(look(SUMMARY), 32)

    assert (recipe["flip"], full["flip"]) == (False, True)
    assert recipe["batch_size"] < full["batch_size"] == 128
    assert recipe["lr"] < full["lr"]
