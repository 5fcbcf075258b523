"""Asking for many answers at once: each call to its end, each answer into the log."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from estimators.base import EmergenceError, InputError, Progress
from extraction.answer_log import VERSION, AnswerLog, answer_key
from extraction.api import Api, BrokenError, BusyError, RefusedError
from extraction.capabilities import probe
from extraction.endpoints import (
    Answer,
    Capabilities,
    Endpoint,
    MalformedAnswerError,
    Settings,
    billed_tokens,
    read,
    request,
)
from extraction.pace import Budget, BudgetSpentError, Pace, delay, prompt_tokens_upper

GIVE_UP_AFTER = 20  # calls in a row, beyond those in flight, that nobody answers


@dataclass(frozen=True, slots=True)
class Job:
    """One call: the samples of one prompt that are still missing and can be had together."""

    prompt: str
    samples: tuple[int, ...]
    keys: tuple[str, ...]


class Asking:
    """One run over the missing answers of one model.

    Args:
        model: its name at the server.
        settings: of the answers.
        log: where they go.
        budget: limits, and the bill.
        pace: calls in flight.
        max_retries: further attempts after a lost reply.
        progress: told the number of answers, failed ones included.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        log: AnswerLog,
        budget: Budget,
        pace: Pace,
        max_retries: int,
        progress: Progress | None,
    ) -> None:
        self.model, self.settings, self.log, self.budget, self.pace = model, settings, log, budget, pace
        self.max_retries, self.progress = max_retries, progress
        self.able: Capabilities | None = None
        self._stopped: EmergenceError | None = None
        self._reached = False
        self._done = self._total = self._unreached = 0

    async def known_capabilities(self, api: Api, endpoint: Endpoint | None) -> Capabilities:
        """Those found by an earlier run against the same server, or else by a probe, which is logged."""
        place = hashlib.sha256(f"{api.base_url} {self.model} {endpoint or 'auto'}".encode()).hexdigest()[:16]
        if place in self.log.capabilities:
            known = dict(self.log.capabilities[place])
            return Capabilities(**{**known, "rejected": tuple(known["rejected"])})
        able = await probe(api, self.model, endpoint, self.settings)
        self.log.append({"version": VERSION, "for": place, "capabilities": asdict(able)})
        return able

    async def ask_all(self, api: Api, able: Capabilities, texts: Sequence[str], samples: int) -> None:
        """Ask for every answer that the log does not hold; memory does not grow with their number."""
        if self.settings.system and able.endpoint == "completions":
            raise InputError("The completions endpoint has no system prompt; leave it out or choose --endpoint chat.")
        self.able = able
        self._total = len(texts) * samples
        self._done = self._total - sum(len(job.keys) for job in self.jobs(able, texts, samples))
        self._tell()
        jobs = self.jobs(able, texts, samples)
        await asyncio.gather(*(self._work(api, able, jobs) for _ in range(self.pace.concurrency)))
        if self._stopped is not None:
            raise self._stopped

    def jobs(self, able: Capabilities, texts: Sequence[str], samples: int) -> Iterator[Job]:
        """Yield the calls that the log holds no answer to."""
        for text in texts:
            keys = [answer_key(self.model, able.endpoint, text, number, self.settings) for number in range(samples)]
            open_ = [(number, key) for number, key in enumerate(keys) if key not in self.log.answered]
            together = len(open_) if able.several else 1
            for start in range(0, len(open_), max(1, together)):
                numbers, names = zip(*open_[start : start + together], strict=True)
                yield Job(text, numbers, names)

    def body(self, able: Capabilities, job: Job) -> dict[str, Any]:
        """The request of one job; its seed comes from the key, which holds the run's seed, the prompt and sample."""
        seed = int(job.keys[0][:7], 16) if able.seed else None
        return request(self.model, job.prompt, self.settings, able, seed=seed, n=len(job.samples))

    async def _work(self, api: Api, able: Capabilities, jobs: Iterator[Job]) -> None:
        for job in jobs:
            try:
                await self._finish(api, able, job)
            except EmergenceError as error:  # no more calls; those in flight are paid for and may arrive
                self._stopped = self._stopped or error
            if self._stopped is not None:
                self.pace.halt()
                return

    async def _finish(self, api: Api, able: Capabilities, job: Job) -> None:
        """One job to its end: answers in the log, or the reason why not."""
        body = self.body(able, job)
        reason = ""
        for attempt in range(self.max_retries + 1):
            if attempt:
                await asyncio.sleep(delay(attempt - 1))
            async with self.pace.turn():
                if self._stopped is not None:
                    return
                try:
                    return await self._call(api, able, job, body, attempt)
                except RefusedError as error:
                    reason = str(error)
                    break
                except (BusyError, BrokenError, MalformedAnswerError) as error:
                    reason = str(error)
                    self._check_alive(api, error)
        self.fail(job.keys, reason)

    async def _call(self, api: Api, able: Capabilities, job: Job, body: dict[str, Any], attempt: int) -> None:
        """One call within the budget; its answers go into the log."""
        held = prompt_tokens_upper(job.prompt + (self.settings.system or "")), self.settings.max_tokens * len(job.keys)
        await self._hold(held)
        began = time.monotonic()
        billed: tuple[int | None, int | None] = (0, 0)
        try:
            reply, headers = await api.call(able.endpoint, body)
            billed = billed_tokens(able.endpoint, reply)
            answers = read(able.endpoint, reply)
        except BusyError as error:
            self.pace.complained(error.wait_s, attempt)
            raise
        except BrokenError as error:
            billed = (None, None) if error.maybe_billed else billed
            raise
        finally:
            self.budget.settle(held, billed)
        self.pace.answered(headers)
        self._reached, self._unreached = True, 0
        self.keep(job, answers, billed, round(time.monotonic() - began, 4))

    def _check_alive(self, api: Api, error: EmergenceError) -> None:
        """Stop the run when nobody answers, rather than try thousands of calls in vain."""
        if not isinstance(error, BrokenError) or error.reached:
            return
        self._unreached += 1
        if not self._reached and self._unreached > self.pace.concurrency:
            raise InputError(f"No server answers at {api.base_url}: {error}. Check that it runs.")
        if self._unreached > GIVE_UP_AFTER + self.pace.concurrency:
            raise EmergenceError(f"{api.base_url} stopped answering ({error}).")

    async def _hold(self, tokens: tuple[int, int]) -> None:
        while True:
            try:
                return self.budget.hold(*tokens)
            except BudgetSpentError:
                if self.budget.idle:
                    raise
                await asyncio.sleep(0.05)  # what is in flight may turn out cheaper than what was set aside for it

    def keep(
        self, job: Job, answers: Sequence[Answer], billed: tuple[int | None, int | None], latency_s: float | None
    ) -> None:
        """Log the answers of one call, and what is missing of them as failed."""
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        for sample, key, answer in zip(job.samples, job.keys, answers, strict=False):
            if key in self.log.answered:
                continue
            record = {"version": VERSION, "key": key, "model": self.model, "sample": sample, **asdict(answer)}
            record["text"] = _cut(answer.text, self.settings.stop)
            self.log.append({**record, "billed": billed, "latency_s": latency_s, "created": created})
            billed = (0, 0)  # one bill per call
        self._done += len(answers[: len(job.keys)])
        self._tell()
        if len(answers) < len(job.keys):
            self.fail(job.keys[len(answers) :], f"the reply has {len(answers)} of {len(job.keys)} answers asked for")

    def fail(self, keys: Sequence[str], reason: str) -> None:
        """Log why there are no answers under `keys`."""
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        for key in keys:
            self.log.append({"version": VERSION, "key": key, "error": reason, "created": created})
        self._done += len(keys)
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self._done, self._total)


def _cut(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop, as servers without stops leave to us, in characters that fit any table."""
    ends = [place for end in stop if end and (place := text.find(end)) >= 0]
    return text[: min(ends, default=len(text))].encode("utf-8", "replace").decode()
