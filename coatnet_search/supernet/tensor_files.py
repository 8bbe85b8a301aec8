"""Supernets as safetensors files: the shared weights, and the space that they are of in the file's metadata."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from coatnet_search.architecture.tensor_files import read_tensors, write_tensors
from coatnet_search.core.canonical import canonical_json
from coatnet_search.core.errors import InputError
from coatnet_search.space.space import Space
from coatnet_search.supernet.network import Supernet

_SPACE = "coatnet_search.space"  # the key in the metadata
_FREE = ("description", "limits")  # keys of a space that no weight depends on


def save_supernet(net: Supernet, path: str | Path) -> None:
    """Writes the shared weights and statistics with their space; the old file stays until the new one is whole."""
    write_tensors(path, net.state_dict(), _SPACE, _flat(net.space))


def load_supernet(path: str | Path, space: Space) -> Supernet:
    """The supernet of a file of ``save_supernet``. Limits may have changed: they choose among the same weights.

    Raises SetupError where there is no such file, InputError where it is another kind of file or of another space, with
    the dimensions and tensors that differ.
    """
    known, tensors = read_tensors(path, _SPACE, "no space in its metadata; `save_supernet` writes such files")
    if different := differences(known, json.loads(canonical_json(_flat(space)))):
        raise InputError(f"{path}: the supernet of another space: {'; '.join(different)}")
    with torch.device("meta"):
        net = Supernet(space)
    net.load_weights(tensors)
    return net


def _flat(space: Space) -> dict[str, Any]:
    """A space by dimension: ``s2_width``, ``stem_depth``, ``head_hidden``, ``image_size``, ..."""
    found: dict[str, Any] = {}
    for key, value in dataclasses.asdict(space.file).items():
        if key in ("stem", "head"):
            found.update({f"{key}_{name}": inner for name, inner in value.items()})
        elif key == "stages":
            for place, row in enumerate(value, 1):
                found.update({f"s{place}_{name}": inner for name, inner in row.items()})
        elif key not in _FREE:
            found[key] = value
    return found


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs between the space of a file and the one at hand, by dimension."""
    absent = "not given"
    return [
        f"{name} is {theirs.get(name, absent)} there, {ours.get(name, absent)} here"
        for name in dict.fromkeys([*theirs, *ours])
        if theirs.get(name) != ours.get(name) or (name in theirs) != (name in ours)
    ]
