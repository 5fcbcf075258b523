"""Why an answer ends: servers' many words for the same few reasons."""

from __future__ import annotations

import re

# Ends that no answer has: the server, its provider or its scheduler gave up half way. Each has words of its own:
# "error", "abort", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL", "engine_dead", "throttled", ...
FAILED = re.compile(
    r"error|abort|cancel|fail|time[ds_]?_?out|insufficient|interrupt|overload|unavailable|malformed|network|exception"
    r"|busy|crash|kill|preempt|disconnect|evict|throttl|terminat|oom\b|out_of_memory|internal|dead|lost|broken|dropped"
    r"|expired|rate_?limit|quota|unexpected|unspecified|server_|\bother\b",
    re.IGNORECASE,
)
LENGTH = re.compile(
    r"length|(?:max|limit|budget)\w*_?tokens|tokens?_?(?:limit|budget)|context_?window|max_?(?:new|length)",
    re.IGNORECASE,
)
FILTERED = re.compile(
    r"filter|safety|recitation|block_?list|prohibited|sensitive|guardrail|moderat|\bspii\b|toxic|polic(?:y|ies)",
    re.IGNORECASE,
)


def usual_end(reason: str) -> str:
    """The end in OpenAI's words where it is one of theirs; another one as it is.

    Example:
        >>> usual_end("MAX_TOKENS"), usual_end("model_length"), usual_end("SAFETY"), usual_end("stop")
        ('length', 'length', 'content_filter', 'stop')
    """
    if LENGTH.search(reason):
        return "length"
    return "content_filter" if FILTERED.search(reason) else reason


def is_failed_end(reason: str) -> bool:
    """Whether an answer that ends so was given up half way.

    Example:
        >>> is_failed_end("ERROR_TOXIC"), is_failed_end("network_error"), is_failed_end("max_tokens")
        (False, True, False)
    """
    return usual_end(reason) == reason and FAILED.search(reason) is not None
