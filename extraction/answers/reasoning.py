"""An answer apart from the reasoning that stands before it in tags."""

from __future__ import annotations

import re

WORD = (
    r"(?:\w+[:_])?(?:think|thinking|thought|thoughts|thought_process|chain_of_thought|cot|reason|reasoning|scratchpad"
    r"|reflection|inner_monologue)"
)
# Where reasoning begins and ends, as families of models write it when their server does not part it from the answer,
# and whether an end without its beginning means that all before it is reasoning.
TAGS = (
    (rf"<\s*(?!end_){WORD}(?:\s[^<>]*)?>", rf"</\s*{WORD}\s*>", True),  # DeepSeek, Qwen, Seed, LongCat and most others
    (rf"&lt;{WORD}&gt;", rf"&lt;/{WORD}&gt;", True),  # the same, escaped for a page
    (r"\[THINK\]", r"\[/THINK\]", True),  # Mistral
    (r"◁think▷", r"◁/think▷", True),  # Kimi
    # Sky-T1, Cohere, Solar and others, each with an order of its own
    (
        rf"<\|(?!end_)(?:(?:begin|start)_(?:of_)?)?{WORD}(?:_(?:begin|start))?\|>",
        rf"<\|(?:(?:end_(?:of_)?|/){WORD}|{WORD}_end)\|>|<\|end\|>(?=<\|begin\|>)",
        True,
    ),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", True),  # Apertus
    (r"\[unused16\]", r"\[unused17\]", True),  # Pangu
    (r"<unused94>(?:thought\b)?", r"<unused95>", True),  # MedGemma
    (r"<\|channel>(?:thought\b)?", r"<channel\|>", True),  # Gemma 4
    # gpt-oss: an end closes every message of it; without its special tokens, the names of its channels are left.
    (r"<\|channel\|>(?:analysis|commentary)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", r"<\|(?:end|call)\|>", False),
    (r"\A(?-i:analysis(?=.*assistantfinal))", r"assistantfinal", False),
    (r"\AHere(?:'s| is) my thought process:(?=.*Here(?:'s| is) my response:)", r"Here(?:'s| is) my response:", False),
    (r"\AHere are my reasoning steps:(?=.*\[BEGIN FINAL RESPONSE\])", r"\[BEGIN FINAL RESPONSE\]", False),  # Apriel
    (r'<details type="reasoning"[^<>]*>', r"</details>", False),  # Open WebUI
)
# What then stands around the answer itself.
AROUND = (
    r"(?:<\|start\|>assistant){0,2}<\|channel\|>final<\|message\|>|<\|start\|>assistant\Z|<\|begin\|>assistant<\|content\|>"
    r"|<\|(?:begin_of_solution|end_of_solution|begin_of_box|end_of_box|START_RESPONSE|END_RESPONSE|return)\|>"
    r"|\[END FINAL RESPONSE\]|\A\s*<(?:answer|response|output)>|</(?:answer|response|output)>\s*\Z|<turn\|>\s*\Z"
)
QUOTES = "`'\"\u2018\u201c"  # before a tag that is quoted
EITHER = [(re.compile(f"(?P<begin>{begin})|{end}", re.IGNORECASE | re.DOTALL), alone) for begin, end, alone in TAGS]


def without_tags(text: str) -> tuple[str, str | None]:
    """Answer and reasoning of a text in which the reasoning stands in tags such as ``<think>``.

    A tag that begins a line and is not closed was cut off at the length limit: all after it is reasoning. An end
    without a beginning comes from chat templates that write the beginning into the prompt: all before it is reasoning.
    A tag in quotes, or within a line and not closed, is spoken of.

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
    rest = text
    for tag, alone in EITHER:
        rest = _taken_out(rest, tag, parts, alone=alone)
    if not parts:
        return text, None
    answer = re.sub(AROUND, "", rest, flags=re.IGNORECASE).strip()
    return answer, "\n".join(part.strip() for part in parts).strip()


def _taken_out(text: str, tag: re.Pattern[str], parts: list[str], *, alone: bool) -> str:
    """The text without what stands in tags of one kind, which goes into `parts`: one pass, however many there are."""
    kept, start = [], 0
    opened: re.Match[str] | None = None
    line: re.Match[str] | None = None  # the first of the unclosed tags that begins a line
    for found in tag.finditer(text):
        quoted = text[max(0, found.start() - 1) : found.start()] in QUOTES and found.start() > 0
        if found["begin"] is not None and not quoted:
            opened = opened or found
            line = line or (found if _begins_line(text, found.start()) else None)
        elif found["begin"] is None and opened is not None:
            kept.append(text[start : opened.start()])
            parts.append(text[opened.end() : found.start()])
            start, opened, line = found.end(), None, None
        elif found["begin"] is None and alone and not quoted:
            parts.append("".join([*kept, text[start : found.start()]]))
            kept, start = [], found.end()
    if line is not None:
        kept.append(text[start : line.start()])
        parts.append(text[line.end() :])
        return "".join(kept)
    return "".join([*kept, text[start:]])


def _begins_line(text: str, place: int) -> bool:
    before = text[max(0, place - 40) : place].rpartition("\n")
    return not before[2].strip() and (before[1] == "\n" or place <= 40)
