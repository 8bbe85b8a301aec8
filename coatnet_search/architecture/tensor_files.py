"""Safetensors files that say in their metadata what the tensors are of. Nothing is unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from coatnet_search.core.canonical import canonical_json
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.whole_file import whole_file


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], key: str, what: Any) -> None:
    """Writes tensors, and ``what`` as JSON under ``key``; the old file stays until the new one is whole."""
    path = Path(path)
    with whole_file(path) as half:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, half,
                  metadata={key: canonical_json(what), "format": "pt"})  # fmt: skip


def read_tensors(path: str | Path, key: str, missing: str) -> tuple[Any, dict[str, Tensor]]:
    """What ``write_tensors`` wrote: (what, tensors).

    Raises SetupError where there is no such file, InputError where it is another kind of file (``missing``: what one
    without ``key`` lacks, in words).
    """
    if not Path(path).is_file():
        raise SetupError(f"{path}: no such file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    if text is None:
        raise InputError(f"{path}: {missing}")
    return json.loads(text), tensors


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises InputError where it is another kind of file, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file: {error}") from None
