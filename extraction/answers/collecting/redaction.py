"""Keeping secrets out of what is written: replaced in texts, before anything cuts them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from estimators.contracts.secrets import printable

SHORTEST_SECRET = 8  # characters; what is shorter, such as "none", is no secret and occurs in any text
MARK = "[key]"
LONGEST_REASON = 300  # characters of a message
LONGEST_READ = 100_000  # characters of a server's message that are looked at
# What a terminal obeys instead of showing it, with the letters that belong to it.
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]")


def without_secret(value: Any, secrets: str | Iterable[str]) -> Any:
    """`value` with the secrets replaced in every string in it, however nested; names of fields stay.

    Example:
        >>> without_secret({"text": "it is sk-0123456789"}, "sk-0123456789")
        {'text': 'it is [key]'}
    """
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        if len(secret) >= SHORTEST_SECRET:
            value = _replaced(value, secret)
    return value


def _replaced(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return value.replace(secret, MARK)
    if isinstance(value, dict):
        return {name: _replaced(item, secret) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, secret) for item in value]
    return value


def one_line(what: object, secrets: str | Iterable[str]) -> str:
    r"""A short line for a message, without the secrets, in characters that fit any table and do nothing to a terminal.

    A server may have cut its own message within a key, so an end that begins the key is replaced as well.

    Example:
        >>> one_line("\x1b[2Jbusy\n now\x07", "")
        'busy now'
    """
    text = plain(str(what) or type(what).__name__)
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        text = str(without_secret(text, secret))
        for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
            text = text.replace(secret[:length], MARK)
    return text[:LONGEST_REASON]


def plain(text: str) -> str:
    r"""`text` in one line, without what a terminal obeys: escapes, control characters, changes of direction.

    Example:
        >>> plain("a\x1b]0;title\x07b \u202ec")
        'ab c'
    """
    text = ESCAPES.sub("", text[:LONGEST_READ]).encode("utf-8", "replace").decode()
    return " ".join(printable(text).split())
