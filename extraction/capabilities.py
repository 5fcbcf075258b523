"""What a server really does, found out by asking: HTTP 200 proves nothing, only the fields that come back do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from estimators.base import EmergenceError, InputError
from extraction.api import Api, BrokenError, BusyError, RefusedError
from extraction.endpoints import (
    ENDPOINTS,
    Answer,
    Capabilities,
    Endpoint,
    MalformedAnswerError,
    Settings,
    billed_tokens,
    read,
    request,
)

PROBE = "It was a dark and stormy night, and"
LETTER = "e"  # hardly any text of a dozen tokens does without it
OPTIONAL = ("temperature", "seed", "n", "stop", "logprobs", "top_logprobs", "include", "max_tokens")


async def probe(api: Api, model: str, endpoint: Endpoint | None, settings: Settings) -> Capabilities:
    """Ask a few short questions and see which request fields have an effect.

    Args:
        api: the server.
        model: name of the model there.
        endpoint: the one to use; None tries chat, completions and responses in turn.
        settings: of the answers that will be asked for.

    Raises:
        InputError: if the server cannot be reached, or no endpoint answers.
    """
    small = replace(settings, max_tokens=16, stop=(), system=None)
    refusals = []
    for candidate in [endpoint] if endpoint else ENDPOINTS:
        try:
            return await _probe_endpoint(api, model, candidate, small)
        except BrokenError as error:
            if not error.reached:
                raise InputError(
                    f"No server answers at {api.base_url}: {error}. Check that it runs and the URL is right."
                ) from None
            refusals.append(f"{candidate}: {error}")
        except BusyError as error:
            raise EmergenceError(f"{api.base_url} takes no requests now ({error}); try again later.") from None
        except (RefusedError, MalformedAnswerError) as error:
            refusals.append(f"{candidate}: {error}")
    hint = " A base model has no chat template: try --endpoint completions." if endpoint == "chat" else ""
    raise InputError(
        f"{api.base_url} does not answer for the model {model} ({'; '.join(refusals)}). "
        f"Check the model's name and that the URL ends as the server wants (often /v1).{hint}"
    )


async def _probe_endpoint(api: Api, model: str, endpoint: Endpoint, small: Settings) -> Capabilities:
    able = Capabilities(endpoint, logprobs=small.logprobs, several=True, seed=True)
    able, first, _ = await _ask(api, model, small, able, n=2)
    able = replace(
        able,
        several=len(first) == 2,
        logprobs=max((len(entry["top"]) for entry in first[0].logprobs or []), default=0),
        seed="seed" not in able.rejected and endpoint != "responses",
    )
    able, first, usage = await _ask(api, model, small, able, seed=1)
    able = await _sampling(api, model, small, able, first[0])
    if endpoint != "responses":
        able, stopped, _ = await _ask(api, model, replace(small, stop=(LETTER,)), able, seed=1)
        obeyed = "stop" not in able.rejected and LETTER not in stopped[0].text
        able = replace(able, stop=obeyed if LETTER in first[0].text else None)
    if endpoint != "completions":
        try:
            _, _, more = await _ask(api, model, replace(small, system="Answer in a friendly manner."), able, seed=1)
            able = replace(able, system=more > usage if more and usage else None)
        except (RefusedError, BrokenError, MalformedAnswerError):
            able = replace(able, system=False)
    return able


async def _sampling(api: Api, model: str, small: Settings, able: Capabilities, first: Answer) -> Capabilities:
    """Whether answers vary, and whether the seed governs them."""
    if not small.temperature:
        return replace(able, sampled=False)
    ways: list[Mapping[str, Any]] = [{}]
    if not able.rejected:
        # `transformers serve` decodes greedily whatever the temperature, unless told so in its own field.
        ways.append({"generation_config": json.dumps({"do_sample": True, "top_k": 0, "top_p": 1.0})})
    for extra in ways:
        trial = replace(able, extra=extra)
        try:
            if extra:
                _, answers, _ = await _ask(api, model, small, trial, seed=1)
                first = answers[0]
            _, again, _ = await _ask(api, model, small, trial, seed=1)
            _, other, _ = await _ask(api, model, small, trial, seed=2)
        except (RefusedError, BrokenError, MalformedAnswerError):
            if not extra:
                raise
            continue
        texts = first.text, again[0].text, other[0].text
        if len(set(texts)) > 1:
            return replace(trial, sampled=True, seed=able.seed and texts[0] == texts[1])
    return replace(able, sampled=False)


async def _ask(
    api: Api, model: str, settings: Settings, able: Capabilities, *, seed: int = 1, n: int = 1
) -> tuple[Capabilities, list[Answer], int | None]:
    """One call, repeated without the optional fields that the server says it rejects."""
    while True:
        body = request(model, PROBE, settings, able, seed=seed if able.seed else None, n=n if able.several else 1)
        try:
            reply, _ = await api.call(able.endpoint, body)
        except RefusedError as error:
            culprit = _culprit(error, body)
            if culprit is None:
                raise
            able = replace(able, rejected=(*able.rejected, culprit))
            if culprit in ("logprobs", "top_logprobs", "include"):
                able = replace(able, logprobs=0)
            continue
        return able, read(able.endpoint, reply), billed_tokens(able.endpoint, reply)[0]


def _culprit(error: RefusedError, body: Mapping[str, Any]) -> str | None:
    """The optional field that the refusal names, if any."""
    if error.status == 404:
        return None
    if error.param in body and error.param in OPTIONAL:
        return error.param
    return next((name for name in OPTIONAL if name in body and re.search(f"[\"'`]{name}[\"'`]", str(error))), None)
