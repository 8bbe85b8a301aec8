"""A network handed on gives the same logits to 1e-4, whoever loads it: this package, timm, onnxruntime, MLflow."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from command_line import call
from PIL import Image

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data.decode import square
from coatnet_search.full.bundle import Bundle, Sight, read_bundle, write_bundle
from coatnet_search.full.export import check, export_mlflow, export_onnx, export_safetensors, noise
from coatnet_search.full.networks import Network
from coatnet_search.full.predict import predict

ARCH = Arch(
    image_size=16, in_channels=3, num_classes=4, stem=Stem(depth=1, width=8, stride=1),
    stages=(Stage(block="C", depth=1, width=8, stride=2), Stage(block="T", depth=2, width=16, stride=2, head_size=8)),
)  # fmt: skip
SIGHT = Sight(stored=18, shown=16, image_size=16, in_channels=3, mean=(125.0, 120.0, 110.0), std=(60.0, 61.0, 62.0))
NAMES = ("ant", "bee", "cat", "dog <b>")
SCORES = {"num_images": 50, "top1": 0.9, "top1_low": 0.8, "top1_high": 0.95, "top5": 1.0, "loss": 0.3,
          "calibration_error": 0.02}  # fmt: skip
ABOUT = {
    "params": 1000, "macs": 2000, "num_train": 400, "num_val": 50, "num_test": 50, "classes": 4,
    "data": {"name": "image_folder"}, "data_digest": "abc", "seeds": [{"seed": 0, "val": SCORES, "test": SCORES}],
    "means": {f"{split}_{name}": {"mean": SCORES[name], "low": None, "high": None}
              for split in ("val", "test") for name in ("top1", "top5", "loss", "calibration_error")},
    "stages": [{"recipe": {"name": "digits", "lr": 1e-3}, "image_size": 16}], "weights": None,
    "predicted": {"study": "quickstart", "trial": 7}, "against_prediction": None, "test_note": None,
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    network = Network(name="tiny", shape=ARCH)
    model = network.build(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    write_bundle(tmp_path / "made", network, model, SIGHT, NAMES, "softmax", ABOUT)
    return read_bundle(tmp_path / "made")


def logits(model: torch.nn.Module, sight: Sight = SIGHT) -> torch.Tensor:
    pixels = torch.from_numpy(noise((2, 3, sight.stored, sight.stored)))
    with torch.inference_mode():
        return model.eval()(sight.batch(pixels))


def test_safetensors_and_config_are_loaded_by_timm_with_the_same_logits(bundle, tmp_path):
    export_safetensors(bundle, tmp_path / "out")

    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    again = read_bundle(tmp_path / "out")

    torch.testing.assert_close(logits(theirs), logits(bundle.model), atol=1e-4, rtol=0)
    assert (again.class_names, again.sight, again.about) == (NAMES, SIGHT, ABOUT)
    assert theirs.pretrained_cfg["label_names"] == list(NAMES)


def test_timm_gives_it_a_new_head_for_other_classes(bundle, tmp_path):
    export_safetensors(bundle, tmp_path / "out")

    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=7)

    assert theirs(torch.zeros(1, 3, 16, 16)).shape == (1, 7)


def test_the_model_card_says_what_is_known(bundle, tmp_path):
    export_safetensors(bundle, tmp_path / "out")

    card = (tmp_path / "out" / "README.md").read_text()

    for words in ("stages C-T", "400 images to train, 50 to validate, 50 for the test", "90.00 % (80.00 to 95.00)",
                  "`digits` at 16 pixels: lr 0.001", "study quickstart, trial 7", "One seed"):  # fmt: skip
        assert words in card


def test_onnx_takes_any_batch_and_gives_the_same_logits(bundle, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    (path,) = export_onnx(bundle, tmp_path)

    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = torch.randn(count, 3, 16, 16)
        found = session.run(None, {"images": images.numpy()})[0]
        with torch.inference_mode():
            np.testing.assert_allclose(found, bundle.model(images).numpy(), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list(NAMES)


def test_without_the_extra_onnx_says_what_to_install(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(SetupError, match=r"ONNX needs onnx, onnxscript, onnxruntime; install the extra"):
        export_onnx(bundle, tmp_path)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*type hint.*")
def test_the_registry_has_a_version_with_an_alias_that_loads_and_agrees(bundle, tmp_path):
    import mlflow

    export_safetensors(bundle, tmp_path / "out")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    found = export_mlflow(bundle, tmp_path / "out", uri=uri, name="tiny", alias="best")

    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/tiny@best")
    pixels = noise((3, 18, 18, 3))
    with torch.inference_mode():
        ours = bundle.model(SIGHT.batch(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(loaded.predict({"pixels": pixels}), ours.numpy(), atol=1e-4)
    assert found == {"name": "tiny", "version": "1", "alias": "best", "uri": "models:/tiny@best"}
    assert loaded.metadata.signature is not None
    assert loaded.input_example is not None


def test_another_networks_logits_are_refused(bundle):
    with pytest.raises(InputError, match="timm gives other logits than the network itself: they differ by"):
        check("timm", bundle, lambda images: np.zeros((2, 4), dtype=np.float32))


def damaged(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_folder_whose_files_do_not_belong_together_is_refused(bundle, tmp_path, capsys):
    made = tmp_path / "made"
    wider = {**ARCH.to_dict(), "stem": {"depth": 1, "width": 12, "stride": 1}}

    other = call(capsys, "predict", damaged(made, model_args={"arch": wider}), "x.png")
    (made / "model.safetensors").write_bytes(b"cut")
    cut = call(capsys, "predict", made, "x.png")
    (made / "config.json").write_text("{}")
    empty = call(capsys, "predict", made, "x.png")

    assert "config.json and model.safetensors do not belong together" in other.error
    assert "not a whole safetensors file" in cut.error
    assert "not a file of `train` or `export`" in empty.error


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "hf_hub:a/b", "local-dir:/tmp", "timm/resnet18", 5, None, []])
def test_a_folder_cannot_send_predict_to_a_hub(name, bundle, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", lambda *given, **more: asked.append(given))

    for verb in ("predict", "export"):
        said = call(
            capsys, verb, damaged(tmp_path / "made", architecture=name), *(["x.png"] if verb == "predict" else [])
        )
        assert "not a file of `train` or `export`: expected the plain name of a network of timm" in said.error

    assert asked == []


def odd_images() -> dict[str, bytes]:
    """What lies in folders of images besides photographs; each can be shown to a network."""
    random = np.random.default_rng(0)
    color = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {
        "grey.png": color.convert("L"), "bits.png": color.convert("1"), "deep.png": color.convert("L").convert("I;16"),
        "alpha.png": color.convert("RGBA"), "palette.gif": color.convert("P"), "ink.jpg": color.convert("CMYK"),
        "float.tiff": color.convert("F"), "tiny.png": color.resize((1, 1)),
        "line.png": Image.new("RGB", (60_000, 1)),  # a shorter side of 16 pixels would make it 15 million pixels
    }  # fmt: skip
    contents = {name: as_bytes(image, Path(name).suffix) for name, image in found.items()}
    return {**contents, "turned.jpg": as_bytes(color, ".jpg", exif=turned)}


def as_bytes(image: Image.Image, suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def test_odd_images_are_seen_and_unusable_ones_named_beside_them(bundle, tmp_path, capsys):
    folder, whole = tmp_path / "images", as_bytes(Image.new("RGB", (40, 40), "red"), ".png")
    unusable = {"cut.png": whole[:-20], "empty.jpg": b"", "text.png": b"hello",
                "bomb.png": as_bytes(Image.new("1", (20_000, 5_000)), ".png")}  # fmt: skip
    folder.mkdir()
    states(tmp_path / "made", value_range=[0, 255], background=128)
    for name, content in {**odd_images(), **unusable}.items():
        (folder / name).write_bytes(content)

    seen = call(capsys, "predict", tmp_path / "made", folder, "--json")

    assert seen.code == 0
    assert {Path(row["file"]).name for row in seen.json if row["problem"]} == set(unusable)
    assert all(len(row["classes"]) == 4 for row in seen.json if not row["problem"])
    assert f"{folder / 'bomb.png'}: " in seen.err


def test_batches_that_are_decoded_ahead_keep_the_order_of_the_files(bundle, tmp_path, monkeypatch):
    whole = [as_bytes(Image.new("RGB", (24, 24), (40 * i, 255 - 40 * i, 90)), ".png") for i in range(5)]
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for i, (file, content) in enumerate(zip(files, whole, strict=True)):
        file.write_bytes(b"no image" if i == 2 else content)

    at_once = list(predict(read_bundle(tmp_path / "made"), files, device=torch.device("cpu")))
    monkeypatch.setattr("coatnet_search.full.predict.BATCH", 2)
    in_parts = list(predict(read_bundle(tmp_path / "made"), files, device=torch.device("cpu")))

    assert [Path(row["file"]).name for row in in_parts] == [file.name for file in files]
    assert [bool(row["problem"]) for row in in_parts] == [i == 2 for i in range(5)]
    confidences = [[[one["confidence"] for one in row["classes"]] for row in rows] for rows in (at_once, in_parts)]
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*confidences, strict=True))
    assert list(predict(read_bundle(tmp_path / "made"), [], device=torch.device("cpu"))) == []


def states(made: Path, **keys: Any) -> None:
    """What the bundle's config says of how images are seen, with these keys."""
    config = json.loads((made / "config.json").read_text())
    config["coatnet_search"]["sight"] |= keys
    (made / "config.json").write_text(json.dumps(config))


def test_a_network_sees_deep_values_on_the_scale_that_it_was_trained_on(bundle, tmp_path):
    values = np.linspace(0, 4095, 18 * 18).reshape(18, 18)
    deep = as_bytes(Image.fromarray(values.astype(np.uint16)), ".png")
    expected = np.rint(values.astype(np.uint16) / 4095 * 255).astype(np.uint8)

    states(tmp_path / "made", value_range=[0.0, 4095.0])
    seen = read_bundle(tmp_path / "made").sight.pixels(deep)

    assert np.array_equal(seen.numpy(), np.stack([expected] * 3))


def test_without_a_known_scale_an_image_of_deep_values_is_named_as_unusable(bundle, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("deep.png", "float.tiff", "grey.png"):
        (folder / name).write_bytes(odd_images()[name])

    seen = call(capsys, "predict", tmp_path / "made", folder, "--json")

    assert [Path(row["file"]).name for row in seen.json if row["problem"]] == ["deep.png", "float.tiff"]
    assert "values of more than 8 bits" in seen.json[0]["problem"]


def test_a_bundle_of_an_earlier_version_opens_and_drops_alpha_as_its_training_did(bundle, tmp_path):
    color = Image.fromarray(np.random.default_rng(1).integers(0, 256, (18, 18, 3), dtype=np.uint8))
    clear = color.copy()
    clear.putalpha(0)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    for key in ("value_range", "background"):
        del config["coatnet_search"]["sight"][key]
    (tmp_path / "made" / "config.json").write_text(json.dumps(config))

    seen = read_bundle(tmp_path / "made").sight.pixels(as_bytes(clear, ".png"))

    assert np.array_equal(seen.permute(1, 2, 0).numpy(), np.asarray(color))


def test_only_the_central_square_of_an_image_is_resized():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))

    found = np.asarray(square(image, 10))

    assert found.shape == (10, 10, 3)
    assert (found[:, 1:-1] == (0, 0, 255)).all()


def test_images_that_are_none_are_named_and_folders_without_images_refused(bundle, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no image")

    assert "empty: no images; expected files that end in" in call(
        capsys, "predict", tmp_path / "made", tmp_path / "empty").error  # fmt: skip
    assert "none of 1 files is a usable image" in call(capsys, "predict", tmp_path / "made", tmp_path / "bad.png").error
    assert "no such file or folder" in call(capsys, "predict", tmp_path / "made", tmp_path / "gone.png").error
