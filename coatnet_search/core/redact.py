"""Takes secrets out of what is written down: record, mirror, logs, reports."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted]"
_NAME = (
    r"(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|credentials?|signature)"
)
_SECRET_KEY = re.compile(rf"(?:^|[^a-z]){_NAME}(?:[_-]?id)?$|^authorization$", re.IGNORECASE)
_TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bsk-[\w-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]{10,}|\bdapi[0-9a-f]{32}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_URI_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@:'\"]*:[^\s/@'\"]+@", re.IGNORECASE)
_ASSIGNED = re.compile(rf"([\w-]*{_NAME})(=|['\"]\s*:\s*['\"])([^\s'\"&,;]{{4,}})", re.IGNORECASE)
_HEADER = re.compile(r"(\b(?:bearer|authorization['\"]?\s*[:=]\s*['\"]?\w+)\s+)([\w.~+/=-]{12,})", re.IGNORECASE)
# A text without any of these, in lower case, holds nothing that the patterns above find: the cheap test before them.
_HINTS = ("token", "secret", "passw", "key", "credential", "signature", "authorization", "bearer", "://", "hf_", "gh",
          "glpat-", "sk-", "akia", "xox", "dapi", "eyj")  # fmt: skip


@dataclass(frozen=True)
class Redactor:
    """Replaces by ``[redacted]``: known values, what is shaped like a token, logins in URIs, values of secret keys."""

    known: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Redactor":
        """One that also knows the values of this process's secret environment variables (of at least 8 characters)."""
        found = {value for name, value in os.environ.items() if _SECRET_KEY.search(name) and len(value) >= 8}
        return cls(tuple(sorted(found, key=len, reverse=True)))

    def may_hold_secret(self, text: str) -> bool:
        """False is certain; True is worth a look. About 2 microseconds a kilobyte."""
        lower = text.lower()
        return any(hint in lower for hint in _HINTS) or any(value in text for value in self.known)

    def text(self, text: str) -> str:
        if not self.may_hold_secret(text):
            return text
        for value in self.known:
            text = text.replace(value, REDACTED)
        text = _URI_LOGIN.sub(rf"\1{REDACTED}@", _TOKENS.sub(REDACTED, text))
        return _ASSIGNED.sub(rf"\1\2{REDACTED}", _HEADER.sub(rf"\1{REDACTED}", text))

    def value(self, value: Any) -> Any:
        """The same JSON-like value with its secrets replaced; text under a secret key goes whatever it looks like."""
        return _map_text(value, self.text)


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED
            if isinstance(part, str) and part and _SECRET_KEY.search(str(key))
            else _map_text(part, change)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_map_text(part, change) for part in value]
    return value
