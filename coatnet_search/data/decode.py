"""Bytes of an image file -> pixels, with the oddities of real files: rotation tags, palettes, alpha, CMYK, 16 bits."""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

MAX_PIXELS = 89_478_485  # Pillow's own bound against decompression bombs: 256 MiB of RGB
JPEG = b"\xff\xd8\xff"  # how such a file begins
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")


@dataclass(frozen=True)
class Inspected:
    """What is known of one file without keeping its pixels; ``problem`` says why it cannot be used."""

    hash: bytes  # 16 bytes of the file's BLAKE2b
    height: int = 0
    width: int = 0
    gray: bool = False
    problem: str | None = None


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Bombs are errors, Pillow's other remarks are silent. Filters are process-wide: enter before starting threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def image_hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def inspect(content: bytes) -> Inspected:
    """Decodes the file once (a JPEG at an eighth of its size, which finds the same damage). Never raises."""
    found = image_hash(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                return Inspected(found, problem=f"{image.width}x{image.height} pixels are too many")
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # these orientations swap the sides; text is none
            width, height = image.size[::-1] if turned else image.size
            gray = image.mode in GRAY_MODES
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Inspected(found, problem=f"more than {MAX_PIXELS} pixels")
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files: OSError, SyntaxError, ...
        return Inspected(found, problem=f"{type(error).__name__}: {error}")
    return Inspected(found, height=height, width=width, gray=gray)


def open_image(content: bytes, channels: int) -> Image.Image:
    """An upright image in mode L (1 channel) or RGB (3). Alpha is dropped, 16-bit values keep their upper byte."""
    image: Image.Image = Image.open(io.BytesIO(content))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 256 if values.max(initial=0) > 255 else values).clip(0, 255).astype(np.uint8))
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


def open_pixels(content: bytes, channels: int) -> Tensor:
    """As ``open_image``, but uint8 (C, H, W), channels last in memory.

    JPEG files in colour are decoded by torchvision: the same library and pixels as Pillow's, less copying.
    """
    if content[:3] == JPEG and channels == 3:
        with contextlib.suppress(RuntimeError):  # it is stricter with files that are a little damaged
            pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED,
                                 apply_exif_orientation=True)  # fmt: skip
            if len(pixels) == channels:  # not grey, not CMYK
                return pixels
    return pixels_of(open_image(content, channels))


def pixels_of(image: Image.Image) -> Tensor:
    """uint8 (C, H, W), channels last in memory."""
    values = torch.from_numpy(np.array(image))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


def square(image: Image.Image, side: int) -> Image.Image:
    """The central square, resized to ``side``: nothing else is, however long an image is."""
    if image.size == (side, side):
        return image
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((side, side), Image.Resampling.BILINEAR, box, reducing_gap=2.0)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """(C, H, W) uint8."""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
