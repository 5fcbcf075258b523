"""What a server supports, found by test requests: HTTP 200 proves nothing, only the fields of the reply do."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.api import Api
from extraction.answers.collecting.budget import Budget, prompt_tokens_upper
from extraction.answers.collecting.endpoints import SCORING, WHOLE, Capabilities, Endpoint, request
from extraction.answers.collecting.faults import BrokenError, BusyError, MalformedAnswerError, RefusedError
from extraction.answers.collecting.pace import delay
from extraction.answers.collecting.replies import Answer, billed_tokens
from extraction.answers.sampling import Sampling

PROBE = "It was a dark and stormy night, and"
HALF = PROBE[len(PROBE) // 2 :]  # of the first token a server that scores may say nothing
FRIENDLY = "Answer in a friendly manner."
TOKENS = 16  # of an answer to a question
QUESTIONS = 9  # at most, where the server rejects nothing
ATTEMPTS = 5  # at each: a server that fails every fourth call is found out all the same
FIRST_WAIT_S = 30.0  # for the first reply, such as of a model that is still loaded; all of the time on the last attempt
NEXT_WAIT_S = 10.0  # for later ones at least, and 10 times the slowest before
LONGEST_WAIT_S = 30.0  # for a server that is busy
LETTER = "e"  # hardly any text of a dozen tokens does without it
FAULTS = (RefusedError, BrokenError, MalformedAnswerError)
SEEDS = (2**28 - 1, 2**28 - 2)  # the largest that a run sends: a server may have a limit
# Fields that an answer can do without, in the order in which they are tried. Without `max_tokens` a request has
# `max_completion_tokens`, as newer models want it: the length of an answer is never left to the server.
OPTIONAL = ("temperature", "seed", "n", "stop", "logprobs", "include", "top_logprobs", *WHOLE, "max_tokens")


async def probe(
    api: Api, model: str, endpoints: Sequence[Endpoint], sampling: Sampling, budget: Budget, *, several: bool = False
) -> Capabilities:
    """Send a few short requests to see which request fields have an effect.

    Where no endpoint is found at the path given, the same is tried with ``/v1`` added, or without.

    Args:
        api: the server.
        model: name of the model there.
        endpoints: those to try, in this order.
        sampling: of the answers that will be asked for; only the fields that it needs are tried.
        budget: the questions are paid from it.
        several: whether several answers to one prompt will be asked for.

    Raises:
        InputError: if the server cannot be reached, or no endpoint answers.
        BudgetSpentError: if the budget does not allow for the questions.
    """
    refusals: list[str] = []
    given, other = api.paths()
    for path in (given, other):
        api.go_to(path)
        absent = True
        for candidate in endpoints:
            try:
                found = await _Probe(api, model, budget).endpoint(candidate, sampling, several=several)
                return replace(found, path=None if path == given else path)
            except BrokenError as error:
                if not error.reached:
                    hint = "Raise --timeout if its replies take longer" if error.late else "Check that it runs"
                    raise InputError(
                        f"No server answers at {api.shown}: {error}. {hint} and the URL is right."
                    ) from None
                absent = absent and "not valid JSON" in str(error)  # a page for people
                reason = str(error)
            except BusyError as error:
                raise EmergenceError(f"{api.shown} accepts no requests now ({error}); try again later.") from None
            except InputError as error:  # the key, or what it may ask
                if path == given:
                    raise
                reason = str(error)
            except RefusedError as error:
                absent = absent and error.status in (404, 405)
                reason = str(error)
            except MalformedAnswerError as error:  # as llama.cpp's server replies in a form of its own without /v1
                absent = absent and not error.reported
                reason = str(error)
            if path == given:
                refusals.append(f"{candidate}: {reason}")
        if not absent:
            break
    api.go_to(given)
    hint = " A base model has no chat template: try --endpoint completions." if [*endpoints] == ["chat"] else ""
    raise InputError(
        f"{api.shown} does not answer for the model {model} ({'; '.join(refusals)}). "
        f"Check the model's name and that the URL ends as the server wants (often /v1).{hint}"
    )


def most_tokens() -> tuple[int, int]:
    """Prompt and answer tokens that a probe costs at most, where the server rejects nothing.

    Example:
        >>> most_tokens()[1]
        160
    """
    return QUESTIONS * prompt_tokens_upper(PROBE + FRIENDLY), (QUESTIONS + 1) * TOKENS


class _Probe:
    """The questions to one endpoint."""

    def __init__(self, api: Api, model: str, budget: Budget) -> None:
        self.api, self.model, self.budget = api, model, budget
        self.slowest_s: float | None = None  # reply so far

    async def endpoint(self, endpoint: Endpoint, sampling: Sampling, *, several: bool) -> Capabilities:
        small = replace(sampling, max_tokens=TOKENS, stop=(), system=None)
        capabilities = Capabilities(endpoint, logprobs=small.logprobs, seed=endpoint != "responses")
        capabilities, first, usage = await self._ask(small, capabilities)
        capabilities = replace(
            capabilities,
            # The chosen token's own logprob is worth asking for, also where no alternatives come with it.
            logprobs=max((max(1, len(entry["top"])) for entry in first[0].logprobs or []), default=0),
            seed="seed" not in capabilities.rejected and endpoint != "responses",
        )
        if sampling.echo:  # what the prompt's tokens score does not depend on the sampling
            return await self._scoring(small, capabilities) if endpoint == "completions" else capabilities
        capabilities = await self._sampling(small, capabilities, first[0])
        if several and endpoint != "responses":
            capabilities, both, _ = await self._ask(small, replace(capabilities, several=True), n=2)
            capabilities = replace(capabilities, several=len(both) == 2)
        if sampling.stop and endpoint != "responses":
            capabilities, stopped, _ = await self._ask(replace(small, stop=(LETTER,)), capabilities)
            obeyed = "stop" not in capabilities.rejected and LETTER not in _spoken(stopped[0])
            capabilities = replace(capabilities, stop=obeyed if LETTER in _spoken(first[0]) else None)
        if sampling.system and endpoint != "completions":
            try:
                _, _, more = await self._ask(replace(small, system=FRIENDLY), capabilities)
                capabilities = replace(capabilities, system=more > usage if more and usage else None)
            except FAULTS:
                capabilities = replace(capabilities, system=False)
        return capabilities

    async def _scoring(self, small: Sampling, capabilities: Capabilities) -> Capabilities:
        """With which field the server scores the prompt, and how many alternatives it then shows at each place."""
        for name in SCORING if capabilities.logprobs else ():
            trial = replace(capabilities, scores=name)
            try:
                answers, _ = await self._answers(replace(small, max_tokens=1), trial, 1, 1)
            except FAULTS:
                continue
            entries = [entry for entry in answers[0].logprobs or [] if entry["logprob"] is not None]
            spelled = "".join(entry["token"] for entry in entries)
            if HALF in spelled:
                shown = (max(1, len(entry["top"])) for entry in entries[:-1])  # the last token is the answer
                return replace(trial, logprobs=min(shown, default=1))
        return capabilities

    async def _sampling(self, small: Sampling, capabilities: Capabilities, first: Answer) -> Capabilities:
        """Whether answers vary, and whether the seed governs them."""
        if not small.temperature:
            return replace(
                capabilities, sampled=False, seed=capabilities.seed and None
            )  # answers that never vary say nothing of seeds
        ways: list[Mapping[str, Any]] = [{}]
        if not set(capabilities.rejected) - set(WHOLE):
            # `transformers serve` decodes greedily whatever the temperature, unless its own field says otherwise.
            ways.append({"generation_config": json.dumps({"do_sample": True, "top_k": 0, "top_p": 1.0})})
        for extra in ways:
            trial = replace(capabilities, extra=extra)
            try:
                if extra:
                    _, answers, _ = await self._ask(small, trial, seed=SEEDS[0])
                    first = answers[0]
                _, again, _ = await self._ask(small, trial, seed=SEEDS[0])
                _, other, _ = await self._ask(small, trial, seed=SEEDS[1])
            except FAULTS:
                if not extra:
                    raise
                continue
            texts = _spoken(first), _spoken(again[0]), _spoken(other[0])
            if len(set(texts)) > 1:
                return replace(trial, sampled=True, seed=capabilities.seed and texts[0] == texts[1])
        return replace(capabilities, sampled=False, seed=capabilities.seed and None)

    async def _ask(
        self, sampling: Sampling, capabilities: Capabilities, *, seed: int = SEEDS[0], n: int = 1
    ) -> tuple[Capabilities, list[Answer], int | None]:
        """One call; where it is refused, again without the optional fields that the server refuses."""
        try:
            return capabilities, *await self._answers(sampling, capabilities, seed, n)
        except FAULTS as error:
            if not _about_a_field(error):
                raise
            new = "n" if n > 1 else "stop" if sampling.stop else None  # the rest was answered before
            return await self._ask_with_less(sampling, capabilities, seed, n, error, new)

    async def _ask_with_less(
        self,
        sampling: Sampling,
        capabilities: Capabilities,
        seed: int,
        n: int,
        refusal: RefusedError | BrokenError | MalformedAnswerError,
        new: str | None,
    ) -> tuple[Capabilities, list[Answer], int | None]:
        """Find out which optional fields are refused, by what is answered: messages repeat requests or list all fields.

        The field that the message seems to name is left out alone. If that is not it, all are, and each is then tried.
        """
        body = self._body(sampling, capabilities, seed, n)
        optional = [name for name in OPTIONAL if name in body]
        blamed = new if new in optional else _blamed(refusal, optional)
        if blamed is not None:
            trial = _without(capabilities, blamed)
            try:
                return trial, *await self._answers(sampling, trial, seed, n)
            except FAULTS:
                pass
        droppable = [name for name in optional if name != "max_tokens"]
        trial = _without(capabilities, *droppable)
        try:
            answers = await self._answers(sampling, trial, seed, n)
        except FAULTS as error:
            if "max_tokens" not in optional:
                raise refusal from None
            trial = _without(trial, "max_tokens")
            try:
                answers = await self._answers(sampling, trial, seed, n)
            except FAULTS:
                raise (refusal if not droppable else error) from None
        for name in droppable:
            more = replace(
                trial,
                rejected=tuple(other for other in trial.rejected if other != name),
                logprobs=capabilities.logprobs,
            )
            if name == "top_logprobs" and "logprobs" in trial.rejected:
                continue
            try:
                answers = await self._answers(sampling, more, seed, n)
            except FAULTS:
                continue
            trial = more
        if "logprobs" in trial.rejected or "include" in trial.rejected:
            trial = replace(trial, logprobs=0)
        return trial, *answers

    async def _answers(
        self, sampling: Sampling, capabilities: Capabilities, seed: int, n: int
    ) -> tuple[list[Answer], int | None]:
        """Answers to one request and its prompt tokens, tried again after a reply that is no answer."""
        body = self._body(sampling, capabilities, seed, n)
        for attempt in range(ATTEMPTS):
            reply = await self._call(capabilities.endpoint, body, sampling)
            try:
                return self.api.read(capabilities.endpoint, reply), billed_tokens(capabilities.endpoint, reply)[0]
            except MalformedAnswerError:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(delay(attempt))
        raise AssertionError("unreachable")

    def _body(self, sampling: Sampling, capabilities: Capabilities, seed: int, n: int) -> dict[str, Any]:
        own = None if capabilities.seed is False else seed
        return request(self.model, PROBE, sampling, capabilities, seed=own, n=n if capabilities.several else 1)

    async def _call(self, endpoint: Endpoint, body: Mapping[str, Any], sampling: Sampling) -> object:
        """One call within the budget, tried again after a fault that may pass."""
        held = prompt_tokens_upper(PROBE + (sampling.system or "")), TOKENS * int(body.get("n", 1))
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            self.budget.hold(*held)
            billed: tuple[int | None, int | None] = (None, None)  # until the bill is known
            began = time.monotonic()
            try:
                async with asyncio.timeout(None if last else self._wait_s()):
                    reply, _ = await self.api.call(endpoint, body)
                billed = billed_tokens(endpoint, reply)
                self.slowest_s = max(self.slowest_s or 0.0, time.monotonic() - began)
                return reply
            except TimeoutError:
                continue  # without a pause: the time limit was one
            except BrokenError as error:
                billed = (None, None) if error.maybe_billed else (0, 0)
                if (not error.reached and not error.late) or last:
                    raise
                await asyncio.sleep(delay(attempt))
            except BusyError as error:
                billed = (0, 0)
                wait = delay(attempt) if error.wait_s is None else error.wait_s
                if wait > LONGEST_WAIT_S or last:
                    raise
                await asyncio.sleep(wait)
            except EmergenceError:  # refused: no answer was made
                billed = (0, 0)
                raise
            finally:
                self.budget.settle(held, billed)
        raise AssertionError("unreachable")

    def _wait_s(self) -> float:
        return FIRST_WAIT_S if self.slowest_s is None else max(NEXT_WAIT_S, 10 * self.slowest_s)


def _about_a_field(error: RefusedError | BrokenError | MalformedAnswerError) -> bool:
    """Whether the same request without an optional field may well be answered."""
    if isinstance(error, MalformedAnswerError):
        return error.reported
    return error.failed if isinstance(error, BrokenError) else error.status != 404


def _without(capabilities: Capabilities, *names: str) -> Capabilities:
    return replace(capabilities, rejected=(*capabilities.rejected, *names))


def _blamed(error: RefusedError | BrokenError | MalformedAnswerError, optional: Sequence[str]) -> str | None:
    """The one optional field that the refusal names; None if it names none, or several."""
    if isinstance(error, RefusedError) and error.param in optional:
        return error.param
    named = [name for name in optional if re.search(rf"(?<![\w-]){name}(?![\w-])", str(error))]
    return named[0] if len(named) == 1 else None


def _spoken(answer: Answer) -> str:
    """All that the model wrote: a short answer may be reasoning alone."""
    return f"{answer.reasoning or ''}{answer.text}"
