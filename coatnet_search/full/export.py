"""Exports a trained network: safetensors that timm loads, ONNX, the MLflow registry; each is checked.

``check`` compares what comes out with the network itself: the same logits to 1e-4 on the same images.
Shapes: B images, C channels, F stored and S seen side in pixels, K classes.
"""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import coatnet_search
from coatnet_search.architecture import timm_bridge  # noqa: F401  # registers our networks with timm
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.sqlite_uri import sqlite_file
from coatnet_search.core.whole_file import write_text
from coatnet_search.full.bundle import CONFIG, WEIGHTS, Bundle, read_bundle, write_bundle
from coatnet_search.full.model_card import model_card
from coatnet_search.record.mirror.uploads import clean_name

TOLERANCE = 1e-4  # of logits
EXTRA = ("onnx", "onnxscript", "onnxruntime")  # the extra ``export``
CARD = "README.md"
EXPERIMENT = "full training"


def export_safetensors(bundle: Bundle, out: Path) -> list[Path]:
    """``model.safetensors``, ``config.json`` and the model card; timm has loaded the first two by then."""
    write_bundle(out, bundle.network, bundle.model, bundle.sight, bundle.class_names, bundle.loss, bundle.about)
    write_text(out / CARD, model_card(bundle))
    loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    check("timm", bundle, lambda images: _logits(loaded, images).numpy())
    return [out / WEIGHTS, out / CONFIG, out / CARD]


def export_onnx(bundle: Bundle, out: Path) -> list[Path]:
    """``model.onnx``: normalised images (B, C, S, S) -> logits (B, K), any B; checked with onnxruntime.

    Raises SetupError where the extra ``export`` is not installed.
    """
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise SetupError(f"ONNX needs {', '.join(missing)}; install the extra: pip install 'coatnet-search[export]'")
    import onnx  # noqa: PLC0415  # of the extra
    import onnxruntime  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    path, side = out / "model.onnx", bundle.sight.image_size
    example = torch.zeros(2, bundle.sight.in_channels, side, side)
    batch = torch.export.Dim("batch", min=1, max=65536)
    with sdpa_kernel(SDPBackend.MATH):  # a fused kernel's memory layout would be written into the graph
        torch.onnx.export(
            bundle.model.cpu().eval(), (example,), str(path), dynamo=True, external_data=False, verbose=False,
            input_names=["images"], output_names=["logits"], dynamic_shapes=({0: batch},),
        )  # fmt: skip
    graph = onnx.load(path)
    told = {"class_names": list(bundle.class_names), "mean": bundle.sight.mean, "std": bundle.sight.std,
            "value_range": bundle.sight.value_range, "background": bundle.sight.background}  # fmt: skip
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in told.items()})
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):  # another batch than it was exported with
        check("onnxruntime", bundle, lambda images: session.run(None, {"images": images.numpy()})[0], count)
    return [path]


def export_mlflow(bundle: Bundle, out: Path, *, uri: str, name: str, alias: str) -> dict[str, Any]:
    """A registered version of the model ``name`` with an alias; it loads where this package is installed, by
    ``mlflow.pyfunc.load_model("models:/NAME@ALIAS")``, and takes uint8 (B, F, F, C), gives logits (B, K).

    ``out``: a folder of ``export_safetensors``. Returns ``name``, ``version``, ``alias``, ``uri`` (of the model).
    """
    import mlflow  # noqa: PLC0415  # slow to import
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    stored, channels = bundle.sight.stored, bundle.sight.in_channels
    example = noise((2, stored, stored, channels))
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, stored, stored, channels), "pixels")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(bundle.class_names)), "logits")]),
    )
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        _experiment(mlflow, uri)
        with mlflow.start_run(run_name=clean_name(name)), _quiet():
            mlflow.log_metrics(metrics(bundle.about))
            info = mlflow.pyfunc.log_model(
                name="model", loader_module=__name__, data_path=str(out), signature=signature,
                input_example={"pixels": example}, pip_requirements=[f"coatnet-search=={coatnet_search.__version__}"],
                registered_model_name=clean_name(name),
            )  # fmt: skip
        version = str(info.registered_model_version)
        mlflow.MlflowClient().set_registered_model_alias(clean_name(name), alias, version)
        with _quiet():
            loaded = mlflow.pyfunc.load_model(f"models:/{clean_name(name)}@{alias}")
            _check_pixels(bundle, loaded.predict({"pixels": example}), example)
    except mlflow.exceptions.MlflowException as error:
        raise SetupError(f"MLflow at {uri}: {str(error).splitlines()[0]}") from None
    finally:
        mlflow.set_tracking_uri(before)
    return {"name": clean_name(name), "version": version, "alias": alias, "uri": f"models:/{clean_name(name)}@{alias}"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow remarks that ``Served.predict`` takes anything: the signature says what it takes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*type hint.*")
        yield


def _experiment(mlflow: Any, uri: str) -> None:
    """The experiment of full training; its artifacts lie beside an SQLite file, elsewhere the server decides."""
    found = sqlite_file(uri)
    file = found.resolve() if found else None
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        place = file.parent / "mlartifacts" / EXPERIMENT.replace(" ", "_") if file else None
        mlflow.create_experiment(EXPERIMENT, artifact_location=place.as_uri() if place else None)
    mlflow.set_experiment(EXPERIMENT)


def metrics(about: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a training's result that a registry shows."""
    known = {key: value["mean"] for key, value in about.get("means", {}).items()}
    known |= {key: about.get(key) for key in ("params", "macs")}
    return {key: float(value) for key, value in known.items() if value is not None}


# --- checks ----------------------------------------------------------------------------------------------------------


def noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Pixels that are always the same."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def check(what: str, bundle: Bundle, other: Any, count: int = 2) -> float:
    """The largest difference of logits; ``other`` maps normalised images to them. Raises InputError beyond 1e-4."""
    stored, channels = bundle.sight.stored, bundle.sight.in_channels
    images = bundle.sight.batch(torch.from_numpy(noise((count, channels, stored, stored))))
    return _compare(what, _logits(bundle.model.cpu().eval(), images).numpy(), other(images))


def _check_pixels(bundle: Bundle, found: Any, pixels: NDArray[np.uint8]) -> None:
    images = bundle.sight.batch(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    _compare("MLflow", _logits(bundle.model.cpu().eval(), images).numpy(), np.asarray(found))


def _compare(what: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    difference = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    if not difference <= TOLERANCE:
        raise InputError(f"{what} gives other logits than the network itself: they differ by {difference:.2g}")
    return difference


@torch.inference_mode()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images).float()
    return logits


# --- what MLflow calls -----------------------------------------------------------------------------------------------


class Served:
    """What MLflow's ``pyfunc`` loads: uint8 pixels (B, F, F, C) -> logits (B, K)."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
        pixels = np.asarray(data["pixels"] if isinstance(data, Mapping) else data, dtype=np.uint8)
        images = self.bundle.sight.batch(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2))
        return _logits(self.bundle.model, images).numpy()


def _load_pyfunc(path: str) -> Served:
    return Served(read_bundle(Path(path)))
