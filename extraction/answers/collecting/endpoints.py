"""The three OpenAI-style endpoints: what a request looks like, and how to read what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard, get_args

from estimators.base import EmergenceError, InputError

Endpoint = Literal["chat", "completions", "responses"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
PATHS: Mapping[Endpoint, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
}
MOST_TOKENS = 10**9  # of one call; what claims more is no count
ABSENT_LOGPROB = -9999.0  # what the API writes for a token outside its top list


class MalformedAnswerError(EmergenceError):
    """A reply with HTTP 200 that is no answer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What determines an answer beside model, endpoint and prompt; part of the key it is stored under.

    Attributes:
        max_tokens: longest answer, in the server's tokens.
        temperature: of the sampling; None leaves it to the server.
        seed: from which each answer's own seed is derived; sent where the server has seeds.
        system: system prompt, for the endpoints that have one.
        stop: texts at which the answer ends.
        logprobs: alternatives per token to ask for, where the server gives any.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> Sampling(max_tokens=256, stop=(",",)).temperature
        1.0
    """

    max_tokens: int = 64
    temperature: float | None = 1.0
    seed: int = 0
    system: str | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 5

    def __post_init__(self) -> None:
        """Refuse numbers that no server takes."""
        if not isinstance(self.max_tokens, int) or not 1 <= self.max_tokens <= MOST_TOKENS:
            raise InputError(f"max_tokens is a whole number from 1 to {MOST_TOKENS}; got {self.max_tokens}.")
        if self.temperature is not None and not 0 <= self.temperature <= 2:  # NaN fails as well
            raise InputError(f"temperature lies between 0 and 2; got {self.temperature}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is a whole number from 0 to 2**63 - 1; got {self.seed}.")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server does for one model at one endpoint, as found by the probe.

    Attributes:
        endpoint: the endpoint that answers.
        logprobs: tokens whose logprob comes back at each place, 1 if only that of the chosen one does; 0 where the
            field is ignored or rejected.
        several: whether `n` answers can be had from one call.
        seed: whether equal seeds give equal answers; None where answers never vary, so that it cannot be told.
        stop: whether stop texts are obeyed; None where this was not tried.
        system: whether a system prompt reaches the model; None where this was not tried.
        sampled: whether answers vary at the temperature asked for.
        rejected: request fields that the server refuses, such as ``temperature`` of reasoning models.
        extra: further request fields without which the server would not sample.
    """

    endpoint: Endpoint
    logprobs: int = 0
    several: bool = False
    seed: bool | None = False
    stop: bool | None = None
    system: bool | None = None
    sampled: bool = True
    rejected: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as read from a reply; what the server did not say is None."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    logprobs: list[dict[str, Any]] | None
    system_fingerprint: str | None


def request(
    model: str, prompt: str, sampling: Sampling, capabilities: Capabilities, *, seed: int | None = None, n: int = 1
) -> dict[str, Any]:
    """Body of the request for `n` answers to `prompt`, with no field that the server rejects."""
    asked = sampling.logprobs and capabilities.logprobs
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature, "stream": False}
    if capabilities.endpoint == "responses":
        body |= {"input": prompt, "max_output_tokens": sampling.max_tokens, "instructions": sampling.system}
        if asked:
            body |= {"top_logprobs": sampling.logprobs, "include": ["message.output_text.logprobs"]}
    else:
        limit = "max_completion_tokens" if "max_tokens" in capabilities.rejected else "max_tokens"
        body |= {limit: sampling.max_tokens, "seed": seed, "stop": list(sampling.stop) or None}
        body["n"] = n if n > 1 else None
        if capabilities.endpoint == "chat":
            system = [{"role": "system", "content": sampling.system}] if sampling.system else []
            body["messages"] = [*system, {"role": "user", "content": prompt}]
            if asked:
                body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        else:
            body["prompt"] = prompt
            if asked:
                body["logprobs"] = sampling.logprobs
    body |= capabilities.extra
    return {name: value for name, value in body.items() if value is not None and name not in capabilities.rejected}


def read(endpoint: Endpoint, reply: object) -> list[Answer]:
    """Answers in a reply, in its order.

    Raises:
        MalformedAnswerError: if the reply holds no answer that can be read.
    """
    if not isinstance(reply, dict):
        raise MalformedAnswerError(f"the reply is JSON {type(reply).__name__}, not an object")
    if endpoint == "responses":
        return [_read_response(reply)]
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        error = reply.get("error")
        raise MalformedAnswerError(f"the reply says {_short(error)}" if error else "the reply has no choices")
    prompt_tokens, completion_tokens = _usage(reply, "prompt_tokens", "completion_tokens")
    answers = []
    for choice in choices:
        if not isinstance(choice, dict):
            raise MalformedAnswerError("a choice of the reply is no object")
        text, reason = _chat_text(choice) if endpoint == "chat" else _completion_text(choice)
        logprobs = read_logprobs(choice.get("logprobs"))
        tokens = completion_tokens if len(choices) == 1 else None
        if logprobs is not None and tokens is not None and abs(len(logprobs) - tokens) > 0.1 * tokens + 1:
            logprobs = None  # some servers drop tokens that are not whole UTF-8: what is left is biased
        if tokens is None and logprobs is not None:
            tokens = len(logprobs)
        fingerprint = reply.get("system_fingerprint")
        answers.append(Answer(text, reason, prompt_tokens, tokens, logprobs, fingerprint and str(fingerprint)))
    return answers


def billed_tokens(endpoint: Endpoint, reply: object) -> tuple[int | None, int | None]:
    """Prompt and completion tokens of the whole call, None where the server does not say or says nonsense."""
    names = ("input_tokens", "output_tokens") if endpoint == "responses" else ("prompt_tokens", "completion_tokens")
    return _usage(reply, *names) if isinstance(reply, dict) else (None, None)


def read_logprobs(raw: object) -> list[dict[str, Any]] | None:
    """Token logprobs (natural logarithm) of one answer, chat style or legacy, as `{"token", "logprob", "top"}`.

    A logprob of -9999 means that the server does not know it: None. None is returned when there are none at all.
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


def _chat_text(choice: Mapping[str, Any]) -> tuple[str, str | None]:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedAnswerError("a choice of the reply has no message")
    reason = choice.get("finish_reason")
    text = message.get("content")
    if text is None and message.get("refusal"):
        return str(message["refusal"]), "refusal"
    if isinstance(text, list):  # content parts, as some servers send them
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if text is None and reason is None:
        raise MalformedAnswerError("a choice of the reply has neither text nor a reason for its end")
    return str(text or ""), reason and str(reason)


def _completion_text(choice: Mapping[str, Any]) -> tuple[str, str | None]:
    text = choice.get("text")
    if not isinstance(text, str):
        raise MalformedAnswerError("a choice of the reply has no text")
    reason = choice.get("finish_reason")
    return text, reason and str(reason)


def _read_response(reply: Mapping[str, Any]) -> Answer:
    if reply.get("error"):
        raise MalformedAnswerError(f"the reply says {_short(reply['error'])}")
    output = reply.get("output")
    if not isinstance(output, list) or not output:
        raise MalformedAnswerError("the reply has no output")
    parts = [
        part
        for item in output
        if isinstance(item, dict) and item.get("type") == "message"
        for part in _list(item.get("content"))
        if isinstance(part, dict)
    ]
    texts = [part for part in parts if part.get("type") == "output_text"]
    refusals = [part for part in parts if part.get("type") == "refusal"]
    reason = "stop"
    if reply.get("status") == "incomplete":
        details = reply.get("incomplete_details")
        reason = str(details.get("reason", "incomplete")) if isinstance(details, dict) else "incomplete"
        reason = {"max_output_tokens": "length"}.get(reason, reason)
    elif not texts and not refusals:
        raise MalformedAnswerError("the reply holds no message")
    text = "".join(str(part.get("text", "")) for part in texts)
    if refusals and not texts:
        text, reason = str(refusals[0].get("refusal", "")), "refusal"
    raw = [entry for part in texts for entry in _list(part.get("logprobs"))]
    tokens = _usage(reply, "input_tokens", "output_tokens")
    return Answer(text, reason, *tokens, read_logprobs(raw) if raw else None, None)


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


def is_count(value: object) -> TypeGuard[int]:
    """Whether a number of tokens can be believed, and fits a table."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _short(error: object) -> str:
    if isinstance(error, dict) and "message" in error:
        error = error["message"]
    return str(error)  # whole: whoever shows it must first take the key out, then cut
