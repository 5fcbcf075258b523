"""Answers in the replies of the three endpoints: apart from the reasoning before them, and from failures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeGuard

from extraction.answers.collecting.endpoints import Endpoint
from extraction.answers.collecting.faults import MalformedAnswerError, failure_in, reason_of
from extraction.answers.ends import is_failed_end, usual_end
from extraction.answers.reasoning import without_tags
from extraction.answers.sampling import MOST_TOKENS

ABSENT_LOGPROB = -9999.0  # what the API writes for a token outside its top list
WHOLE_STATUS = ("completed", "incomplete")  # of a response; queued or in progress, it is no answer yet
REASONING_FIELDS = (
    "reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details", "thinking_blocks",
    "reasoning_summary", "thoughts", "thought", "chain_of_thought",
)  # fmt: skip
REASONING_PARTS = re.compile(r"think|thought|reason|summary", re.IGNORECASE)  # kinds of content sent in parts
READABLE = (
    "text",
    "content",
    "summary",
    "thinking",
    "think",
    "thought",
    "reasoning",
    "reasoning_content",
)  # of an object
TEXT_PARTS = ("text", "output_text", None)
CALL_FIELDS = ("tool_calls", "function_call")  # of a message, and what its choice then ends for
CALL_PARTS = re.compile(r"tool_use|(?:^|_)call$|approval_request$")  # of content, or of a response's output
SOUND_AND_IMAGES = ("audio", "images", "image")
REASONING_ALONE, CALLS, NO_WORDS = "reasoning alone", "tool calls", "audio or images"
# What a reply can be in place of a text, and what to do: another attempt would be paid for and end much the same.
INSTEAD = {
    REASONING_ALONE: (
        "the reply contains reasoning but no answer; raise --max-tokens so that an answer fits, or turn "
        "reasoning off at the server (or its reasoning parser, if that takes answers for reasoning)"
    ),
    CALLS: (
        "the reply is a call of a tool, with no text beside it; none was offered, so take tools away from the model at "
        "the server (or its tool parser, if that takes answers for calls), or ask for an answer in words by --system"
    ),
    NO_WORDS: (
        "the reply is audio or images, with no text beside it; choose a model that answers in text, or set the "
        "server's own defaults to text"
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as read from a reply; what the server did not say is None.

    Attributes:
        text: the answer alone.
        finish_reason: why it ends.
        prompt_tokens: of the prompt.
        completion_tokens: of answer and reasoning, as they are billed.
        logprobs: of the answer's tokens.
        system_fingerprint: of the server's software.
        reasoning: what the model wrote before its answer, where the server sends it.
        reasoning_tokens: how many tokens that took, where the server counts them.
        instead: what the reply holds in place of a text, of `INSTEAD`; None if the text is the answer.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    logprobs: list[dict[str, Any]] | None
    system_fingerprint: str | None
    reasoning: str | None = None
    reasoning_tokens: int | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class _Message:
    """What one choice, or one response, says.

    Attributes:
        text: the answer alone.
        reasoning: what was written before it.
        end: why it ends.
        other: what is there beside text and reasoning, of `INSTEAD`.
    """

    text: str
    reasoning: str | None = None
    end: str | None = None
    other: str | None = None

    def instead(self, reasoning_tokens: int | None) -> str | None:
        """What stands in place of a text."""
        if self.text.strip():
            return None
        return self.other or (REASONING_ALONE if self.reasoning or reasoning_tokens else None)


def read(endpoint: Endpoint, reply: object) -> list[Answer]:
    """Answers in a reply, in its order; choices that failed are left out, unless all did.

    Args:
        endpoint: the one that replied.
        reply: its JSON.

    Raises:
        MalformedAnswerError: if the reply holds no answer that can be read, or says itself that it failed.

    Example:
        >>> reply = {"choices": [{"message": {"content": "<think>A sum.</think>Four."}, "finish_reason": "stop"}]}
        >>> answer = read("chat", reply)[0]
        >>> answer.text, answer.reasoning
        ('Four.', 'A sum.')
    """
    if not isinstance(reply, dict):
        raise MalformedAnswerError(f"the reply is JSON {type(reply).__name__}, not an object")
    if failure := failure_in(reply):
        raise MalformedAnswerError(f"the reply reports a failure: {failure}", reported=True)
    if endpoint == "responses":
        return [_read_response(reply)]
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        reason = reason_of(reply)
        raise MalformedAnswerError(f"the reply has no choices{reason and f': {reason}'}")
    prompt_tokens, completion_tokens = _usage(reply, "prompt_tokens", "completion_tokens")
    counted = _reasoning_tokens(reply, "completion_tokens_details")
    fingerprint = reply.get("system_fingerprint")
    answers, failures = [], []
    for choice in choices:
        try:
            said = _choice(endpoint, choice)
        except MalformedAnswerError as error:
            failures.append(error)
            continue
        logprobs = read_logprobs(choice.get("logprobs"))
        scored = _prompt_logprobs(choice.get("prompt_logprobs"))
        if scored and len(logprobs or []) <= len(scored):  # otherwise the prompt is among them, as with `echo`
            logprobs = scored + (logprobs or [])
        alone = len(choices) == 1
        tokens = completion_tokens if alone else None
        if logprobs is not None and tokens is not None:
            # With the prompt in front, as `echo` asks, its tokens are scored too.
            expected = (tokens, tokens - (counted or 0), tokens + (prompt_tokens or 0))
            whole = min(abs(len(logprobs) - count) for count in expected)
            if whole > 0.1 * tokens + 1:
                logprobs = None  # some servers drop tokens that are not whole UTF-8: what is left is biased
        if said.reasoning is not None:
            logprobs = _of_answer(logprobs, said.text)
        if tokens is None and logprobs is not None:
            tokens = len(logprobs)
        thought = counted if alone else None
        answers.append(
            Answer(
                said.text, said.end, prompt_tokens, tokens, logprobs, fingerprint and str(fingerprint),
                said.reasoning, thought, said.instead(thought),
            )
        )  # fmt: skip
    if not answers:
        raise failures[0]
    return answers


def billed_tokens(endpoint: Endpoint, reply: object) -> tuple[int | None, int | None]:
    """Prompt and completion tokens of the whole call, None where the server does not say or says nonsense.

    Example:
        >>> billed_tokens("chat", {"usage": {"prompt_tokens": 9, "completion_tokens": 3}})
        (9, 3)
        >>> billed_tokens("chat", {"usage": {"prompt_tokens": -1, "completion_tokens": "many"}})
        (None, None)
    """
    names = ("input_tokens", "output_tokens") if endpoint == "responses" else ("prompt_tokens", "completion_tokens")
    return _usage(reply, *names) if isinstance(reply, dict) else (None, None)


def _choice(endpoint: Endpoint, choice: object) -> _Message:
    """What a choice says.

    Raises:
        MalformedAnswerError: if there is no answer, or it failed half way.
    """
    if not isinstance(choice, dict):
        raise MalformedAnswerError("a choice of the reply is not an object")
    end = choice.get("finish_reason")
    end = end.get("type", end) if isinstance(end, dict) else end  # as SGLang's own endpoint says it
    end = usual_end(str(end)) if end else None
    message = choice.get("message") if endpoint == "chat" else choice
    failure = failure_in(choice) or (failure_in(message) if isinstance(message, dict) else "")
    # OpenRouter passes on the provider's own end, too.
    failed_end = next(
        (each for each in (end, choice.get("native_finish_reason")) if is_failed_end(str(each or ""))), None
    )
    if failure or failed_end:
        raise MalformedAnswerError(f"the answer failed half way: {failure or f'its finish_reason is {failed_end}'}")
    if not isinstance(message, dict):
        raise MalformedAnswerError("a choice of the reply has no message")
    content = message.get("content" if endpoint == "chat" else "text")
    beside, thought = _reasoning(message)
    said = _with_reasoning(_content(content), beside)
    said = replace(said, end=said.end or end, other=said.other or (REASONING_ALONE if thought else None))
    if endpoint == "chat" and not said.text.strip():
        said = _elsewhere(message, said)
    if content is None and not said.text and said.reasoning is None and said.other is None:
        if endpoint == "completions":
            raise MalformedAnswerError("a choice of the reply has no text")
        if end is None:
            raise MalformedAnswerError("a choice of the reply has neither text nor a reason for its end")
    return said


def _content(content: object) -> _Message:
    """What a message's content says, whole or in parts."""
    if content is None:
        return _Message("")
    if isinstance(content, str):
        return _Message(content)
    if not isinstance(content, list):
        raise MalformedAnswerError(f"the content of the reply is JSON {type(content).__name__}, not a text")
    texts, reasoning, refusals, other = [], [], [], None
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and (REASONING_PARTS.search(str(kind)) or part.get("thought") is True):
            reasoning.append(_plain(part))
            other = other or REASONING_ALONE  # also where it is encrypted
        elif isinstance(part, dict) and kind in TEXT_PARTS and (text := _value(part.get("text"))) is not None:
            texts.append(text)
        elif isinstance(part, dict) and kind == "refusal":
            refusals.append(_plain(part.get("refusal")))
        elif CALL_PARTS.search(str(kind)):
            other = CALLS
    if content and not texts and not refusals and other is None:
        raise MalformedAnswerError("the parts of the reply's content hold no text")
    before = "\n".join(filter(None, reasoning)) or None
    if refusals and not texts:
        return _Message("".join(refusals), before, "refusal")
    return _Message("".join(texts), before, other=other)


def _with_reasoning(said: _Message, beside: str | None) -> _Message:
    """The message with the reasoning of a field of its own, and that in tags taken out of its text."""
    text, inside = (said.text, said.reasoning) if said.reasoning is not None else without_tags(said.text)
    return replace(said, text=text, reasoning="\n".join(filter(None, (beside, inside))) or None)


def _elsewhere(message: Mapping[str, Any], said: _Message) -> _Message:
    """What a message without text says in its other fields."""
    refusal, audio = message.get("refusal"), message.get("audio")
    if isinstance(refusal, str) and refusal:  # these are the model's words
        return replace(said, text=refusal, end="refusal")
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
        return replace(said, text=audio["transcript"])
    if said.end in CALL_FIELDS or any(message.get(name) for name in CALL_FIELDS):
        return replace(said, other=CALLS)
    return replace(said, other=NO_WORDS) if any(message.get(name) for name in SOUND_AND_IMAGES) else said


def _reasoning(message: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What a message holds beside its content, in the field that the server uses for it; and whether there is any."""
    passed_on = message.get("provider_specific_fields")  # as LiteLLM does
    fields = [each.get(name) for each in (message, passed_on) if isinstance(each, dict) for name in REASONING_FIELDS]
    return next((text for field in fields if (text := _plain(field))), None), any(fields)


def _value(text: object) -> str | None:
    """A part's text, or that of an object that holds it."""
    text = text.get("value") if isinstance(text, dict) else text
    return text if isinstance(text, str) else None


def _plain(value: object) -> str:
    """Text of a field that is a string, or a list of objects with texts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((_plain(value[name]) for name in READABLE if value.get(name)), "")
    return "\n".join(filter(None, map(_plain, value))) if isinstance(value, list) else ""


def _of_answer(logprobs: list[dict[str, Any]] | None, text: str) -> list[dict[str, Any]] | None:
    """The tokens that spell the answer, where reasoning stands before them; None where that is unknown."""
    if not logprobs or not text:
        return None
    spelled = "".join(entry["token"] for entry in logprobs)
    begin = spelled.rfind(text)
    starts = [0, *accumulate(len(entry["token"]) for entry in logprobs)]
    inside = [entry for entry, start in zip(logprobs, starts, strict=False) if begin <= start < begin + len(text)]
    return inside if begin in starts and begin >= 0 else None


def read_logprobs(raw: object) -> list[dict[str, Any]] | None:
    """Token logprobs (natural logarithm) of one answer, chat style or legacy, as `{"token", "logprob", "top"}`.

    A logprob of -9999 means that the server does not know it: None. None is returned when there are none at all.

    Example:
        >>> read_logprobs({"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]})
        [{'token': 'a', 'logprob': -0.5, 'top': {}}]
    """
    if isinstance(raw, dict) and isinstance(raw.get("content"), list):
        raw = raw["content"]
    if isinstance(raw, list):
        entries = [_entry(item) for item in raw if isinstance(item, dict)]
    elif isinstance(raw, dict) and isinstance(raw.get("tokens"), list):
        values, tops = _list(raw.get("token_logprobs")), _list(raw.get("top_logprobs"))
        entries = []
        for place, token in enumerate(raw["tokens"]):
            top = tops[place] if place < len(tops) and isinstance(tops[place], dict) else {}
            value = values[place] if place < len(values) else None
            known = {str(other): _logprob(its) for other, its in top.items()}
            entries.append({"token": str(token), "logprob": _logprob(value), "top": _present(known)})
    else:
        return None
    return entries if any(entry["logprob"] is not None for entry in entries) else None


def _prompt_logprobs(raw: object) -> list[dict[str, Any]]:
    """Token logprobs of the prompt as vLLM's own field has them, by token id, the prompt's own token first.

    Nothing is known of the first token, not even its text, so it is left out.
    """
    entries = []
    for place in _list(raw):
        if isinstance(place, dict) and place:
            pairs = [
                (str(pair.get("decoded_token")), _logprob(pair.get("logprob")))
                for pair in place.values()
                if isinstance(pair, dict)
            ]
            if pairs:
                token, logprob = pairs[0]
                entries.append({"token": token, "logprob": logprob, "top": _present(dict(pairs))})
    return entries


def _entry(item: Mapping[str, Any]) -> dict[str, Any]:
    others = item.get("top_logprobs")
    top = {_token(pair): _logprob(pair.get("logprob")) for pair in _list(others) if isinstance(pair, dict)}
    return {"token": _token(item), "logprob": _logprob(item.get("logprob")), "top": _present(top)}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _token(item: Mapping[str, Any]) -> str:
    """Text of a token; the bytes in hexadecimal where it is a part of a character, so that two stay apart."""
    text = str(item.get("token", ""))
    if "\ufffd" in text and isinstance(item.get("bytes"), list):
        return "bytes:" + bytes(byte & 255 for byte in item["bytes"] if isinstance(byte, int)).hex()
    return text


def _logprob(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if ABSENT_LOGPROB < value <= 1e-3 else None


def _present(top: Mapping[str, float | None]) -> dict[str, float]:
    return {token: value for token, value in top.items() if value is not None}


def _read_response(reply: Mapping[str, Any]) -> Answer:
    status = str(reply.get("status") or "completed").lower()
    if status not in WHOLE_STATUS:
        raise MalformedAnswerError(f"the answer failed half way: its status is {status}")
    output = reply.get("output")
    if not isinstance(output, list) or not output:
        raise MalformedAnswerError("the reply has no output")
    items = [item for item in output if isinstance(item, dict)]
    for item in items:
        if failure := failure_in(item):
            raise MalformedAnswerError(f"the answer failed half way: {failure}")
    parts = [
        part
        for item in items
        if item.get("type") == "message"
        for part in _list(item.get("content"))
        if isinstance(part, dict)
    ]
    beside = "\n".join(filter(None, (_reasoning_item(item) for item in items if item.get("type") == "reasoning")))
    texts = [part for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    refusals = [_plain(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    spoken = [_plain(part.get("transcript")) for part in parts if part.get("type") == "output_audio"]
    called = any(CALL_PARTS.search(str(item.get("type"))) for item in items)
    counted = _reasoning_tokens(reply, "output_tokens_details")
    end = "stop"
    if status == "incomplete":
        details = reply.get("incomplete_details")
        end = str(details.get("reason", "incomplete")) if isinstance(details, dict) else "incomplete"
        end = usual_end(end)
        if is_failed_end(end):
            raise MalformedAnswerError(f"the answer failed half way: it is incomplete because of {end}")
    elif not (texts or refusals or spoken or called or beside or counted):
        raise MalformedAnswerError("the reply holds no message")
    written = "".join(part["text"] for part in texts)
    said = _with_reasoning(_Message(written, end=end, other=CALLS if called else None), beside)
    if not said.text.strip() and any(refusals):
        said = replace(said, text="".join(refusals), end="refusal")
    elif not said.text.strip() and spoken:
        said = replace(said, text="".join(spoken), other=said.other or NO_WORDS)
    raw = [entry for part in texts for entry in _list(part.get("logprobs"))]
    logprobs = read_logprobs(raw) if raw else None
    if said.text != written:
        logprobs = _of_answer(logprobs, said.text)
    tokens = _usage(reply, "input_tokens", "output_tokens")
    return Answer(said.text, said.end, *tokens, logprobs, None, said.reasoning, counted, said.instead(counted))


def _reasoning_item(item: Mapping[str, Any]) -> str:
    return _plain(item.get("content")) or _plain(item.get("summary"))


def _usage(reply: Mapping[str, Any], prompt: str, completion: str) -> tuple[int | None, int | None]:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None, None
    asked, given, total = usage.get(prompt), usage.get(completion), usage.get("total_tokens")
    if not is_count(asked) or not is_count(given):
        return None, None
    if isinstance(total, int) and total < asked + given:
        return None, None
    return asked, given


def _reasoning_tokens(reply: Mapping[str, Any], name: str) -> int | None:
    usage = reply.get("usage")
    details = usage.get(name) if isinstance(usage, dict) else None
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return count if is_count(count) else None


def is_count(value: object) -> TypeGuard[int]:
    """Whether a number of tokens can be believed, and fits a table.

    Example:
        >>> is_count(12), is_count(-1), is_count(True)
        (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
