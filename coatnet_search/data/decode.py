"""Bytes of an image file -> pixels, with the oddities of real files: rotation tags, palettes, alpha, CMYK, deep values.

Values of 8 bits stay as they are. Deeper ones (10 to 16 bits, CT numbers, floats) are put on one scale for all images
of a data set, whatever the single file holds. What is transparent shows a background.
"""

import contextlib
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from coatnet_search.data.image_file import Unreadable, Values, deep_values, is_deep, open_file, orientation, upright

JPEG = b"\xff\xd8\xff"  # how such a file begins
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
BACKGROUND = 128  # a grey behind what is transparent: shapes drawn in black and in white both stand out


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How all images of a data set are read. ``value_range``: the values of deep images that become 0 and 255, None
    where that is not known; ``background``: the grey behind what is transparent, None: alpha is dropped."""

    channels: int
    value_range: tuple[float, float] | None = None
    background: int | None = BACKGROUND


@dataclass(frozen=True)
class Inspected:
    """What is known of one file without keeping its pixels; ``problem`` says why it cannot be used.

    ``low`` and ``high``: the extreme values of a deep image, NaN for others. ``flat``: one colour throughout.
    """

    hash: bytes  # 16 bytes of the file's BLAKE2b
    height: int = 0
    width: int = 0
    gray: bool = False
    problem: str | None = None
    low: float = math.nan
    high: float = math.nan
    flat: bool = False
    transparent: bool = False
    frames: bool = False  # it holds several, of which the first is seen


def image_hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def inspect(content: bytes, background: int = BACKGROUND) -> Inspected:
    """Decodes the file once (a JPEG at an eighth of its size, which finds the same damage). Never raises."""
    found = image_hash(content)
    try:
        with open_file(content) as image:
            width, height = image.size[::-1] if orientation(image) >= 5 else image.size
            gray = image.mode in GRAY_MODES
            frames = image.format != "JPEG" and bool(getattr(image, "is_animated", False))
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
            low, high, flat, transparent = _values_of(content, image, background)
    except Unreadable as error:
        return Inspected(found, problem=str(error))
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files: OSError, SyntaxError, ...
        return Inspected(found, problem=f"{type(error).__name__}: {error}")
    return Inspected(found, height, width, gray, None, low, high, flat, transparent, frames)


def _values_of(content: bytes, image: Image.Image, background: int) -> tuple[float, float, bool, bool]:
    """(low, high, flat, transparent) of an image that is decoded, a JPEG perhaps at an eighth of its size."""
    if is_deep(content, image):
        values, alpha = deep_values(content, image)
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise Unreadable("none of its values is a finite number")
        flat = alpha is None and all(np.ptp(part) == 0 for part in np.atleast_3d(values).transpose(2, 0, 1))
        return float(finite.min()), float(finite.max()), flat, alpha is not None
    shown, transparent = _laid_on(image, background)
    if shown.mode not in ("1", "L", "RGB", "RGBA", "CMYK", "YCbCr"):
        shown.convert("RGB")  # some kinds cannot be: their files count as broken
    flat = _is_flat(shown)
    if flat and image.format == "JPEG":  # small patterns may be lost at an eighth of the size
        flat = _is_flat(open_file(content))
    return math.nan, math.nan, flat, transparent


def _is_flat(image: Image.Image) -> bool:
    return all(band.getextrema()[0] == band.getextrema()[1] for band in image.split())


def open_image(content: bytes, reading: Reading) -> Image.Image:
    """An upright image in mode L (1 channel) or RGB (3). Raises Unreadable for a deep image without a known range."""
    image = open_file(content)
    turn = orientation(image)
    if is_deep(content, image):
        image = _scaled(*deep_values(content, image), reading.value_range)
    image, _ = _laid_on(upright(image, turn), reading.background)
    return image.convert("L" if reading.channels == 1 else "RGB")


def scaled(values: Values, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Deep values as 0..255: ``value_range`` becomes 0 and 255, what lies outside is cut, NaN is 0."""
    low, high = value_range
    shares = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(255 * shares.clip(0, 1)).astype(np.uint8)


def _scaled(values: Values, alpha: Values | None, value_range: tuple[float, float] | None) -> Image.Image:
    if value_range is None:
        raise Unreadable("it has values of more than 8 bits, and the range of these values is not known, as no image "
                         "that was learned from has such values")  # fmt: skip
    image = Image.fromarray(scaled(values, value_range))
    if alpha is not None:
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.rint(255 * alpha).astype(np.uint8)))
    return image


def _laid_on(image: Image.Image, background: int | None) -> tuple[Image.Image, bool]:
    """The image, on a grey ground where some of it is transparent; and whether some of it is."""
    if image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa") and "transparency" not in image.info:
        return image, False
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image, False
    if background is None:
        return image, True
    ground = Image.new("RGBA", image.size, (background, background, background, 255))
    ground.alpha_composite(image)
    return ground, True


def open_pixels(content: bytes, reading: Reading) -> Tensor:
    """As ``open_image``, but uint8 (C, H, W), channels last in memory.

    JPEG files in colour are decoded by torchvision: the same library and pixels as Pillow's, less copying.
    """
    if content[:3] == JPEG and reading.channels == 3:
        with contextlib.suppress(RuntimeError):  # it is stricter with files that are a little damaged
            pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED,
                                 apply_exif_orientation=True)  # fmt: skip
            if len(pixels) == reading.channels:  # not grey, not CMYK
                return pixels
    return pixels_of(open_image(content, reading))


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
