"""Asks timm for a network by its plain name: the only place that does, so no name can send it to a hub or a folder."""

import difflib
import re
from typing import Any

import timm
from torch import nn

from coatnet_search.core.document import one_line
from coatnet_search.core.errors import InputError

_NAME = re.compile(r"\w+(?:\.\w+)?", re.ASCII)  # resnet18, resnet18.a1_in1k; no hf-hub:OWNER/NAME, no local-dir:PATH


def check_name(name: object) -> None:
    """Raises InputError, with what was probably meant, where timm has no such network."""
    text = name if isinstance(name, str) else repr(name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"expected the plain name of a network of timm, as resnet18, got {one_line(text)[:60]!r}; "
                         "nothing is fetched from a hub")  # fmt: skip
    if not timm.is_model(name):
        alike = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(alike)}?" if alike else "see timm.list_models()"
        raise InputError(f"timm knows no network {name!r}; {hint}")


def create_by_name(name: str, **options: Any) -> nn.Module:
    """``timm.create_model`` of a name that ``check_name`` lets through."""
    check_name(name)
    return timm.create_model(name, **options)
