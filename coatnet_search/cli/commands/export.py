"""``export MODEL``: a trained network as safetensors with a model card, as ONNX, in the MLflow registry."""

import argparse
from typing import Any

from coatnet_search.core.errors import EXIT_DONE
from coatnet_search.core.screen import Screen
from coatnet_search.full.bundle import read_bundle
from coatnet_search.full.export import export_mlflow, export_onnx, export_safetensors

URI = "sqlite:///runs/mlflow.db"


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    bundle, out = read_bundle(given.model), given.out or given.model / "export"
    found: dict[str, Any] = {"files": [str(path) for path in export_safetensors(bundle, out)]}
    if "onnx" in given.format:
        found["files"] += [str(path) for path in export_onnx(bundle, out)]
    if "mlflow" in given.format:
        name = given.name or given.model.resolve().name
        found["mlflow"] = export_mlflow(bundle, out, uri=given.uri or URI, name=name, alias=given.alias)
    screen.result(found)
    for path in found["files"]:
        screen.say(f"written: {path}")
    if model := found.get("mlflow"):
        screen.say(f"registered: {model['uri']}, version {model['version']}, at {given.uri or URI}")
    screen.say("each gives the same logits as the network itself, to 1e-4")
    return EXIT_DONE
