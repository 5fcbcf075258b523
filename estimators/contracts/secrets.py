"""Secrets in URLs never leave the process: one function masks them in whatever is written, logged or printed."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<rest>\S+)")
# What a path makes of a URL: it drops a slash. `models:/name@alias` of MLflow is none.
_PATH = re.compile(r"(?P<scheme>(?:https?|ftp|s3|gs|az|abfss?|postgresql|mysql|mssql)[+\w]*):/(?!/)(?P<rest>\S+)")
_WHOLE = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<rest>.+)", re.DOTALL)
_HOST = re.compile(r"[^@:/]*(:\d+)?(/[^@]*)?")  # host, port and path, in which no user can hide
_PARAMETER = re.compile(r"(;[^;=/]*=)[^;/]*")  # of a path: /v1;key=S
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def masked(text: str) -> str:
    """Return `text` with the user part, every query value and the fragment of every URL in it replaced by ``***``.

    A user name is masked as a password is, since tokens stand there as well. What could belong to a password is taken
    for one: a password may hold any character, and a URL in which its end is unclear is masked whole.

    >>> masked("postgresql://me:ab@TAIL@host/db refused")
    'postgresql://***@host/db refused'
    >>> masked("http://host:8000/v1?key=S&version=2")
    'http://host:8000/v1?key=***&version=***'
    """
    if ":/" not in text:
        return text
    text = _PATH.sub(lambda found: f"{found['scheme']}:/{_masked_rest(found['rest'])}", text)
    whole = _WHOLE.fullmatch(text)
    if whole is not None and "://" not in whole["rest"] and "\n" not in text:
        head, space, tail = whole["rest"].partition(" ")
        if not space or "@" in tail:  # a password with spaces, not a sentence that begins with a URL
            return f"{whole['scheme']}://{_masked_rest(whole['rest'])}"
        return f"{whole['scheme']}://{_masked_rest(head)}{space}{tail}"
    return _URL.sub(lambda found: f"{found['scheme']}://{_masked_rest(found['rest'])}", text)


def _masked_rest(rest: str) -> str:
    """Mask what follows ``://``."""
    cut = min((rest.index(mark) for mark in "?#" if mark in rest), default=len(rest))
    before, after = rest[:cut], rest[cut:]
    if "@" in after and not _HOST.fullmatch(before.rpartition("@")[2]):
        return MASK  # the ? or # may belong to a password
    if "@" in after and ":" in before and "@" not in before:
        return MASK
    authority = before.split("/", 1)[0]
    at = before.rfind("@") if ":" in before.rpartition("@")[0] else authority.rfind("@")
    shown = f"{MASK}@{before[at + 1 :]}" if at >= 0 else before
    return _PARAMETER.sub(rf"\1{MASK}", shown) + _masked_query(after)


def _masked_query(after: str) -> str:
    """Mask the values of ``?a=b&c=d#e``; a part without a name is a value, and so is a fragment."""
    if not after:
        return ""
    query, fragment, rest = after.partition("#")
    parts = re.split(r"([&;])", query.removeprefix("?"))
    shown = "".join(part if part in ("&", ";", "") else _masked_pair(part) for part in parts)
    return ("?" if query.startswith("?") else "") + shown + (f"#{MASK}" if fragment and rest else fragment)


def _masked_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={MASK}" if equals else MASK


def masked_all(value: Any) -> Any:
    """Return `value` with every string in it masked, however nested, names included.

    >>> masked_all({"tracking": {"uri": "http://me:secret@host"}})
    {'tracking': {'uri': 'http://***@host'}}
    """
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {masked_all(name): masked_all(item) for name, item in value.items()}
    if isinstance(value, list):
        return [masked_all(item) for item in value]
    if isinstance(value, tuple):
        return tuple(masked_all(item) for item in value)
    return value


def printable(text: str) -> str:
    r"""Return `text` masked and without control characters, by which a foreign text could steer a terminal.

    Line breaks and tabs stay; what changes the direction of writing goes, too.

    >>> printable("\x1b[31mred\x07 http://u:p@h")
    '[31mred http://***@h'
    """
    return masked(_CONTROL.sub("", text))
