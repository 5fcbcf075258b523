"""The text in what people put where one is expected (bytes, messages, parts): taken or refused, never guessed.

A value that is no text must not become Python's way of writing it, which would be measured, or sent and paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimators.base import InputError
from extraction.reading import whole_characters


class NotTextError(ValueError):
    """A value that is no text; says what it is."""


def as_text(value: object) -> str | None:
    """The text in a value: a string, UTF-8 bytes, a message's content, or the contents of messages.

    Returns:
        None where there is no value.

    Raises:
        NotTextError: if the value is a number or holds something other than text.

    Example:
        >>> as_text(b"a river"), as_text([{"role": "user", "content": "Name a river."}])
        ('a river', 'Name a river.')
        >>> as_text(5)
        Traceback (most recent call last):
        extraction.corpora.plain_text.NotTextError: the number 5
    """
    value = unwrapped(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return content_text(value)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "\n\n".join(map(content_text, value))
    raise NotTextError(_what(value))


def text_at(value: object, where: str) -> str | None:
    """Like `as_text`, for a value read from a file.

    Args:
        value: what was read.
        where: e.g. ``Line 3 of texts.jsonl``.

    Raises:
        InputError: naming `where`, if the value is no text.

    Example:
        >>> text_at(5, "Line 3 of texts.jsonl")
        Traceback (most recent call last):
        estimators.base.InputError: Line 3 of texts.jsonl holds the number 5, not a text; give texts, UTF-8 or messages.
    """
    try:
        return as_text(value)
    except NotTextError as error:
        raise InputError(f"{where} holds {error}, not a text; give texts, UTF-8 or messages.") from None


def unwrapped(value: object) -> object:
    """Arrays as lists, bytes as text, what stands for a missing value as None, halves of characters replaced.

    Raises:
        NotTextError: if bytes are not UTF-8.

    Example:
        >>> unwrapped(b"a river"), unwrapped(float("nan"))
        ('a river', None)
    """
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NotTextError(f"{len(bytes(value))} bytes that are not UTF-8") from None
    if hasattr(value, "tolist") and not isinstance(value, str):  # an array or a number of numpy
        value = value.tolist()
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    return whole_characters(list(value) if isinstance(value, tuple) else value)


def content_text(message: Mapping[str, Any]) -> str:
    """The text of one message, whose content may come in parts.

    Raises:
        NotTextError: if it holds something else, such as an image.

    Example:
        >>> content_text({"role": "user", "content": [{"type": "text", "text": "Name a river."}]})
        'Name a river.'
    """
    names = ("content", "value", "text", "parts")
    content = unwrapped(next((message[name] for name in names if name in message), None))
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [unwrapped(part) for part in content]
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
        known = [text for text in texts if isinstance(text, str)]
        if known and len(known) == len(texts):
            return "".join(known)
    raise NotTextError("a message whose content is not text")


def _what(value: object) -> str:
    if isinstance(value, bool | int | float):
        return f"the {'truth value' if isinstance(value, bool) else 'number'} {value}"
    if isinstance(value, list):
        return f"a list of {len(value)} that are not messages"
    return f"a {type(value).__name__}"
