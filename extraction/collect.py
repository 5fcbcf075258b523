"""Answers of a model behind an API: each asked for once, kept at once, and gathered in one table."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from estimators.base import EmergenceError, InputError, Progress
from extraction.answer_log import VERSION, AnswerLog, answer_key
from extraction.api import Api, BrokenError, BusyError, RefusedError, api_key, check_base_url
from extraction.capabilities import probe
from extraction.endpoints import (
    ENDPOINTS,
    Answer,
    Capabilities,
    MalformedAnswerError,
    Settings,
    billed_tokens,
    read,
    request,
)
from extraction.pace import Budget, BudgetSpentError, Pace, delay, prompt_tokens_upper
from extraction.prompts import check_prompts
from extraction.responses import responses_table
from extraction.tables import RESPONSES, check_table_path, write_table

if TYPE_CHECKING:
    import httpx2

GIVE_UP_AFTER = 20  # answers in a row lost because nobody answers


@dataclass(frozen=True, slots=True)
class Job:
    """One call: the samples of one prompt that are still missing and can be had together."""

    prompt: str
    samples: tuple[int, ...]
    keys: tuple[str, ...]


def collect(
    model: str,
    prompts: pd.DataFrame,
    *,
    base_url: str | None = None,
    out: Path,
    key_env: str = "OPENAI_API_KEY",
    endpoint: str = "auto",
    samples: int = 1,
    max_tokens: int = 64,
    temperature: float | None = 1.0,
    seed: int = 0,
    system: str | None = None,
    stop: Sequence[str] = (),
    logprobs: int = 5,
    concurrency: int = 8,
    max_retries: int = 5,
    timeout_s: float = 120.0,
    budget: Budget | None = None,
    capabilities: Capabilities | None = None,
    http_client: httpx2.AsyncClient | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Ask a model behind an OpenAI-compatible API for its answers to `prompts`, and write them to `out`.

    Every answer is appended to the log `out` with the ending ``.log.jsonl`` as it arrives. Called again, it asks only
    for what is missing or failed, so that nothing is paid for twice.

    Args:
        model: its name at the server.
        prompts: columns ``prompt_id`` and ``prompt``, see `extraction.prompts`.
        base_url: of the server; by default OPENAI_BASE_URL or OpenAI itself.
        out: table to write, ``.parquet``, ``.csv`` or ``.json``.
        key_env: environment variable that holds the key; servers on this machine need none.
        endpoint: ``chat``, ``completions``, ``responses``, or ``auto`` for the first that answers.
        samples: answers per prompt.
        max_tokens: longest answer, in the server's tokens.
        temperature: of the sampling; None leaves it to the server.
        seed: from which every answer's own seed is derived.
        system: system prompt, for the endpoints that have one.
        stop: texts at which an answer ends.
        logprobs: alternatives per token to ask for, where the server gives any.
        concurrency: most calls at once; fewer while the server complains.
        max_retries: further attempts after a lost or unreadable reply.
        timeout_s: longest wait for one reply.
        budget: prices and limits; carries the bill afterwards.
        capabilities: of the server, where known; otherwise they are found out by a few short questions.
        http_client: transport to use instead of a new one.
        progress: told the number of answers.

    Returns:
        One row per prompt and sample (schema RESPONSES) and a column ``error``: why there is no answer, or null.

    Raises:
        InputError: if prompts, URL, key, endpoint or table path cannot be used, or nobody answers.
        EmergenceError: if the run had to stop early: quota or budget spent, server gone. What arrived is kept.
    """
    check_table_path(out)
    prompts = check_prompts(prompts)
    settings = Settings(max_tokens, temperature, seed, system, tuple(stop), logprobs)
    _check_numbers(settings, samples, concurrency)
    if endpoint != "auto" and endpoint not in ENDPOINTS:
        raise InputError(f"Unknown endpoint {endpoint}; choose auto, {', '.join(ENDPOINTS)}.")
    url = check_base_url(base_url)
    key = api_key(url, key_env)
    with AnswerLog(log_path(out), secret=key if key != "none" else "") as log:
        run = _Run(model, settings, log, budget or Budget(), Pace(concurrency), max_retries, progress)

        async def work() -> Capabilities:
            async with Api(url, key, timeout_s=timeout_s, connections=concurrency, http_client=http_client) as api:
                able = capabilities or await run.known_capabilities(api, endpoint)
                await run.ask_all(api, able, prompts["prompt"].unique().tolist(), samples)
                return able

        stopped: EmergenceError | None = None
        try:
            able = _run_async(work)
        except EmergenceError as error:
            if run.able is None:
                raise
            able, stopped = run.able, error
        table = responses_table(log, model, able.endpoint, prompts, samples, settings)
    write_table(table, out, RESPONSES)
    if stopped is not None:
        missing = int(table["text"].isna().sum())
        kind = type(stopped) if isinstance(stopped, InputError) else EmergenceError
        raise kind(
            f"{str(stopped).rstrip('.')}. {len(table) - missing} of {len(table)} answers are in {out}; "
            "the same command asks for the rest."
        ) from None
    return table


def log_path(out: Path) -> Path:
    """Where the answers of the table `out` are logged."""
    return out.with_suffix(".log.jsonl")


class _Run:
    """One run over the missing answers of one model."""

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
        self._done = self._total = self._unreached = 0

    async def known_capabilities(self, api: Api, endpoint: str) -> Capabilities:
        """Those found by an earlier run against the same server, or else by a probe, which is logged."""
        place = hashlib.sha256(f"{api.base_url} {self.model} {endpoint}".encode()).hexdigest()[:16]
        if place in self.log.capabilities:
            known = dict(self.log.capabilities[place])
            return Capabilities(**{**known, "rejected": tuple(known["rejected"])})
        able = await probe(api, self.model, None if endpoint == "auto" else endpoint, self.settings)  # type: ignore[arg-type]
        self.log.append({"version": VERSION, "for": place, "capabilities": asdict(able)})
        return able

    async def ask_all(self, api: Api, able: Capabilities, texts: Sequence[str], samples: int) -> None:
        """Ask for every answer that the log does not hold; memory does not grow with their number."""
        self.able = able
        self._total = len(texts) * samples
        self._done = self._total - sum(len(job.keys) for job in self._jobs(able, texts, samples))
        self._tell()
        jobs = self._jobs(able, texts, samples)
        await asyncio.gather(*(self._work(number, api, able, jobs) for number in range(self.pace.concurrency)))
        if self._stopped is not None:
            raise self._stopped

    def _jobs(self, able: Capabilities, texts: Sequence[str], samples: int) -> Iterator[Job]:
        for text in texts:
            keys = [answer_key(self.model, able.endpoint, text, number, self.settings) for number in range(samples)]
            open_ = [(number, key) for number, key in enumerate(keys) if key not in self.log.answered]
            together = len(open_) if able.several else 1
            for start in range(0, len(open_), max(1, together)):
                numbers, names = zip(*open_[start : start + together], strict=True)
                yield Job(text, numbers, names)

    async def _work(self, number: int, api: Api, able: Capabilities, jobs: Iterator[Job]) -> None:
        for job in jobs:
            try:
                await self._finish(number, api, able, job)
            except EmergenceError as error:  # no more calls; those in flight are paid for and may arrive
                self._stopped = self._stopped or error
            if self._stopped is not None:
                self.pace.halt()
                return

    async def _finish(self, number: int, api: Api, able: Capabilities, job: Job) -> None:
        """One job to its end: answers in the log, or the reason why not."""
        body = request(
            self.model,
            job.prompt,
            self.settings,
            able,
            seed=int(job.keys[0][:7], 16) if able.seed else None,  # the key holds the run's seed and the sample
            n=len(job.samples),
        )
        reason = ""
        for attempt in range(self.max_retries + 1):
            await self.pace.turn(number)
            if self._stopped is not None:
                return
            held = (
                prompt_tokens_upper(job.prompt + (self.settings.system or "")),
                self.settings.max_tokens * len(job.keys),
            )
            await self._hold(held)
            began = time.monotonic()
            billed: tuple[int | None, int | None] = (0, 0)
            try:
                reply, headers = await api.call(able.endpoint, body)
                billed = billed_tokens(able.endpoint, reply)
                answers = read(able.endpoint, reply)
            except RefusedError as error:
                reason = str(error)
                break
            except BusyError as error:
                reason = str(error)
                self.pace.complained(error.wait_s, attempt)
            except (BrokenError, MalformedAnswerError) as error:
                reason = str(error)
                self._unreached += isinstance(error, BrokenError) and not error.reached
                if attempt < self.max_retries:
                    await asyncio.sleep(delay(attempt))
            else:
                self.pace.answered(headers)
                self._unreached = 0
                self._keep(job, answers, billed, time.monotonic() - began)
                return
            finally:
                self.budget.settle(held, billed)
        self._fail(job.keys, reason)
        if self._unreached > GIVE_UP_AFTER * (self.max_retries + 1):
            raise EmergenceError(f"{api.base_url} stopped answering ({reason}).")

    async def _hold(self, tokens: tuple[int, int]) -> None:
        while True:
            try:
                return self.budget.hold(*tokens)
            except BudgetSpentError:
                if self.budget.idle:
                    raise
                await asyncio.sleep(0.05)  # what is in flight may turn out cheaper than what was set aside for it

    def _keep(
        self, job: Job, answers: Sequence[Answer], billed: tuple[int | None, int | None], latency_s: float
    ) -> None:
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        for sample, key, answer in zip(job.samples, job.keys, answers, strict=False):
            if key in self.log.answered:
                continue
            record = {"version": VERSION, "key": key, "model": self.model, "sample": sample, **asdict(answer)}
            record["text"] = answer.text.encode("utf-8", "replace").decode()  # lone surrogates fit no table
            self.log.append({**record, "billed": billed, "latency_s": round(latency_s, 4), "created": created})
            billed = (0, 0)  # one bill per call
        self._done += len(answers[: len(job.keys)])
        self._tell()
        if len(answers) < len(job.keys):
            self._fail(job.keys[len(answers) :], f"the reply has {len(answers)} of {len(job.keys)} answers asked for")

    def _fail(self, keys: Sequence[str], reason: str) -> None:
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        for key in keys:
            self.log.append({"version": VERSION, "key": key, "error": reason, "created": created})
        self._done += len(keys)
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self._done, self._total)


def _check_numbers(settings: Settings, samples: int, concurrency: int) -> None:
    for name, value in (("samples", samples), ("concurrency", concurrency), ("max_tokens", settings.max_tokens)):
        if value < 1:
            raise InputError(f"{name} is a whole number from 1 up; {value} was given.")
    if settings.temperature is not None and not 0 <= settings.temperature <= 2:
        raise InputError(f"temperature lies between 0 and 2; {settings.temperature} was given.")


def _run_async(work: Any) -> Any:
    """Run a coroutine function to its end, also from a notebook, whose own loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    result: list[Any] = []

    def target() -> None:
        try:
            result.append((asyncio.run(work()), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    value, error = result[0]
    if error is not None:
        raise error
    return value
