"""Reads and writes architectures as YAML files."""

from pathlib import Path

from coatnet_search.architecture.arch import Arch
from coatnet_search.core.errors import InputError
from coatnet_search.core.schema import read_document


def read_arch(path: Path) -> Arch:
    """The architecture of a file that holds its mapping, or has it under the key ``arch`` as the files of ``choose``.

    Raises InputError with file, line and key.
    """
    document = read_document(path)
    nested = "arch" in document.value
    value = document.value["arch"] if nested else document.value
    at = ("arch",) if nested else ()
    if not isinstance(value, dict):
        raise document.error(at, f"expected an architecture (image_size, stem, stages, ...), got {value!r}")
    try:
        if "image_size" not in value:
            raise InputError("expected an architecture, got no image_size; `choose` writes such files")
        return Arch.from_dict(value)
    except InputError as error:
        raise document.error(at, str(error)) from None
