"""Networks as safetensors files: the state dict, and the architecture in the file's metadata."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import CoAtNet
from coatnet_search.architecture.tensor_files import read_tensors, write_tensors

_ARCH = "coatnet_search.arch"  # the key in the metadata


def save_weights(model: CoAtNet, path: str | Path) -> None:
    """Writes a network's parameters and statistics with its architecture; the old file stays until the new is whole."""
    write_tensors(path, model.state_dict(), _ARCH, model.arch.to_dict())


def load_weights(path: str | Path) -> tuple[Arch, Mapping[str, Tensor]]:
    """The architecture and the state dict of a file of ``save_weights``: ``build(*load_weights(path))``.

    Raises SetupError where there is no such file, InputError where it is another kind of file.
    """
    arch, tensors = read_tensors(path, _ARCH, "no architecture in its metadata; `save_weights` writes such files")
    return Arch.from_dict(arch), tensors
