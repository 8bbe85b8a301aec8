"""Opens the bytes of an image file: the one place that calls Pillow's ``Image.open``, with a fixed list of formats.

Values of more than 8 bits come as they stand in the file; ``decode.py`` puts them on the scale of their data set.
Shapes: H rows, W columns.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_png

# decoders that read pixels and do nothing else; others start programs (EPS: Ghostscript) or render pages
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485  # Pillow's own bound against decompression bombs: 256 MiB of RGB
ORIENTATION = 0x0112  # the EXIF tag: 1 is upright, 5..8 swap the sides
BITS = 258  # TIFF's BitsPerSample
TIFF = (b"II*\0", b"MM\0*")  # how such a file begins
_PPM = re.compile(rb"P6(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")  # width, height, maximum
_RAW = re.compile(r"(RGB|RGBX|RGBA);16([LBN])")  # Pillow's names of 16-bit colours: little, big, this machine's bytes
_OTHER = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}

Values = NDArray[np.float64]


class Unreadable(ValueError):
    """A file that is no usable image; the message is a part of a sentence."""


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Bombs are errors, Pillow's other remarks are silent. Filters are process-wide: enter before starting threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_file(content: bytes) -> Image.Image:
    """The image with its pixels still to be decoded. Raises Unreadable for other formats and for too many pixels, and
    what Pillow raises of damaged files."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        if content[:4] in TIFF:
            raise Unreadable("a kind of TIFF that is not read (its compression or numbers); save it as PNG") from None
        raise Unreadable(f"not an image in a format that is read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels") from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width}x{image.height} pixels are too many")
    return image


def orientation(image: Image.Image) -> int:
    """1..8, of EXIF; a tag that says something else is as good as none."""
    found = image.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def is_deep(content: bytes, image: Image.Image) -> bool:
    """Whether its values have more than 8 bits, so that a scale is needed to show them."""
    return image.mode.startswith(("I", "F")) or _sixteen_bit_color(content, image)


def deep_values(content: bytes, image: Image.Image) -> tuple[Values, Values | None]:
    """The values of a deep image as they stand in the file, (H, W) or (H, W, 3), and its opacity (H, W) in 0..1, None
    where it is opaque. Nothing is turned upright. Raises Unreadable for kinds whose values cannot be had."""
    alpha: Values | None = None
    if _sixteen_bit_color(content, image):
        found = _color_values(content, image)  # (H, W, 2..4)
        values = found[:, :, 0] if found.shape[2] == 2 else found[:, :, :3]
        alpha = found[:, :, -1] / 65535 if found.shape[2] != 3 else None
    else:
        values = np.asarray(image).astype(np.float64)
    key = image.info.get("transparency")  # a value, or a colour, that stands for nothing
    if alpha is None and isinstance(key, int | tuple):
        alpha = (np.atleast_3d(values) != np.asarray(key)).any(axis=2).astype(np.float64)
    return values, alpha if alpha is not None and alpha.min() < 1 else None


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The image turned as an orientation says."""
    if turn == 1:
        return image
    image.getexif()[ORIENTATION] = turn
    return ImageOps.exif_transpose(image)


def _sixteen_bit_color(content: bytes, image: Image.Image) -> bool:
    """Colour, or grey with alpha, of 16 bits a channel: of these Pillow itself keeps the upper bytes alone."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return content[24] == 16  # the bit depth in the header
    if image.format == "PPM":
        match = _PPM.match(content)
        return match is not None and int(match[3]) > 255
    return image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(BITS, ())


def _color_values(content: bytes, image: Image.Image) -> Values:
    """(H, W, channels) of 16 bits."""
    if image.format == "PNG":
        pixels = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
        return pixels.permute(1, 2, 0).numpy().astype(np.float64)
    if image.format == "PPM":
        match = _PPM.match(content)
        assert match is not None
        begin = match.end()
        numbers = np.frombuffer(content, dtype=">u2", count=3 * image.width * image.height, offset=begin)
        return numbers.reshape(image.height, image.width, 3).astype(np.float64)
    # a TIFF: Pillow unpacks the upper byte of a value, and the lower one where it is told the other order of bytes
    other: Any = open_file(content)
    for place, tile in enumerate(other.tile):
        swapped = _other_order(tile[3])
        other.tile[place] = tile._replace(args=swapped) if hasattr(tile, "_replace") else (*tile[:3], swapped)
    return np.asarray(image).astype(np.float64) * 256 + np.asarray(other)


def _other_order(arguments: Any) -> Any:
    """The arguments of one of Pillow's decoders with the bytes of 16-bit values in the other order."""
    name, *others = [arguments] if isinstance(arguments, str) else arguments
    match = _RAW.fullmatch(str(name))
    if not match:
        raise Unreadable(f"16-bit TIFF of the kind {name} is not read; save it as PNG, or with plain RGB pixels")
    return (f"{match[1]};16{_OTHER[match[2]]}", *others)
