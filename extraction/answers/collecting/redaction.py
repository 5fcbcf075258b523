"""Keeping a secret out of what is written: replaced in texts, before anything cuts them."""

from __future__ import annotations

from typing import Any

SHORTEST_SECRET = 8  # characters; what is shorter, such as "none", is no secret and occurs in any text
MARK = "[key]"
LONGEST_REASON = 300  # characters of a message
LONGEST_READ = 100_000  # characters of a server's message that are looked at


def without_secret(value: Any, secret: str) -> Any:
    """`value` with the secret replaced in every string in it, however nested; names of fields stay.

    Example:
        >>> without_secret({"text": "it is sk-0123456789"}, "sk-0123456789")
        {'text': 'it is [key]'}
    """
    if len(secret) < SHORTEST_SECRET:
        return value
    if isinstance(value, str):
        return value.replace(secret, MARK)
    if isinstance(value, dict):
        return {name: without_secret(item, secret) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secret(item, secret) for item in value]
    return value


def one_line(what: object, secret: str) -> str:
    """A short line for a message, without the secret, in characters that fit any table.

    A server may have cut its own message within the key, so an end that begins the key is replaced as well.
    """
    text = " ".join((str(what) or type(what).__name__)[:LONGEST_READ].split()).encode("utf-8", "replace").decode()
    text = str(without_secret(text, secret))
    for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
        text = text.replace(secret[:length], MARK)
    return text[:LONGEST_REASON]
