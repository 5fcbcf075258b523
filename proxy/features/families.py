"""Families proposed from models' names: which base model a name goes back to, for a person to correct."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What is known to be made of a base model whose name it does not carry, and how base models' names are written. The
# first that matches; what makes an answer (a mixture, a correction of an API model's answer) goes before what it uses.
FAMILIES = {
    "gpt-4": r"^(?:.*/)?(?:aligner-2b_|openpipe-moa-)?(?:chat)?gpt-?4",
    "mixture of models": r"\bmoa\b|-moa-|samba-coe|^toa$|slimmoa|mixture-of-agents",
    "gpt-3.5": r"gpt-?3|text[-_]davinci|davinci-00",
    "gpt-oss": r"gpt-oss",
    "gpt-5": r"gpt-?5",
    "gpt-2": r"gpt-?2(?![.\d])",
    "o-series": r"^(?:openai/)?o[134](?:-|$)",
    "claude": r"claude(?!2-alpaca)",
    "gemini": r"gemini|palm-?2",
    "gemma": r"gemma",
    "deepseek": r"deepseek(?!.*(?:llama|qwen))",
    "qwen": r"qwen|qwq|causallm",
    "yi": r"(?:^|[-_/])yi(?:[-_]|$)",
    "llama-3": r"llama-?_?3(?!\d)|ghost-8b|\bgpo-",
    "mixtral": r"mixtral",
    "falcon": r"falcon",
    "llama-2": (
        r"llama-?_?2(?!\d)|tulu-2|xwin|wizardlm-(?:13b-v1\.[12]|70b)|openchat-v3|vicuna.*v1\.5|ultralm.*v2\.0|recycled"
        r"|cut-13b|minichat|claude2-alpaca|platypus2|platolm"
    ),
    "mistral": (
        r"mistral|zephyr|starling|openhermes|conifer|deita|merlinite|ghost-7b|^evo-|lmcocktail|storm-7b|solar"
        r"|neural-chat"
    ),
    "llama": (
        r"llama|vicuna|alpaca|airoboros|baize|humpback|hermes|oasst.*llama|ultralm|guanaco|wizardlm|openchat|koala"
        r"|minotaur|orca-mini"
    ),
    "pythia": r"pythia|dolly-v2|oasst.*12b",
    "starcoder": r"starcoder|opencoder",
    "phi": r"(?:^|[-_/])phi(?:[-_.\d]|$)",
    "cohere": r"cohere|command-r|aya-",
    "internlm": r"internlm",
    "glm": r"chatglm|glm-\d",
    "smollm": r"smollm",
    "olmo": r"olmo",
    "opt": r"(?:^|/)opt-\d",
    "bloom": r"bloom",
}


def proposed_family(name: str) -> str:
    """Return the base model a name seems to go back to, else the letters that its last part begins with.

    Example:
        >>> [proposed_family(name) for name in ("vicuna-13b-v1.5", "Qwen/Qwen2-7B", "jina-chat", "runs/7")]
        ['llama-2', 'qwen', 'jina', '7']
    """
    lowered = name.lower()
    known = next((family for family, pattern in FAMILIES.items() if re.search(pattern, lowered)), None)
    if known is not None:
        return known
    own = lowered.rstrip("/").split("/")[-1]
    return (re.match(r"[^\W\d_]+", own) or re.match(r".*", own))[0]  # type: ignore[index]  # the second always does


def proposed_families(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the models of each proposed family, families and models in alphabetical order."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=str.lower):
        found.setdefault(proposed_family(name), []).append(name)
    return dict(sorted(found.items()))
