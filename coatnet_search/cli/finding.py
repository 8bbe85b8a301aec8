"""One thing that ``doctor`` looked at: what was found, whether it is fine, and the mend."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``mend`` is empty where nothing is to be done."""

    check: str
    state: State
    found: str
    mend: str = ""
