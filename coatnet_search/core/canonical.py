"""Plain values -> one canonical JSON text on every machine, and its hash: the ids of networks, keys of trials."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Scalar = str | int | float | bool


def canonical_json(value: object) -> str:
    """One text per value on every machine: sorted keys, no spaces, 4.0 written as 4."""

    def plain(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(key): plain(inner) for key, inner in part.items()}
        if isinstance(part, (list, tuple)):
            return [plain(inner) for inner in part]
        if isinstance(part, float) and part.is_integer():
            return int(part)
        return part

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def digest(value: object, length: int = 10) -> str:
    """The first hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
