"""What a server really does, found out by asking: HTTP 200 proves nothing, only the fields that come back do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.api import Api, BrokenError, BusyError, RefusedError
from extraction.answers.collecting.endpoints import (
    Answer,
    Capabilities,
    Endpoint,
    MalformedAnswerError,
    Sampling,
    billed_tokens,
    request,
)
from extraction.answers.collecting.pace import Budget, delay, prompt_tokens_upper

PROBE = "It was a dark and stormy night, and"
FRIENDLY = "Answer in a friendly manner."
TOKENS = 16  # of an answer to a question
QUESTIONS = 9  # at most, where the server rejects nothing
ATTEMPTS = 3  # at each
LONGEST_WAIT_S = 30.0  # for a server that is busy
LETTER = "e"  # hardly any text of a dozen tokens does without it
OPTIONAL = ("temperature", "seed", "n", "stop", "logprobs", "top_logprobs", "include", "max_tokens")


async def probe(
    api: Api, model: str, endpoints: Sequence[Endpoint], sampling: Sampling, budget: Budget
) -> Capabilities:
    """Ask a few short questions and see which request fields have an effect.

    Args:
        api: the server.
        model: name of the model there.
        endpoints: those to try, in this order.
        sampling: of the answers that will be asked for.
        budget: the questions are paid from it.

    Raises:
        InputError: if the server cannot be reached, or no endpoint answers.
        BudgetSpentError: if the budget does not allow for the questions.
    """
    small = replace(sampling, max_tokens=TOKENS, stop=(), system=None)
    refusals = []
    for candidate in endpoints:
        try:
            return await _Probe(api, model, budget).endpoint(candidate, small)
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
    hint = " A base model has no chat template: try --endpoint completions." if [*endpoints] == ["chat"] else ""
    raise InputError(
        f"{api.base_url} does not answer for the model {model} ({'; '.join(refusals)}). "
        f"Check the model's name and that the URL ends as the server wants (often /v1).{hint}"
    )


def most_tokens() -> tuple[int, int]:
    """Prompt and answer tokens that a probe costs at most, where the server rejects nothing."""
    return QUESTIONS * prompt_tokens_upper(PROBE + FRIENDLY), (QUESTIONS + 1) * TOKENS


class _Probe:
    """The questions to one endpoint."""

    def __init__(self, api: Api, model: str, budget: Budget) -> None:
        self.api, self.model, self.budget = api, model, budget

    async def endpoint(self, endpoint: Endpoint, small: Sampling) -> Capabilities:
        capabilities = Capabilities(endpoint, logprobs=small.logprobs, several=True, seed=True)
        capabilities, first, _ = await self._ask(small, capabilities, n=2)
        capabilities = replace(
            capabilities,
            several=len(first) == 2,
            # The chosen token's own logprob is worth asking for, also where no alternatives come with it.
            logprobs=max((max(1, len(entry["top"])) for entry in first[0].logprobs or []), default=0),
            seed="seed" not in capabilities.rejected and endpoint != "responses",
        )
        capabilities, first, usage = await self._ask(small, capabilities, seed=1)
        capabilities = await self._sampling(small, capabilities, first[0])
        if endpoint != "responses":
            capabilities, stopped, _ = await self._ask(replace(small, stop=(LETTER,)), capabilities, seed=1)
            obeyed = "stop" not in capabilities.rejected and LETTER not in stopped[0].text
            capabilities = replace(capabilities, stop=obeyed if LETTER in first[0].text else None)
        if endpoint != "completions":
            try:
                _, _, more = await self._ask(replace(small, system=FRIENDLY), capabilities, seed=1)
                capabilities = replace(capabilities, system=more > usage if more and usage else None)
            except (RefusedError, BrokenError, MalformedAnswerError):
                capabilities = replace(capabilities, system=False)
        return capabilities

    async def _sampling(self, small: Sampling, capabilities: Capabilities, first: Answer) -> Capabilities:
        """Whether answers vary, and whether the seed governs them."""
        if not small.temperature:
            return replace(
                capabilities, sampled=False, seed=capabilities.seed and None
            )  # answers that never vary tell nothing of seeds
        ways: list[Mapping[str, Any]] = [{}]
        if not capabilities.rejected:
            # `transformers serve` decodes greedily whatever the temperature, unless told so in its own field.
            ways.append({"generation_config": json.dumps({"do_sample": True, "top_k": 0, "top_p": 1.0})})
        for extra in ways:
            trial = replace(capabilities, extra=extra)
            try:
                if extra:
                    _, answers, _ = await self._ask(small, trial, seed=1)
                    first = answers[0]
                _, again, _ = await self._ask(small, trial, seed=1)
                _, other, _ = await self._ask(small, trial, seed=2)
            except (RefusedError, BrokenError, MalformedAnswerError):
                if not extra:
                    raise
                continue
            texts = first.text, again[0].text, other[0].text
            if len(set(texts)) > 1:
                return replace(trial, sampled=True, seed=capabilities.seed and texts[0] == texts[1])
        return replace(capabilities, sampled=False, seed=capabilities.seed and None)

    async def _ask(
        self, sampling: Sampling, capabilities: Capabilities, *, seed: int = 1, n: int = 1
    ) -> tuple[Capabilities, list[Answer], int | None]:
        """One call, repeated without the optional fields that the server says it rejects."""
        while True:
            body = request(
                self.model,
                PROBE,
                sampling,
                capabilities,
                seed=None if capabilities.seed is False else seed,
                n=n if capabilities.several else 1,
            )
            try:
                reply = await self._call(capabilities.endpoint, body, sampling)
            except RefusedError as error:
                culprit = _culprit(error, body)
                if culprit is None:
                    raise
                capabilities = replace(capabilities, rejected=(*capabilities.rejected, culprit))
                if culprit in ("logprobs", "top_logprobs", "include"):
                    capabilities = replace(capabilities, logprobs=0)
                continue
            return (
                capabilities,
                self.api.read(capabilities.endpoint, reply),
                billed_tokens(capabilities.endpoint, reply)[0],
            )

    async def _call(self, endpoint: Endpoint, body: Mapping[str, Any], sampling: Sampling) -> object:
        """One call within the budget, tried again after a fault that may pass."""
        held = prompt_tokens_upper(PROBE + (sampling.system or "")), TOKENS * int(body.get("n", 1))
        for attempt in range(ATTEMPTS):
            self.budget.hold(*held)
            billed: tuple[int | None, int | None] = (0, 0)
            try:
                reply, _ = await self.api.call(endpoint, body)
                billed = billed_tokens(endpoint, reply)
                return reply
            except BrokenError as error:
                billed = (None, None) if error.maybe_billed else billed
                if not error.reached or attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(delay(attempt))
            except BusyError as error:
                wait = delay(attempt) if error.wait_s is None else error.wait_s
                if wait > LONGEST_WAIT_S or attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(wait)
            finally:
                self.budget.settle(held, billed)
        raise AssertionError("unreachable")


def _culprit(error: RefusedError, body: Mapping[str, Any]) -> str | None:
    """The optional field that the refusal names, if any."""
    if error.status == 404:
        return None
    if error.param in body and error.param in OPTIONAL:
        return error.param
    return next((name for name in OPTIONAL if name in body and re.search(f"[\"'`]{name}[\"'`]", str(error))), None)
