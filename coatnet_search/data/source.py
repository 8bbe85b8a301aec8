"""What a data set hands over: encoded files or an array of pixels, with labels. The interface of this plugin folder."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data.remote import local_path
from coatnet_search.data.sources.listing import shown

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec


class Encoded(Protocol):
    """Images as file contents, still to be decoded. Picklable, so that workers can read too."""

    @property
    def labels(self) -> NDArray[np.int64]: ...  # (N,)

    def read(self, number: int) -> bytes:
        """The whole file of one image. Raises OSError."""

    def name(self, number: int) -> str:
        """What a user can look up: a path, or a row of a file."""


@dataclass(frozen=True)
class Pixels:
    """Images that come decoded: uint8 (N, C, H, W), C is 1 or 3."""

    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set's training split, or what ``open_test`` gives: its test split.

    ``fingerprint`` is cheap to compute and changes whenever the files do; ``load`` may be slow and is called only when
    something must be read that the cache does not hold; ``sample(count)`` gives the contents of some images quickly.
    ``all_classes``: whether a class without an image is a mistake (in training it is). ``is_val``: (N,) which images
    are a validation split that came with the data; None: it is held out of training's. ``findings``: which folder or
    file is what, and what was passed over, as sentences. ``labels``: (N,) where they are known without ``load``.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    num_images: int
    load: Callable[[], Encoded | Pixels]
    sample: Callable[[int], Sequence[bytes]] | None = None
    note: str | None = None
    all_classes: bool = True
    is_val: NDArray[np.bool_] | None = None
    findings: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None


class Unlabelled(InputError):
    """A validation or test split that has images but no labels: it is passed over."""


def require_path(spec: "DataSpec", what: str) -> Path:
    """``spec.path`` as it exists, fetched where it is a URI. Raises SetupError that says how to give it."""
    if spec.path is None:
        raise SetupError(f"data set {spec.name!r} needs {what}: --set data.path=...")
    path = local_path(spec.path)
    if not path.exists():
        raise SetupError(f"data.path: {path} does not exist; give {what} by --set data.path=...")
    utf8(path.resolve())
    return path.resolve()


def utf8(path: Path) -> str:
    """The path as text. Raises InputError for one that no text file could hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"data.path: {shown(path)}: the name is not UTF-8, and no study could name it; rename it or "
                         "give a link to it") from None  # fmt: skip
    return str(path)


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Hex digest of the names, sizes and modification times of files below ``root`` (or of ``root`` itself)."""
    seen = hashlib.blake2b(os.fsencode(root), digest_size=16)
    for file in files:
        try:
            status = file.stat()
        except OSError:  # a broken link: a file that cannot be read, as will be found
            status = file.lstat()
        seen.update(b"\0%b\0%d\0%d" % (os.fsencode(file.relative_to(root)), status.st_size, status.st_mtime_ns))
    return seen.hexdigest()


def label_key(class_names: Sequence[str], labels: NDArray[np.int64]) -> str:
    """Hex digest of what images are called: the index keeps labels, so that its name must change with them."""
    seen = hashlib.blake2b("\0".join(class_names).encode(), digest_size=8)
    seen.update(labels.astype("<i8").tobytes())
    return seen.hexdigest()
