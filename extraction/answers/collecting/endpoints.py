"""The three OpenAI-style endpoints: what determines an answer, what a server can do, and the request from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from extraction.answers.conversations import messages_of, prompt_text
from extraction.answers.sampling import Sampling

Endpoint = Literal["chat", "completions", "responses"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
PATHS: Mapping[Endpoint, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
}
PROMPT_LOGPROBS = "prompt_logprobs"  # a field of vLLM's own
SCORING = ("echo", PROMPT_LOGPROBS)  # fields with which completions score their prompt, in the order they are tried
WHOLE: Mapping[str, float] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}  # no token is left out of the sampling


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server does for one model at one endpoint, as found by the probe.

    Attributes:
        endpoint: the endpoint that answers.
        logprobs: tokens whose logprob comes back at each place, 1 if only that of the chosen one does; 0 where the
            field is ignored or rejected.
        several: whether `n` answers can be had from one call; False also where this was not tried.
        seed: whether equal seeds give equal answers; None where answers never vary, so that it is unknown.
        stop: whether stop texts are obeyed; None where this was not tried.
        system: whether a system prompt reaches the model; None where this was not tried.
        sampled: whether answers vary at the temperature asked for.
        rejected: request fields that the server refuses, such as ``temperature`` of reasoning models.
        extra: further request fields without which the server would not sample.
        path: of the base URL at which it answers, such as ``/v1``, where that is not the one given; else None.
        scores: request field, of `SCORING`, with which it scores the prompt token by token; None: it does not, or this
            was not tried.
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
    path: str | None = None
    scores: str | None = None


def request(
    model: str, prompt: str, sampling: Sampling, capabilities: Capabilities, *, seed: int | None = None, n: int = 1
) -> dict[str, Any]:
    """Body of the request for `n` answers to `prompt`, with no field that the server rejects.

    A prompt that is a conversation goes as its messages, or where the endpoint takes none, as their text.

    Example:
        >>> request("m", "Name a river.", Sampling(max_tokens=9, logprobs=0), Capabilities("completions"), seed=1)
        {'model': 'm', 'temperature': 1.0, 'stream': False, 'max_tokens': 9, 'seed': 1, 'prompt': 'Name a river.'}
    """
    asked = sampling.logprobs and capabilities.logprobs
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature, "stream": False}
    if capabilities.endpoint == "responses":
        body |= {
            "input": messages_of(prompt) or prompt,
            "max_output_tokens": sampling.max_tokens,
            "instructions": sampling.system,
        }
        if asked:
            body |= {"top_logprobs": sampling.logprobs, "include": ["message.output_text.logprobs"]}
    else:
        limit = "max_completion_tokens" if "max_tokens" in capabilities.rejected else "max_tokens"
        body |= {limit: sampling.max_tokens, "seed": seed, "stop": list(sampling.stop) or None}
        body["n"] = n if n > 1 else None
        if capabilities.endpoint == "chat":
            system = [{"role": "system", "content": sampling.system}] if sampling.system else []
            body["messages"] = [*system, *(messages_of(prompt) or [{"role": "user", "content": prompt}])]
            if asked:
                body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        else:
            body["prompt"] = prompt_text(prompt)
            if asked:
                body["logprobs"] = sampling.logprobs
            if asked and sampling.echo and capabilities.scores:
                body[capabilities.scores] = sampling.logprobs if capabilities.scores == PROMPT_LOGPROBS else True
    if sampling.whole:
        body |= WHOLE
    body |= capabilities.extra
    return {name: value for name, value in body.items() if value is not None and name not in capabilities.rejected}
