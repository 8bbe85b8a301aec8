"""What the values on the command line may be: functions from a word to the value, for ``argparse``'s ``type``."""

import argparse
import math
import re

from coatnet_search.core.redact import has_login


def number(text: str) -> float:
    """A finite number as ``float`` reads it: 4.2e9, 2e-3."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def positive(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def fraction(text: str) -> float:
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, such as 0.2, got {text!r}")
    return value


def count(text: str) -> int:
    """A whole number of at least 1; 1e3 is one too."""
    value = number(text)
    if not value.is_integer() or value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(value)


def port(text: str) -> int:
    value = count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 1 to 65535, got {text!r}")
    return value


def batch_size(text: str) -> int | str:
    """A whole number of images, or ``best``."""
    return text if text == "best" else count(text)


def numbers(text: str) -> tuple[int, ...]:
    """``0,1,2``: whole numbers of at least 0."""
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, such as 0,1,2, got {text!r}")
    return tuple(int(part) for part in parts)


def limit(text: str) -> tuple[str, float]:
    """``macs=4.2e9`` as (name, number)."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected METRIC=NUMBER such as macs=4.2e9, got {text!r}")
    try:
        return name, number(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def uri(text: str) -> str:
    """A URI or an address without login: a command line is seen by others of the machine. Not repeated in the error."""
    if has_login(text):
        raise argparse.ArgumentTypeError("expected no password, token or key in it; give these by the environment")
    return text


def pairs(text: str) -> list[tuple[str, str]]:
    """``arm=layout,error=err`` as [(arm, layout), (error, err)]. A comma that no ``NAME=`` follows is of the column's
    name; ``state=`` is a column that the file has and that is left out."""
    found = [part.partition("=") for part in re.split(r",(?=\s*[A-Za-z_]\w*=)", text.rstrip(","))]
    for name, equals, _ in found:
        if not (name.strip() and equals):
            raise argparse.ArgumentTypeError(f"expected NAME=COLUMN,... such as arm=layout,error=err, got {text!r}")
    return [(name.strip(), column.strip()) for name, _, column in found]
