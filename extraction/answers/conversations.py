"""Prompts that are conversations: lists of messages, sent as such.

A conversation travels as the JSON list of its messages, so that files of every kind, keys and tables can hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extraction.corpora.plain_text import NotTextError, as_text, content_text, unwrapped

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}  # of other collections


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
    value = unwrapped(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value) or not value:
        return as_text(value)
    messages = [{"role": _role(item), "content": content_text(item)} for item in value]
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


def _role(message: Mapping[str, Any]) -> str:
    role = next((message[name] for name in ("role", "from") if isinstance(message.get(name), str)), None)
    if role is None:
        raise NotTextError("a message without role")
    return str(ROLES.get(role, role))
