"""Deep values, transparency and formats: what becomes of them is one rule for a data set, and is said."""

import io
import json
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import call
from PIL import Image

from coatnet_search.core.errors import InputError
from coatnet_search.data import memory
from coatnet_search.data.decode import Reading, inspect, open_image
from coatnet_search.data.image_file import FORMATS, Unreadable, open_file
from coatnet_search.data.load import load_data, summarize
from coatnet_search.data.spec import DataSpec
from coatnet_search.data.test_split import load_test
from coatnet_search.data.value_range import usual_range

CPU = torch.device("cpu")
SIDE = 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "cache"))


def encoded(values: Any, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def noise(seed: int, *shape: int) -> Any:
    """Numbers in 0..1."""
    return np.random.default_rng(seed).random(shape or (SIDE, SIDE))


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(values: Any) -> bytes:
    """A PNG of 16 bits a channel, (H, W, C): Pillow writes none in colour."""
    height, width, channels = values.shape

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def tiff16(values: Any, order: str = "<", packed: bool = False) -> bytes:
    """A TIFF of 16 bits a channel, (H, W, 3 or 4): Pillow writes none in colour."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    pixels = 8 + 2 + 12 * 10 + 4
    bits, strip = pixels + len(data), pixels
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 8 if packed else 1),
            (262, 3, 1, 2), (273, 4, 1, strip), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)),
            (338, 3, 1, 2)]  # fmt: skip
    tags = tags if channels == 4 else tags[:-1]

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        packed_value = struct.pack(f"{order}HH" if kind == 3 and count == 1 else f"{order}I",
                                   *((value, 0) if kind == 3 and count == 1 else (value,)))  # fmt: skip
        return struct.pack(f"{order}HHI", tag, kind, count) + packed_value

    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    folder = struct.pack(f"{order}H", len(tags)) + b"".join(entry(*tag) for tag in tags) + struct.pack(f"{order}I", 0)
    start = (head + folder).ljust(pixels, b"\0")
    return start + data + struct.pack(f"{order}{channels}H", *[16] * channels)


def folder_of(root: Path, make: Callable[[int], bytes], suffix: str = "png", count: int = 12) -> DataSpec:
    """Two classes of files that ``make(number)`` gives."""
    for number in range(count):
        file = root / ("cat", "dog")[number % 2] / f"{number:02}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make(number))
    return DataSpec(name="image_folder", path=str(root), val_fraction=0.3)


def pixels_of(spec: DataSpec) -> dict[bytes, Any]:
    """The data set's pixels in memory by the hash of their file, and the same from a stream."""
    data = load_data(spec, image_size=SIDE)
    return {data.hashes[place].tobytes(): image.numpy() for place, image in enumerate(data.images.pixels)}


def test_float_images_keep_their_levels(tmp_path):
    values = [np.linspace(0, 1 - number / 100, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
              for number in range(12)]  # fmt: skip
    spec = folder_of(tmp_path / "photos", lambda number: encoded(values[number], "TIFF"), "tif")

    found = pixels_of(spec)

    first = inspect(encoded(values[0], "TIFF")).hash
    assert np.array_equal(found[first][0], np.rint(values[0] * 255).astype(np.uint8))
    assert all(len(np.unique(image)) > 200 for image in found.values())


def test_twelve_bits_in_sixteen_have_one_scale_whatever_a_file_holds(tmp_path):
    def image(number: int) -> Any:
        top = (255, 256, 4095)[number] if number < 3 else 3000 + number
        values = (noise(number) * min(top, 200)).astype(np.uint16)
        values[0, 0], values[0, 1] = top, 128
        return values

    spec = folder_of(tmp_path / "photos", lambda number: encoded(image(number)))

    found, summary = pixels_of(spec), summarize(spec)

    assert summary.value_range == (0.0, 4095.0)
    assert "values from 0 to 4095 become 0 to 255" in (summary.note or "")
    for number in range(12):  # a maximum of 255 or 256 changes nothing
        seen = found[inspect(encoded(image(number))).hash][0]
        assert np.array_equal(seen, np.rint(image(number) / 4095 * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("kind", "suffix"), [("int32", "tif"), ("float32", "tif"), ("uint16", "png"), ("uint16", "tif")]
)
def test_ct_numbers_and_values_far_from_zero_fill_the_grey_levels(kind, suffix, tmp_path):
    low, high = (27_000, 31_000) if kind == "uint16" else (-1024, 3071)

    def image(number: int) -> Any:
        values = low + noise(number) * (high - low)
        values[0, :2] = low, high
        return values.astype(kind)

    spec = folder_of(tmp_path / "scans", lambda number: encoded(image(number), "PNG" if suffix == "png" else "TIFF"),
                     suffix)  # fmt: skip

    found = pixels_of(spec)

    assert summarize(spec).value_range == (low, high)
    assert all(len(np.unique(image)) > 120 for image in found.values())
    assert all((image.min(), image.max()) == (0, 255) for image in found.values())


def ppm16(values: Any) -> bytes:
    height, width, _ = values.shape
    return f"P6 # a remark\n{width} {height}\n65535\n".encode() + values[:, :, :3].astype(">u2").tobytes()


@pytest.mark.parametrize("make", [
    png16, tiff16, lambda values: tiff16(values, ">"), lambda values: tiff16(values, packed=True), ppm16,
], ids=["png", "tiff", "big-endian tiff", "packed tiff", "ppm"])  # fmt: skip
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_sixteen_bits_keep_their_lower_bytes(make, channels):
    values = (noise(3, SIDE, SIDE, channels) * 4095).astype(np.uint16)
    if channels == 4:
        values[:, :, 3] = 65535
    content = make(values)

    shown = np.asarray(open_image(content, Reading(channels=3, value_range=(0, 4095))))

    assert (inspect(content).low, inspect(content).high) == (values[:, :, :3].min(), values[:, :, :3].max())
    assert np.array_equal(shown, np.rint(values[:, :, :3] / 4095 * 255).astype(np.uint8))


def test_a_sixteen_bit_tiff_of_another_kind_is_named_and_not_cut_to_its_upper_bytes():
    separate = tiff16((noise(0, SIDE, SIDE, 4) * 4095).astype(np.uint16))
    premultiplied = separate.replace(struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 1, 0))

    problem = inspect(premultiplied).problem or ""

    assert problem.startswith("16-bit TIFF of the kind RGBa;16")


def test_a_kind_of_tiff_that_cannot_be_read_is_named_as_such():
    odd = tiff16((noise(0, SIDE, SIDE, 3) * 4095).astype(np.uint16)).replace(
        struct.pack("<HHIHH", 262, 3, 1, 2, 0), struct.pack("<HHIHH", 262, 3, 1, 99, 0)
    )

    assert (inspect(odd).problem or "").startswith("a kind of TIFF that is not read")


@pytest.mark.parametrize(("extremes", "expected"), [
    ([[0, 255], [3, 200]], (0, 255)),
    ([[0, 255], [0, 256]], (0, 511)),
    ([[5, 900]], (0, 1023)),
    ([[0, 65_535]], (0, 65_535)),
    ([[0.0, 0.99]], (0, 1)),
    ([[0.0, 0.02]], (0, 0.02)),
    ([[-3.5, 8.25]], (-3.5, 8.25)),
    ([[40_000, 40_000]], (0, 65_535)),
    ([[-7, -7]], (-7, -6)),
])  # fmt: skip
def test_the_usual_range_is_a_whole_depth_where_values_fill_it_and_else_their_own(extremes, expected):
    assert usual_range(np.asarray(extremes, dtype=np.float64)) == expected


def test_a_range_that_is_set_holds_and_another_range_is_other_data(tmp_path):
    spec = folder_of(tmp_path / "photos", lambda number: encoded((noise(number) * 4095).astype(np.uint16)))
    set_to = DataSpec(**{**vars(spec), "value_range": (1000.0, 2000.0)})
    as_found = DataSpec(**{**vars(spec), "value_range": (0.0, 4095.0)})

    usual, cut, same = (load_data(one, image_size=SIDE) for one in (spec, set_to, as_found))

    assert cut.digest != usual.digest == same.digest
    first = inspect(encoded((noise(0) * 4095).astype(np.uint16))).hash
    expected = np.rint(((noise(0) * 4095).astype(np.uint16) - 1000.0).clip(0, 1000) / 1000 * 255)
    assert np.array_equal(pixels_of(set_to)[first][0], expected.astype(np.uint8))


def test_a_range_where_all_images_have_eight_bits_is_refused(tmp_path):
    spec = folder_of(tmp_path / "photos", lambda number: encoded((noise(number) * 255).astype(np.uint8)))

    with pytest.raises(InputError, match=r"data\.value_range: all images have 8 bits a value"):
        load_data(DataSpec(**{**vars(spec), "value_range": (0.0, 100.0)}), image_size=SIDE)


def test_an_image_that_stretches_the_range_of_all_others_is_told_with_what_to_write(tmp_path):
    def image(number: int) -> Any:
        values = (noise(number) * 4000).astype(np.uint16)
        values[3, 3] = 65_535 if number == 5 else 4000
        return values

    note = summarize(folder_of(tmp_path / "photos", lambda number: encoded(image(number)), count=24)).note or ""

    assert "values from 0 to 65535 become 0 to 255" in note
    assert "most images keep within" in note
    assert "to 4000, 17 of 256 grey levels: data.value_range" in note


def test_not_a_number_is_black_and_an_image_of_nothing_else_is_unusable():
    values = np.full((SIDE, SIDE), np.nan, dtype=np.float32)
    all_gone = encoded(values, "TIFF")
    values[2:] = 0.5

    shown = np.asarray(open_image(encoded(values, "TIFF"), Reading(channels=1, value_range=(0, 1))))

    assert (shown[:2] == 0).all() and (shown[2:] == 128).all()
    assert inspect(all_gone).problem == "none of its values is a finite number"


def shape_in_alpha(number: int, color: int) -> bytes:
    values = np.full((SIDE, SIDE, 4), color, dtype=np.uint8)
    values[:, :, 3] = 0
    values[2 + number % 5 : 10, 3:12, 3] = 255
    return encoded(values)


@pytest.mark.parametrize("color", [0, 255])
def test_shapes_drawn_in_the_alpha_channel_stand_out_in_black_and_in_white(color, tmp_path):
    spec = folder_of(tmp_path / "logos", lambda number: shape_in_alpha(number, color))

    found, summary = pixels_of(spec), summarize(spec)

    assert all(set(np.unique(image)) == {color, 128} for image in found.values())
    assert "12 images are transparent in places, on grey 128 (data.background)" in (summary.note or "")
    assert summary.background == 128


def test_a_background_that_is_set_holds_and_one_that_hides_all_shapes_is_refused(tmp_path):
    spec = folder_of(tmp_path / "logos", lambda number: shape_in_alpha(number, 0))
    white, black = (DataSpec(**{**vars(spec), "background": grey}) for grey in (255, 0))

    found = pixels_of(white)

    assert all(set(np.unique(image)) == {0, 255} for image in found.values())
    assert load_data(white, image_size=SIDE).digest != load_data(spec, image_size=SIDE).digest
    with pytest.raises(InputError, match=r"12 of 12 images are one colour throughout: .*on grey 0"):
        load_data(black, image_size=SIDE)


@pytest.mark.parametrize(
    "kind", ["palette", "grey and alpha", "key", "16 bits and alpha", "16 bits and key", "16-bit colour and key"]
)
def test_transparency_of_every_kind_shows_the_background(kind):
    values = (noise(1) * 200 + 20).astype(np.uint8)
    image, clear = Image.fromarray(values), np.zeros((SIDE, SIDE), dtype=bool)
    clear[:4] = True
    if kind == "palette":
        content, options = Image.fromarray(clear.astype(np.uint8) + 1).convert("P"), {"transparency": 2}
    elif kind == "grey and alpha":
        image.putalpha(Image.fromarray(255 * (~clear).astype(np.uint8)))
        content, options = image, {}
    else:
        content, options = Image.fromarray(np.where(clear, 7, values).astype(np.uint8)), {"transparency": 7}
    file = io.BytesIO()
    content.save(file, "PNG", **options)
    data = file.getvalue()
    if kind == "16 bits and alpha":
        data = png16(np.stack([values * 100, 65535 * ~clear], axis=2).astype(np.uint16))
    elif "16" in kind:
        channels = 3 if "colour" in kind else 1
        deep = np.where(clear, 7, values * 100).astype(np.uint16)
        data = png16(np.stack([deep] * channels, axis=2))
        place = data.index(b"IDAT") - 4
        data = data[:place] + png_chunk(b"tRNS", struct.pack(f">{channels}H", *[7] * channels)) + data[place:]

    shown = np.asarray(open_image(data, Reading(channels=1, value_range=(0, 25_500), background=200)))

    assert (shown[:4] == 200).all()
    assert not (shown[4:] == 200).all()
    assert inspect(data).transparent


def test_images_that_carry_an_opaque_alpha_channel_are_the_data_set_that_they_were(tmp_path):
    def image(number: int) -> bytes:
        values = (noise(number, SIDE, SIDE, 4) * 255).astype(np.uint8)
        values[:, :, 3] = 255
        return encoded(values)

    found = pixels_of(spec := folder_of(tmp_path / "photos", image))

    assert summarize(spec).note is None
    assert list((tmp_path / "cache").glob("squares-*-3x16.npy"))
    for number in range(12):
        values = (noise(number, SIDE, SIDE, 4) * 255).astype(np.uint8)[:, :, :3]
        assert np.array_equal(found[inspect(image(number)).hash], values.transpose(2, 0, 1))


def test_a_stream_reads_as_memory_does(tmp_path, monkeypatch):
    spec = folder_of(tmp_path / "photos", lambda number: encoded((noise(number) * 4095).astype(np.uint16)))
    kept = load_data(spec, image_size=SIDE)
    monkeypatch.setattr(memory, "LIMIT_BYTES", 100)

    streamed = load_data(spec, image_size=SIDE)

    numbers = torch.from_numpy(kept.val_numbers)
    both = [next(data.images.plain(numbers, 6, SIDE, CPU, whole=True)) for data in (kept, streamed)]
    assert streamed.images.streamed and streamed.reading == kept.reading
    torch.testing.assert_close(*both)


def test_parquet_files_have_the_same_scale(tmp_path):
    images = [encoded((noise(number) * 4095).astype(np.uint16)) for number in range(12)]
    table = pa.table({"image": [{"bytes": one, "path": None} for one in images], "label": [n % 2 for n in range(12)]})
    pq.write_table(table, tmp_path / "train.parquet")

    found = load_data(DataSpec(name="parquet", path=str(tmp_path), val_fraction=0.3), image_size=SIDE)

    assert found.reading == Reading(channels=1, value_range=(0.0, 4095.0))
    expected = {np.rint((noise(n) * 4095).astype(np.uint16) / 4095 * 255).astype(np.uint8).tobytes() for n in range(12)}
    assert {image.numpy().tobytes() for image in found.images.pixels} == expected


def test_the_test_split_has_trainings_scale_and_what_lies_outside_is_told(tmp_path):
    folder_of(tmp_path / "data" / "train", lambda number: encoded((noise(number) * 4095).astype(np.uint16)))
    folder_of(tmp_path / "data" / "test", lambda number: encoded((noise(50 + number) * (400, 9000)[number % 2])
                                                                 .astype(np.uint16)))  # fmt: skip
    spec = DataSpec(name="image_folder", path=str(tmp_path / "data"), val_fraction=0.3)
    data = load_data(spec, image_size=SIDE)

    found = load_test(spec, data)

    assert found is not None
    dark = [image for image, label in zip(found[0].images.pixels, found[0].labels, strict=True) if label == 0]
    assert all(20 <= image.max() <= 25 for image in dark)  # 400 of 4095
    assert "6 test images have values outside of training's 0 to 4095" in (found[0].note or "")


def test_a_test_split_of_deep_values_beside_plain_training_images_is_refused(tmp_path):
    folder_of(tmp_path / "data" / "train", lambda number: encoded((noise(number) * 255).astype(np.uint8)))
    folder_of(tmp_path / "data" / "test", lambda number: encoded((noise(50 + number) * 4095).astype(np.uint16)))
    spec = DataSpec(name="image_folder", path=str(tmp_path / "data"), val_fraction=0.3)

    with pytest.raises(InputError, match="12 images are of more than 8 bits a value in the test split"):
        load_test(spec, load_data(spec, image_size=SIDE))


def test_images_of_one_colour_are_counted_and_more_than_half_are_refused(tmp_path):
    def image(number: int, flat: int) -> bytes:
        return encoded(np.full((SIDE, SIDE, 3), number, dtype=np.uint8) if number < flat
                       else (noise(number, SIDE, SIDE, 3) * 255).astype(np.uint8))  # fmt: skip

    some = summarize(folder_of(tmp_path / "some", lambda number: image(number, 3)))

    assert some.num_flat == 3
    assert "3 images are one colour throughout" in (some.note or "")
    with pytest.raises(InputError, match="7 of 12 images are one colour throughout: nothing can be learned"):
        load_data(folder_of(tmp_path / "most", lambda number: image(number, 7)), image_size=SIDE)


def test_a_small_pattern_in_a_jpeg_file_is_no_single_colour():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(board).save(file, "JPEG", quality=100)

    assert not inspect(file.getvalue()).flat
    assert inspect(encoded(np.full((64, 64), 90, dtype=np.uint8), "JPEG")).flat


def test_several_pages_in_a_file_are_told(tmp_path):
    def pages(number: int) -> bytes:
        file = io.BytesIO()
        first, second = (Image.fromarray((noise(number + more) * 255).astype(np.uint8)) for more in (0, 100))
        first.save(file, "TIFF", save_all=True, append_images=[second])
        return file.getvalue()

    note = summarize(folder_of(tmp_path / "stacks", pages, "tif")).note or ""

    assert "12 images are the first of several in a file" in note


def test_new_writes_the_scale_into_the_study_and_the_record_has_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "scans", lambda number: encoded((noise(number, 8, 8) * 4095).astype(np.uint16)), count=40)

    made = call(capsys, "new", "--data", "scans")
    text = (tmp_path / "scans.yaml").read_text()
    ran = call(capsys, "run", "scans.yaml", "--local", "--set", "search.trials=1", "recipe.epochs=1",
               "tracking.enabled=false", "measure=[]")  # fmt: skip

    assert (made.code, ran.code) == (0, 0)
    assert "values from 0 to 4095 become 0 to 255" in made.out
    assert "value_range: [0.0, 4095.0]" in text
    assert "value_range: [0.0, 4095.0]" in (tmp_path / "runs" / "scans" / "study.yaml").read_text().partition(
        "data_summary")[2]  # fmt: skip


def test_a_picture_that_is_postscript_starts_no_program(tmp_path, monkeypatch, capsys):
    def forbidden(*words: Any, **options: Any) -> None:
        raise AssertionError(f"started {words}")

    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    content = [encoded((noise(number) * 255).astype(np.uint8)) for number in range(200)]
    folder_of(tmp_path / "photos", lambda number: script if number == 3 else content[number], count=200)
    table = pa.table({"image": [script, *content[1:]], "label": [number % 2 for number in range(200)]})
    pq.write_table(table, tmp_path / "train.parquet")
    for module, name in ((subprocess, "Popen"), (subprocess, "check_call"), (subprocess, "run")):
        monkeypatch.setattr(module, name, forbidden)

    places = {"image_folder": tmp_path / "photos", "parquet": tmp_path / "train.parquet"}
    read = [load_data(DataSpec(name=name, path=str(path)), image_size=SIDE) for name, path in places.items()]

    assert [data.num_broken for data in read] == [1, 1]
    assert all("not an image in a format that is read here (BMP, GIF, JPEG" in (data.note or "") for data in read)
    with pytest.raises(Unreadable, match="not an image in a format"):
        open_file(script)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PSD", "ICO", "PCX", "TGA", "JPEG2000", "SGI", "IM", "DDS"])
def test_other_formats_of_pillow_are_not_opened(kind):
    file = io.BytesIO()
    if kind == "PSD":
        file.write(b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(40))
    else:
        Image.new("RGB", (16, 16), "red").save(file, kind)

    assert "not an image in a format that is read here" in (inspect(file.getvalue()).problem or "")


def test_every_format_on_the_list_is_opened():
    for kind in FORMATS:
        content = encoded((noise(0, SIDE, SIDE, 3) * 255).astype(np.uint8), kind)

        assert inspect(content).problem is None
        assert open_image(content, Reading(channels=3)).size == (SIDE, SIDE)


def test_an_orientation_that_is_no_number_is_as_good_as_none():
    image, exif = Image.fromarray((noise(0, 8, SIDE) * 255).astype(np.uint8)), Image.Exif()
    exif[0x0112] = "upside down"
    file = io.BytesIO()
    image.save(file, "TIFF", tiffinfo={270: "x"}, exif=exif)

    assert (inspect(file.getvalue()).height, inspect(file.getvalue()).problem) == (8, None)
    assert open_image(file.getvalue(), Reading(channels=1)).size == (SIDE, 8)


def test_a_deep_image_that_carries_a_rotation_is_turned_upright():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray((noise(0, 8, SIDE) * 4095).astype(np.uint16)).save(file, "PNG", exif=exif)

    shown = open_image(file.getvalue(), Reading(channels=1, value_range=(0, 4095)))

    assert shown.size == (8, SIDE)
    expected = np.rint((noise(0, 8, SIDE) * 4095).astype(np.uint16) / 4095 * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(shown), np.rot90(expected, -1))


def test_the_config_of_a_full_training_has_the_scale(tmp_path, capsys):
    folder_of(tmp_path / "scans", lambda number: encoded((noise(number, 8, 8) * 4095).astype(np.uint16)), count=40)

    made = call(capsys, "train", "C-C-C-C", "--recipe", "small-images-full", "--data", tmp_path / "scans", "--epochs",
                "1", "--image-size", "32", "--device", "cpu", "--out", tmp_path / "out")  # fmt: skip

    assert made.code == 0
    sight = json.loads((tmp_path / "out" / "config.json").read_text())["coatnet_search"]["sight"]
    assert (sight["value_range"], sight["background"]) == ([0.0, 4095.0], 128)
