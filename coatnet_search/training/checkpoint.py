"""Writes and reads checkpoints: a safetensors file and a JSON file each, the last two kept, never a pickle.

The JSON file is written last and completes a checkpoint. It holds the tensors' checksum, its own, and an ``identity``:
what the run is (architecture, recipe, data, budget), so that weights never slip into another run.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coatnet_search.core.canonical import canonical_json
from coatnet_search.core.errors import InputError
from coatnet_search.core.whole_file import whole_file

KEPT = 2
Identity = Mapping[str, str]


class CheckpointMismatch(InputError):
    """A checkpoint of another run lies where this one's should be."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``epoch`` finished epochs, with the metrics of all of them."""

    epoch: int
    tensors: Mapping[str, Tensor]
    history: Sequence[Mapping[str, float]]


def save(folder: Path, checkpoint: Checkpoint, identity: Identity) -> None:
    """Writes a checkpoint so that a crash at any moment leaves the older ones whole. Raises OSError (disk full)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = _place(folder, checkpoint.epoch)
    _write(weights, lambda path: save_file(dict(checkpoint.tensors), path))
    body = {
        "schema": 1,
        "epoch": checkpoint.epoch,
        "identity": dict(identity),
        "history": [dict(row) for row in checkpoint.history],
        "sha256": sha256_of(weights),
    }
    text = json.dumps({**body, "checksum": _checksum(body)}, indent=1)
    _write(weights.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
    _forget_older(folder)


def load(folder: Path, identity: Identity) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none.

    A damaged one is skipped with a warning. Raises CheckpointMismatch where the newest whole one is another run's.
    """
    for note in sorted(folder.glob("epoch-*.json"), reverse=True):
        try:
            body = _read_note(note)
            tensors = _read_tensors(note.with_suffix(".safetensors"), body["sha256"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            warnings.warn(f"checkpoint {note.with_suffix('')} is damaged and skipped: {error}", stacklevel=2)
            continue
        different = [key for key in identity if body["identity"].get(key) != identity[key]]
        if different:
            raise CheckpointMismatch(
                f"checkpoint {note.with_suffix('')} is of another run: {', '.join(different)} differ; "
                "delete the folder to start over"
            )
        return Checkpoint(body["epoch"], tensors, body["history"])
    return None


def _place(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:06d}.safetensors"


def _write(final: Path, write: Any) -> None:
    with whole_file(final) as half:
        write(half)
        with half.open("rb+") as file:
            os.fsync(file.fileno())
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def _read_note(note: Path) -> dict[str, Any]:
    body = json.loads(note.read_text(encoding="utf-8"))
    if not isinstance(body, dict) or body.pop("checksum", None) != _checksum(body):
        raise ValueError("wrong checksum")
    if body["schema"] != 1:
        raise CheckpointMismatch(f"checkpoint {note} has schema {body['schema']}; this version reads 1")
    return body


def _read_tensors(path: Path, sha256: str) -> Mapping[str, Tensor]:
    if sha256_of(path) != sha256:
        raise ValueError("wrong checksum")
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _forget_older(folder: Path) -> None:
    for note in sorted(folder.glob("epoch-*.json"))[:-KEPT]:
        note.unlink()
        note.with_suffix(".safetensors").unlink(missing_ok=True)
    for left in folder.glob(".epoch-*"):
        left.unlink()
