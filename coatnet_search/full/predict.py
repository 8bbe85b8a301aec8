"""Image files -> the likeliest classes, by a trained network and its own preprocessing."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data.image_file import Unreadable, quiet_decoder
from coatnet_search.data.sources.listing import IMAGE_ENDINGS, read_file, read_folder, shown
from coatnet_search.full.bundle import Bundle
from coatnet_search.training.device import autocast, chosen_precision

BATCH = 64  # images decoded and seen at once


def image_files(paths: Sequence[Path]) -> tuple[list[Path], Counter[str]]:
    """The files among ``paths`` as they are, and all image files below the folders among them, by name; and how many
    other files were passed over, by ending.

    Raises SetupError for what is not there, InputError for a folder without images.
    """
    found: list[Path] = []
    passed: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            folder = read_folder(path, IMAGE_ENDINGS)
            if not folder.count:
                raise InputError(f"{path}: no images; expected files that end in {', '.join(IMAGE_ENDINGS)}")
            found += folder.all_files()
            passed += folder.all_passed()
        elif path.exists() or path.is_symlink():
            found.append(path)
        else:
            raise SetupError(f"{path}: no such file or folder")
    return found, passed


@torch.inference_mode()
def predict(bundle: Bundle, files: Sequence[Path], *, top: int = 5, device: torch.device) -> Iterator[dict[str, Any]]:
    """A row a file, in order: ``file``, ``classes`` (a list of ``class`` and ``confidence``, likeliest first), and
    ``problem``: why the file is no usable image, with no classes, else None. Files are decoded by a thread a core,
    those of the next batch while the network sees this one; a GPU computes in the precision that a study would take."""
    model = bundle.model.to(device)
    precision = chosen_precision("auto", device)
    with quiet_decoder(), ThreadPoolExecutor(usable_cores()) as pool:
        for part, images in _decoded(bundle, files, pool):
            good = [image for image in images if isinstance(image, Tensor)]
            with autocast(precision, device):
                batch = bundle.sight.batch(torch.stack(good)).to(device) if good else None
                shares = iter(confidences(bundle, model(batch)) if batch is not None else ())
            for file, image in zip(part, images, strict=True):
                problem = image if isinstance(image, str) else None
                classes = [] if problem else best(next(shares), bundle.class_names, top)
                yield {"file": shown(file), "classes": classes, "problem": problem}


def _decoded(
    bundle: Bundle, files: Sequence[Path], pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Path], list[Tensor | str]]]:
    """Batches of files and their images, one batch ahead of the one that is yielded."""
    parts = [files[begin : begin + BATCH] for begin in range(0, len(files), BATCH)]
    ahead = [pool.submit(_pixels, bundle, file) for file in parts[0]] if parts else []
    for part, after in itertools.zip_longest(parts, parts[1:], fillvalue=()):
        now, ahead = ahead, [pool.submit(_pixels, bundle, file) for file in after]
        yield part, [each.result() for each in now]


def confidences(bundle: Bundle, logits: Tensor) -> Tensor:
    """(B, K) -> (B, K) in 0..1, on the CPU: a softmax, or independent sigmoids where it was trained with these."""
    logits = logits.float().cpu()
    return logits.softmax(1) if bundle.loss == "softmax" else logits.sigmoid()


def best(shares: Tensor, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    values, places = shares.topk(min(top, len(names)))
    return [{"class": names[place], "confidence": value}
            for value, place in zip(values.tolist(), places.tolist(), strict=True)]  # fmt: skip


def _pixels(bundle: Bundle, file: Path) -> Tensor | str:
    """uint8 (C, stored, stored), or why there are none."""
    try:
        return bundle.sight.pixels(read_file(file))
    except Unreadable as error:
        return str(error)
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        return f"{type(error).__name__}: {error}"
