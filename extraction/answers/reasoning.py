"""An answer apart from the reasoning that stands before it in tags."""

from __future__ import annotations

import re

TAGS = "think|thinking|thought|reasoning"


def without_tags(text: str) -> tuple[str, str | None]:
    """Answer and reasoning of a text in which the reasoning stands in ``<think>`` tags.

    A tag that is not closed was cut off at the length limit: all behind it is reasoning. An end without a beginning
    comes from chat templates that write the beginning into the prompt: all before it is reasoning.

    Returns:
        The answer, and the reasoning or None if there are no tags.

    Example:
        >>> without_tags("<think>The Elbe is one.</think> The Elbe.")
        ('The Elbe.', 'The Elbe is one.')
        >>> without_tags("<think>They ask for"), without_tags("Two < three.")
        (('', 'They ask for'), ('Two < three.', None))
    """
    parts: list[str] = []

    def keep(found: re.Match[str]) -> str:
        parts.append(found["inside"])
        return ""

    rest = re.sub(rf"<(?P<tag>{TAGS})>(?P<inside>.*?)</(?P=tag)>", keep, text, flags=re.DOTALL | re.IGNORECASE)
    rest = re.sub(rf"\A(?P<inside>.*)</({TAGS})>", keep, rest, flags=re.DOTALL | re.IGNORECASE)
    rest = re.sub(rf"<({TAGS})>(?P<inside>.*)\Z", keep, rest, flags=re.DOTALL | re.IGNORECASE)
    if not parts:
        return text, None
    return rest.strip(), "\n".join(part.strip() for part in parts).strip()
