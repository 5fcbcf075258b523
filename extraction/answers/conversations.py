"""What people put where a text is expected (bytes, messages, content in parts): taken or refused, never guessed.

A conversation travels as the JSON list of its messages, so that files of every kind, keys and tables can hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}  # of other collections


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
        extraction.answers.conversations.NotTextError: the number 5
    """
    value = _plain(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _content(value)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "\n\n".join(map(_content, value))
    raise NotTextError(_what(value))


def as_prompt(value: object) -> str | None:
    """A prompt from a value: its text, or the JSON of its messages where there are several or one is not the user's.

    Returns:
        None where there is no value.

    Raises:
        NotTextError: if the value is a number or holds something other than text.

    Example:
        >>> as_prompt([{"role": "user", "content": "Name a river."}])
        'Name a river.'
        >>> as_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}])
        '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]'
    """
    value = _plain(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value) or not value:
        return as_text(value)
    messages = [{"role": _role(item), "content": _content(item)} for item in value]
    if [message["role"] for message in messages] == ["user"]:
        return str(messages[0]["content"])
    return json.dumps(messages, ensure_ascii=False)


def messages_of(prompt: str) -> list[dict[str, str]] | None:
    """The messages of a prompt that is a conversation, None of one that is a text.

    Example:
        >>> messages_of("Name a river.") is None
        True
        >>> messages_of('[{"role": "user", "content": "Name a river."}]')
        [{'role': 'user', 'content': 'Name a river.'}]
    """
    if not prompt.startswith('[{"'):
        return None
    try:
        found = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, list) and all(
        isinstance(item, dict) and set(item) == {"role", "content"} and all(isinstance(x, str) for x in item.values())
        for item in found
    )
    return found if whole else None


def prompt_text(prompt: str) -> str:
    r"""The text of a prompt, of a conversation that of its messages one after the other.

    Example:
        >>> prompt_text('[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A river?"}]')
        'Be brief.\n\nA river?'
    """
    messages = messages_of(prompt)
    return prompt if messages is None else "\n\n".join(message["content"] for message in messages)


def _plain(value: object) -> object:
    """Arrays as lists, bytes as text, what stands for a missing value as None."""
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NotTextError(f"{len(bytes(value))} bytes that are not UTF-8") from None
    if hasattr(value, "tolist") and not isinstance(value, str):  # an array or a number of numpy
        value = value.tolist()
    if value is None or value != value or repr(value) == "<NA>":  # NaN alone differs from itself
        return None
    return list(value) if isinstance(value, tuple) else value


def _content(message: Mapping[str, Any]) -> str:
    content = _plain(next((message[name] for name in ("content", "value", "text") if name in message), None))
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [_plain(part) for part in content]
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
        known = [text for text in texts if isinstance(text, str)]
        if known and len(known) == len(texts):
            return "".join(known)
    raise NotTextError("a message whose content is no text")


def _role(message: Mapping[str, Any]) -> str:
    role = next((message[name] for name in ("role", "from") if isinstance(message.get(name), str)), None)
    if role is None:
        raise NotTextError("a message without role")
    return str(ROLES.get(role, role))


def _what(value: object) -> str:
    if isinstance(value, bool | int | float):
        return f"the {'truth value' if isinstance(value, bool) else 'number'} {value}"
    if isinstance(value, list):
        return f"a list of {len(value)} that are not messages"
    return f"a {type(value).__name__}"
