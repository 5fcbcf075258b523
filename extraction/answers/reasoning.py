"""An answer apart from the reasoning that stands before it in tags."""

from __future__ import annotations

import re

WORD = r"(?:seed:)?(?:think|thinking|thought|thoughts|reason|reasoning)"
# Where reasoning begins and ends, as families of models write it when their server does not part it from the answer,
# and whether an end without its beginning means that all before it is reasoning.
TAGS = (
    (rf"<{WORD}\s*>", rf"</{WORD}\s*>", True),  # DeepSeek, Qwen, Seed, EXAONE and most others
    (r"\[THINK\]", r"\[/THINK\]", True),  # Mistral
    (r"◁think▷", r"◁/think▷", True),  # Kimi
    (r"<\|(?:begin_of_thought|START_THINKING)\|>", r"<\|(?:end_of_thought|END_THINKING)\|>", True),  # Sky-T1, Cohere
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", True),  # Apertus
    (r"\[unused16\]", r"\[unused17\]", True),  # Pangu
    (r"<unused94>(?:thought\b)?", r"<unused95>", True),  # MedGemma
    (r"<\|channel>(?:thought\b)?", r"<channel\|>", True),  # Gemma 4
    # gpt-oss: an end closes every message of it; without its special tokens, the names of its channels are left.
    (r"<\|channel\|>(?:analysis|commentary)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", r"<\|(?:end|call)\|>", False),
    (r"\A(?-i:analysis(?=.*assistantfinal))", r"assistantfinal", False),
    (r"\AHere(?:'s| is) my thought process:(?=.*Here(?:'s| is) my response:)", r"Here(?:'s| is) my response:", False),
)
# What then stands around the answer itself.
AROUND = (
    r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|<\|start\|>assistant\Z"
    r"|<\|(?:begin_of_solution|end_of_solution|begin_of_box|end_of_box|START_RESPONSE|END_RESPONSE|return)\|>"
    r"|\A\s*<(?:answer|response)>|</(?:answer|response)>\s*\Z|<turn\|>\s*\Z"
)


def without_tags(text: str) -> tuple[str, str | None]:
    """Answer and reasoning of a text in which the reasoning stands in tags such as ``<think>``.

    A tag that is not closed was cut off at the length limit: all behind it is reasoning. An end without a beginning
    comes from chat templates that write the beginning into the prompt: all before it is reasoning.

    Returns:
        The answer, and the reasoning or None if there are no tags.

    Example:
        >>> without_tags("<think>The Elbe is one.</think> The Elbe.")
        ('The Elbe.', 'The Elbe is one.')
        >>> without_tags("[THINK]The Elbe is one.[/THINK]The Elbe.")
        ('The Elbe.', 'The Elbe is one.')
        >>> without_tags("<think>They ask for"), without_tags("Two < three.")
        (('', 'They ask for'), ('Two < three.', None))
    """
    parts: list[str] = []

    def keep(found: re.Match[str]) -> str:
        parts.append(found["inside"])
        return ""

    rest = text
    for begin, end, alone in TAGS:
        rest = re.sub(rf"{begin}(?P<inside>.*?){end}", keep, rest, flags=re.DOTALL | re.IGNORECASE)
        if alone:
            rest = re.sub(rf"\A(?P<inside>.*){end}", keep, rest, flags=re.DOTALL | re.IGNORECASE)
        rest = re.sub(rf"{begin}(?P<inside>.*)\Z", keep, rest, flags=re.DOTALL | re.IGNORECASE)
    if not parts:
        return text, None
    return re.sub(AROUND, "", rest).strip(), "\n".join(part.strip() for part in parts).strip()
