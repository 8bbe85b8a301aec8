"""The shared part of data sets that torchvision knows how to fetch and read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coatnet_search.core.errors import SetupError
from coatnet_search.data.cache import cache_dir
from coatnet_search.data.remote import local_path
from coatnet_search.data.source import Pixels, Source, fingerprint

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec


def open_published(
    spec: "DataSpec", cls: Any, class_names: tuple[str, ...], num_images: int, *, train: bool = True
) -> Source:
    """``cls`` is a CIFAR class of torchvision, which checks the files against published checksums before reading them.

    The folder is ``data.path``, else one in the cache. Raises SetupError where the files are missing and
    ``data.download`` was not set, or where the download fails.
    """
    root = local_path(spec.path) if spec.path else cache_dir() / "downloads"
    files = [root / cls.base_folder / name for name, _ in (cls.train_list if train else cls.test_list)]
    if not all(file.exists() for file in files):
        _fetch(spec, cls, root)

    def load() -> Pixels:
        try:
            data = cls(root, train=train, download=False)
        except RuntimeError as error:
            raise SetupError(f"{root / cls.base_folder}: {error} Delete it and --set data.download=true") from None
        pixels = np.ascontiguousarray(np.asarray(data.data, dtype=np.uint8).transpose(0, 3, 1, 2))
        return Pixels(labels=np.asarray(data.targets, dtype=np.int64), pixels=pixels)

    found = f"{'' if train else 'test-'}{cls.__name__}-{fingerprint(root, files)}"
    return Source(fingerprint=found, class_names=class_names, num_images=num_images, load=load)


def _fetch(spec: "DataSpec", cls: Any, root: Path) -> None:
    if not spec.download:
        raise SetupError(
            f"{cls.__name__} is not in {root}; --set data.path=FOLDER (which holds {cls.base_folder}) "
            "or --set data.download=true"
        )
    try:
        cls(root, train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise SetupError(f"download of {cls.__name__} to {root} failed: {error}") from None
