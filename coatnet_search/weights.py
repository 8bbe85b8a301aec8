"""Networks as safetensors files: the state dict, and the architecture in the file's metadata."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from coatnet_search.arch import Arch, canonical_json
from coatnet_search.build import CoAtNet
from coatnet_search.errors import InputError, SetupError

_ARCH = "coatnet_search.arch"  # the key in the metadata


def save_weights(model: CoAtNet, path: str | Path) -> None:
    """Writes a network's parameters and statistics with its architecture; the old file stays until the new is whole."""
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, half, metadata={_ARCH: canonical_json(model.arch.to_dict()), "format": "pt"})
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def load_weights(path: str | Path) -> tuple[Arch, Mapping[str, Tensor]]:
    """The architecture and the state dict of a file of ``save_weights``: ``build(*load_weights(path))``.

    Raises SetupError where there is no such file, InputError where it is another kind of file.
    """
    if not Path(path).is_file():
        raise SetupError(f"{path}: no such file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_ARCH)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    if text is None:
        raise InputError(f"{path}: no architecture in its metadata; `save_weights` writes such files")
    return Arch.from_dict(json.loads(text)), tensors
