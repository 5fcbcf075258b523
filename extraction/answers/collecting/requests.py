"""Collector for many answers at once: each call to its end, each answer into the log."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from estimators.base import EmergenceError, InputError, Progress
from extraction.answers.collecting.api import Api
from extraction.answers.collecting.budget import Budget, BudgetSpentError, prompt_tokens_upper
from extraction.answers.collecting.endpoints import Capabilities, Endpoint, request
from extraction.answers.collecting.faults import (
    BrokenError,
    BusyError,
    ForbiddenError,
    MalformedAnswerError,
    RefusedError,
)
from extraction.answers.collecting.log import SYNC_EVERY_S, AnswerLog, answer_key
from extraction.answers.collecting.options import Limits
from extraction.answers.collecting.pace import Pace, delay
from extraction.answers.collecting.probe import most_tokens, probe
from extraction.answers.collecting.replies import INSTEAD, Answer, billed_tokens
from extraction.answers.sampling import Sampling

GIVE_UP_AFTER = 20  # calls in a row, beyond those in flight, without any reply
FORBIDDEN_IN_A_ROW = 3  # one may be about its prompt alone


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the samples of one prompt that are still missing and can be had together."""

    prompt: str
    samples: tuple[int, ...]
    keys: tuple[str, ...]


class Collector:
    """One run over the missing answers of one model.

    Args:
        model: its name at the server.
        sampling: of the answers.
        log: where they go.
        budget: limits, and the bill.
        pace: calls in flight.
        limits: attempts, and the longest wait for a reply.
        progress: called with the number of answers of those this run has to ask for, failed ones included.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        log: AnswerLog,
        budget: Budget,
        pace: Pace,
        limits: Limits,
        progress: Progress | None,
    ) -> None:
        self.model, self.sampling, self.log, self.budget, self.pace = model, sampling, log, budget, pace
        self.limits, self.progress = limits, progress
        self.capabilities: Capabilities | None = None
        self._stopped: EmergenceError | None = None
        self._reached = False
        self._done = self._total = self._unreached = self._forbidden = 0
        self._settled = asyncio.Condition()
        log.settle_interrupted()
        self._billed_before = log.billed.get(model, (0, 0))
        self.count_earlier()

    def count_earlier(self) -> None:
        """Let the limits of the budget cover what the log says was billed before, and what batches will be billed."""
        due = self.log.due(self.model)
        self.budget.earlier = self._billed_before[0] + due[0], self._billed_before[1] + due[1]

    async def known_capabilities(
        self, api: Api, endpoint: Endpoint | None, first: Sequence[Endpoint], samples: int = 1
    ) -> Capabilities:
        """Those found by an earlier run against the same server, or else by a probe, which is logged with its bill.

        Args:
            api: the server.
            endpoint: the one to use; None for the first of `first` that answers.
            first: endpoints in the order in which they are tried.
            samples: answers per prompt; with one, it is not tried whether several can be had at once.
        """
        # A probe at temperature 0, or without logprobs or stops, says nothing of what another one would find.
        asked: list[Any] = [self.sampling.temperature, self.sampling.logprobs, endpoint or list(first), samples > 1]
        asked += [bool(self.sampling.stop), bool(self.sampling.system)]
        asked += [True] if self.sampling.whole else []
        asked += ["echo"] if self.sampling.echo else []
        place = hashlib.sha256(json.dumps([api.base_url, self.model, asked]).encode()).hexdigest()[:16]
        if place in self.log.capabilities:
            known = dict(self.log.capabilities[place])
            capabilities = Capabilities(**{**known, "rejected": tuple(known["rejected"])})
            if capabilities.path is not None:
                api.go_to(capabilities.path)
            return capabilities
        before = self.budget.prompt_tokens, self.budget.completion_tokens, self.budget.calls
        found: Capabilities | None = None
        sent = {"key": f"probe-{place}", "model": self.model, "sent": most_tokens()}
        self.log.append(sent)  # as for every call: if this process dies, the next one charges it at its most
        try:
            endpoints = [endpoint] if endpoint else first
            found = await probe(api, self.model, endpoints, self.sampling, self.budget, several=samples > 1)
        finally:  # what was asked is on the bill, whatever the result
            billed = self.budget.prompt_tokens - before[0], self.budget.completion_tokens - before[1]
            calls = self.budget.calls - before[2]
            record: dict[str, Any] = {"key": sent["key"], "model": self.model, "billed": billed, "calls": calls}
            if found is not None:
                self.log.append({"for": place, "capabilities": asdict(found), **record})
            else:
                self.log.append({"error": "probing the server was interrupted", **record})
        return found

    def begin(self, capabilities: Capabilities) -> None:
        """Take the server as it is.

        Raises:
            InputError: if it cannot be asked in this way.
        """
        if self.sampling.system and capabilities.endpoint == "completions":
            raise InputError("The completions endpoint has no system prompt; leave it out or choose --endpoint chat.")
        self.capabilities = capabilities

    async def ask_all(self, api: Api, capabilities: Capabilities, texts: Iterable[str], samples: int) -> None:
        """Ask for every answer that the log does not hold; memory does not grow with their number.

        Raises:
            InputError: if the server cannot be asked in this way, or answers are pending in a batch.
        """
        self.begin(capabilities)
        pending = self.log.pending()
        due = 0
        for call in self.calls(capabilities, texts, samples):
            self._total += len(call.keys)
            due += sum(key in pending for key in call.keys)
        if due:
            raise InputError(
                f"{due} of these answers are pending in a batch and would be paid for twice; "
                "run the same command with --batch to fetch them."
            )
        self._report()
        calls = self.calls(capabilities, texts, samples)
        keeping = asyncio.create_task(self._keep_on_disk())
        try:
            workers = range(2 * self.pace.concurrency)  # as many may be in flight when places are lent
            await asyncio.gather(*(self._work(api, capabilities, calls) for _ in workers))
        finally:
            keeping.cancel()
        if self._stopped is not None:
            raise self._stopped

    async def _keep_on_disk(self) -> None:
        """Force the last answers to the disk also when none follows for a while."""
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            self.log.sync_now_and_then()

    def calls(self, capabilities: Capabilities, texts: Iterable[str], samples: int) -> Iterator[Call]:
        """Yield the calls that the log holds no answer to."""
        for text in texts:
            keys = [
                answer_key(self.model, capabilities.endpoint, text, number, self.sampling) for number in range(samples)
            ]
            open_ = [(number, key) for number, key in enumerate(keys) if not self.log.answered(key)]
            together = len(open_) if capabilities.several else 1
            for start in range(0, len(open_), max(1, together)):
                numbers, names = zip(*open_[start : start + together], strict=True)
                yield Call(text, numbers, names)

    def body(self, capabilities: Capabilities, call: Call) -> dict[str, Any]:
        """The request of one call; its seed comes from the key, which holds the run's seed, the prompt and sample."""
        seed = None if capabilities.seed is False else int(call.keys[0][:7], 16)
        return request(self.model, call.prompt, self.sampling, capabilities, seed=seed, n=len(call.samples))

    async def _work(self, api: Api, capabilities: Capabilities, calls: Iterator[Call]) -> None:
        for call in calls:
            try:
                await self._finish(api, capabilities, call)
            except EmergenceError as error:  # no more calls; those in flight are paid for and may arrive
                self._stopped = self._stopped or error
            if self._stopped is not None:
                await self.pace.halt()
                return

    # Attempts are not left to tenacity, which repeats one function by a rule of its own: here a pause that the server
    # asks for holds for all calls, an attempt takes a new turn, its cost is held from the budget, and part of a call
    # can have been answered.
    async def _finish(self, api: Api, capabilities: Capabilities, call: Call) -> None:
        """One call to its end: answers in the log, or the reason why not."""
        reason, late, attempts = "", 0, self.limits.max_retries + 1
        bill = [0, 0]
        try:
            for attempt in range(attempts):
                if attempt:
                    await asyncio.sleep(delay(attempt - 1))
                async with self.pace.turn():
                    if self._stopped is not None:
                        if any(bill):
                            self.fail(call.keys, reason, bill)
                        return
                    try:
                        answers = await self._call(api, capabilities, call, attempt, late, bill)
                    except RefusedError as error:
                        self._forbidden += isinstance(error, ForbiddenError)
                        if isinstance(error, ForbiddenError) and self._forbidden >= FORBIDDEN_IN_A_ROW:
                            raise
                        reason = str(error)
                        break
                    except (BusyError, BrokenError, MalformedAnswerError) as error:
                        reason = str(error)
                        late += isinstance(error, BrokenError) and error.late
                        self._check_alive(api, error)
                        continue
                    count = len(call.keys)
                    missing = self.keep(call, answers, bill)
                    if missing is None:
                        return
                    bill, call = [0, 0], missing
                    reason = f"the reply has {min(len(answers), count)} of {count} answers asked for"
        except (asyncio.CancelledError, EmergenceError):
            if any(bill):
                self.fail(call.keys, reason or "the run was stopped before the reply", bill)
            raise
        self.fail(call.keys, reason, bill)

    async def _call(
        self, api: Api, capabilities: Capabilities, call: Call, attempt: int, late: int, bill: list[int]
    ) -> list[tuple[Answer, float]]:
        """One call within the budget: its answers with the seconds they took; its cost goes onto the call's `bill`."""
        held = self.most_tokens(call)
        await self._hold(held)
        began = time.monotonic()
        billed: tuple[int | None, int | None] = (0, 0)
        try:
            # On disk before it is sent: if this process dies, the next one charges it at its most.
            self.log.append({"key": call.keys[0], "model": self.model, "sent": held})
            billed = (None, None)  # until the bill is known
            last = attempt == self.limits.max_retries
            async with self.pace.deadline(self.limits.timeout_s, late, last=last):
                reply, headers = await api.call(capabilities.endpoint, self.body(capabilities, call))
            billed = billed_tokens(capabilities.endpoint, reply)
            answers = api.read(capabilities.endpoint, reply)
        except TimeoutError:
            waited_s = min(time.monotonic() - began, self.limits.timeout_s)
            sooner = ", while others come much sooner" if waited_s < self.limits.timeout_s else ""
            reason = f"no whole reply within {waited_s:.3g} s{sooner}"
            raise BrokenError(reason, reached=False, maybe_billed=True, late=True) from None
        except BusyError as error:
            billed = (0, 0)
            self.pace.complained(error.wait_s)
            raise
        except BrokenError as error:
            billed = (None, None) if error.maybe_billed else (0, 0)
            raise
        except MalformedAnswerError:
            raise
        except EmergenceError:  # refused: no answer was made
            billed = (0, 0)
            raise
        finally:
            cost = self.budget.settle(held, billed)
            bill[:] = bill[0] + cost[0], bill[1] + cost[1]
            async with self._settled:
                self._settled.notify_all()
        took_s = time.monotonic() - began
        self.pace.answered(headers, sum(held), took_s)
        self._reached, self._unreached, self._forbidden = True, 0, 0
        return [(answer, took_s) for answer in answers]

    def most_tokens(self, call: Call) -> tuple[int, int]:
        """Prompt and answer tokens that a call can cost at most."""
        prompt = prompt_tokens_upper(call.prompt + (self.sampling.system or ""))
        return prompt, self.sampling.max_tokens * len(call.keys)

    def _check_alive(self, api: Api, error: EmergenceError) -> None:
        """Stop the run when the server does not reply, rather than try thousands of calls in vain."""
        if not isinstance(error, BrokenError) or error.reached:
            return
        self._unreached += 1
        in_flight = 2 * self.pace.concurrency
        hint = "Raise --timeout if its replies take longer" if error.late else "Check that it runs"
        if not self._reached and self._unreached > in_flight:
            raise InputError(f"No server answers at {api.shown}: {error}. {hint}.")
        if self._unreached > GIVE_UP_AFTER + in_flight:
            raise EmergenceError(f"{api.shown} stopped answering ({error}).")

    async def _hold(self, tokens: tuple[int, int]) -> None:
        async with self._settled:
            while True:
                try:
                    return self.budget.hold(*tokens)
                except BudgetSpentError:
                    if self.budget.idle:
                        raise
                    await self._settled.wait()  # what is in flight may turn out cheaper than what was set aside for it

    def keep(self, call: Call, answers: Sequence[tuple[Answer, float | None]], bill: Sequence[int]) -> Call | None:
        """Log the answers of one call with what they cost in all; return the part of it that is still missing.

        One that is all reasoning, or a call of a tool, is a failure, which another attempt would only pay for again.
        """
        for key, (answer, took_s) in zip(call.keys, answers, strict=False):
            latency_s = None if took_s is None else round(took_s, 4)
            self.note_answer(key, self.model, cut(answer, self.sampling.stop), bill, latency_s)
            bill = (0, 0)  # one bill per call
        count = min(len(answers), len(call.keys))
        self._done += count
        self._report()
        return None if count == len(call.keys) else Call(call.prompt, call.samples[count:], call.keys[count:])

    def fail(self, keys: Sequence[str], reason: str, bill: Sequence[int] = (0, 0)) -> None:
        """Log why there are no answers under `keys`, and what they cost all the same."""
        for key in keys:
            self.note_failure(key, self.model, reason, bill)
            bill = (0, 0)
        self._done += len(keys)
        self._report()

    def note_answer(
        self, key: str, model: str, answer: Answer, bill: Sequence[int], latency_s: float | None = None
    ) -> None:
        """Log one answer, of this run or of an earlier one with other settings; a failure if it is no text."""
        record = {"key": key, "model": model, **asdict(answer), "billed": list(bill), "latency_s": latency_s}
        del record["instead"]
        if answer.instead is not None:
            record |= {"error": INSTEAD[answer.instead], "text": None}
        self.log.append({**record, "created": _now()})

    def note_failure(self, key: str, model: str, reason: str, bill: Sequence[int] = (0, 0)) -> None:
        """Log why there is no answer."""
        self.log.append({"key": key, "model": model, "error": reason, "billed": list(bill), "created": _now()})

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self._done, self._total)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def cut(answer: Answer, stop: Sequence[str]) -> Answer:
    """The answer up to the first stop, as servers without stops leave to us, in characters that fit any table.

    Example:
        >>> cut(Answer("dog, cat, cow", "stop", 9, 6, None, None), [","]).text
        'dog'
    """
    ends = [place for end in stop if end and (place := answer.text.find(end)) >= 0]
    end = min(ends, default=len(answer.text))
    logprobs = answer.logprobs
    if logprobs is not None and end < len(answer.text):
        # Tokens after the stop are no part of the answer; where tokens do not spell the text, they cannot be assigned.
        starts = [0, *accumulate(len(entry["token"]) for entry in logprobs)]
        spelled = "".join(entry["token"] for entry in logprobs).startswith(answer.text)
        logprobs = [entry for entry, start in zip(logprobs, starts, strict=False) if start < end] if spelled else None
    return replace(answer, text=answer.text[:end].encode("utf-8", "replace").decode(), logprobs=logprobs or None)
