"""Takes secrets out of what is written down (records, mirror, logs, reports), and tells a URI that holds a login."""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

REDACTED = "[redacted]"
SHORTEST = 8  # characters of a value that is looked for wherever it stands: a shorter one is part of ordinary words
_FOLDERS = ("PWD", "OLDPWD")  # of a shell; elsewhere PWD is a password
# The last word of a secret's name: one that says so by itself, and one that does so behind another word.
_ALONE = re.compile(r"(?:token|secret|credentials?|sig|signature|o?auth|authorization|bearer|cookie|pwd|sshpass"
                    r"|\w*(?:password|passwd|passphrase|apikey|accesskey|secretkey|accountkey))$")  # fmt: skip
_BEHIND = ("key", "pat", "pass", "creds", "dsn", "sas", "pw", "jwt", "passcode")
_PLAIN_KEYS = ("public", "sort", "primary", "foreign", "cache", "partition", "group")
_PAIRS = ("connection_string", "conn_str", "webhook_url")
_TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bsk-[\w-]{20,}"
    r"|\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]{10,}|\bdapi[0-9a-f]{32}\b|\bAIza[\w-]{35}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
# scheme, then all up to the last @: with a ':' before the first '/', or with the @ there. A password may hold / ? # @.
_LOGIN = re.compile(
    r"\b(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<login>[^\s/@:'\"]{0,300}:[^\s'\"]{0,600}|[^\s/:'\"]{1,600})@", re.I
)
# Where a name alone before the @ is no secret: a user of a database or of a shell, a container of Azure.
_USER_ONLY = re.compile(r"(?:postgres|mysql|mariadb|mssql|oracle|cockroach|abfs|wasb|hdfs|ssh|sftp|git\+ssh)", re.I)
_ASSIGNED = re.compile(r"\b(?P<name>[A-Za-z][\w.-]{0,80})(?P<is>=|['\"]\s*:\s*['\"])(?P<value>[^\s'\"&,;]+)")
_HEADER = re.compile(r"(\b(?:bearer|authorization['\"]?\s*[:=]\s*['\"]?\w+)\s+)([\w.~+/=-]{12,})", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable, key or parameter of this name holds a secret: ``PGPASSWORD``, ``AccountKey``, ``api-key``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(".", "_").split("_")
    while len(words) > 1 and (words[-1] in ("id", "value", "base64") or words[-1].isdigit()):
        words.pop()
    last, before = words[-1].rstrip("0123456789"), words[-2] if len(words) > 1 else ""
    behind = last in _BEHIND and before not in ("", *_PLAIN_KEYS)
    return behind or _ALONE.match(last) is not None or f"{before}_{last}" in _PAIRS


def has_login(uri: str) -> bool:
    """Whether a URI or connection string holds a password, a token or a key, spelled out or in percent escapes."""
    whole = re.sub(r"[\s'\"]", "_", uri if "://" in uri else f"any://{uri}")
    return Redactor().text(whole) != whole


@dataclass(frozen=True)
class Redactor:
    """Replaces by ``[redacted]``: known values, what is shaped like a token, logins in URIs, values of secret keys."""

    known: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Redactor":
        """One that also knows the values of this process's secret environment variables, and the passwords in URIs and
        connection strings of all others (of at least ``SHORTEST`` characters)."""
        found = set()
        for name, value in os.environ.items():
            if is_secret_name(name) and name not in _FOLDERS:
                found.add(value)
            found |= {password for login in _LOGIN.finditer(value) if (password := _password(login))}
            found |= {one["value"] for one in _ASSIGNED.finditer(value) if is_secret_name(one["name"])}
        forms = {form for value in found for form in (value, unquote(value), quote(value, safe=""), _escaped(value))}
        return cls(tuple(sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)))

    def text(self, text: str) -> str:
        """Percent escapes are looked through: a word that holds a secret in them loses them."""
        for value in self.known:
            text = text.replace(value, REDACTED)
        text = _shapeless(text)
        return re.sub(r"\S+", lambda word: _without_escapes(word.group()), text) if "%" in text else text

    def value(self, value: Any, keep: Collection[str] = ()) -> Any:
        """The same JSON-like value with its secrets replaced; text under a secret key goes whatever it looks like.

        ``keep``: keys of a mapping whose values stay as they are.
        """
        if isinstance(value, Mapping) and keep:
            return {key: part if key in keep else self.value({key: part})[key] for key, part in value.items()}
        return _map_text(value, self.text)


def _shapeless(text: str) -> str:
    """The text without what has the shape of a secret."""
    text = _LOGIN.sub(lambda at: f"{at['scheme']}{REDACTED}@" if _password(at) else at.group(),
                      _TOKENS.sub(REDACTED, text))  # fmt: skip
    return _ASSIGNED.sub(_without_value, _HEADER.sub(rf"\1{REDACTED}", text))


def _without_escapes(word: str) -> str:
    plain = unquote(word)
    return word if (found := _shapeless(plain)) == plain else found


def _password(login: re.Match[str]) -> str | None:
    """What is secret of the part of a URI before the @; None where it is a plain user name."""
    user, _, password = login["login"].partition(":")
    return password or (None if _USER_ONLY.match(login["scheme"]) or user == "anonymous" else user)


def _without_value(assigned: re.Match[str]) -> str:
    return f"{assigned['name']}{assigned['is']}{REDACTED}" if is_secret_name(assigned["name"]) else assigned.group()


def _escaped(value: str) -> str:
    """As JSON has it: a secret with quotes, line ends or letters beyond ASCII."""
    return json.dumps(value)[1:-1]


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if isinstance(part, str) and part and is_secret_name(str(key)) else _map_text(part, change)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_map_text(part, change) for part in value]
    return value
