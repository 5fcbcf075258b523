"""Answers of a model behind an API: each asked for once, kept at once, and gathered in one table."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from estimators.base import EmergenceError, InputError, Progress
from extraction.answers.collecting.api import Api, api_key, check_base_url
from extraction.answers.collecting.batch import NotReadyError, ask_in_batches
from extraction.answers.collecting.endpoints import ENDPOINTS, Capabilities, Endpoint, Settings
from extraction.answers.collecting.log import AnswerLog, answer_key
from extraction.answers.collecting.pace import Budget, Pace
from extraction.answers.collecting.probe import most_tokens
from extraction.answers.collecting.requests import Asking
from extraction.answers.prompt_sets import all_distinct, check_prompts, listed_entities
from extraction.answers.responses import Collected, response_chunks, write_chunks
from extraction.tables import check_table_path

if TYPE_CHECKING:
    import httpx2

LISTS_FIRST: tuple[Endpoint, ...] = ("completions", "chat", "responses")  # the paper's lists are texts to go on with


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
    batch: bool = False,
    capabilities: Capabilities | None = None,
    http_client: httpx2.AsyncClient | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Ask a model behind an OpenAI-compatible API for its answers to `prompts`, and write them to `out`.

    Every answer is appended to the log `out` with the ending ``.log.jsonl`` as it arrives. Called again, it asks only
    for what is missing or failed, so that nothing is paid for twice.

    Args:
        model: its name at the server.
        prompts: columns ``prompt_id`` and ``prompt``, see `extraction.answers.prompt_sets`.
        base_url: of the server; by default OPENAI_BASE_URL or OpenAI itself.
        out: table to write, ``.parquet``, ``.csv`` or ``.json``.
        key_env: environment variable that holds the key; servers on this machine need none.
        endpoint: ``chat``, ``completions``, ``responses``, or ``auto`` for the first that answers; if all prompts are
            lists of entities, ``completions`` is tried first.
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
        budget: prices and limits, which cover all that the log beside `out` was billed for this model, the probe and
            earlier runs included; carries the bill of this run afterwards.
        batch: leave the calls to the server's Batch API: the first call hands them in, a later one fetches the answers.
        capabilities: of the server, where known; otherwise they are found out by a few short questions.
        http_client: transport to use instead of a new one.
        progress: told the number of answers.

    Returns:
        What was written: counts, reasons of what is missing, what the server can do, and the table on demand.

    Raises:
        InputError: if prompts, URL, key, endpoint or table path cannot be used, or nobody answers.
        EmergenceError: if the run had to stop early: quota or budget spent, server gone, batch not finished. What
            arrived is kept.
    """
    check_table_path(out)
    prompts = check_prompts(prompts)
    settings = Settings(max_tokens, temperature, seed, system, tuple(stop), logprobs)
    _check_numbers(settings, samples, concurrency)
    if endpoint != "auto" and endpoint not in ENDPOINTS:
        raise InputError(f"Unknown endpoint {endpoint}; choose auto, {', '.join(ENDPOINTS)}.")
    url = check_base_url(base_url)
    key = api_key(url, key_env)
    wanted = cast("Endpoint | None", None if endpoint == "auto" else endpoint)
    texts = prompts["prompt"] if all_distinct(prompts["prompt"]) else prompts["prompt"].drop_duplicates()
    first = LISTS_FIRST if wanted is None and all(listed_entities(text) for text in texts) else ENDPOINTS
    with AnswerLog(log_path(out), secret=key) as log:
        run = Asking(model, settings, log, budget or Budget(), Pace(concurrency), max_retries, progress)

        async def work() -> Capabilities:
            async with Api(url, key, timeout_s=timeout_s, connections=concurrency, http_client=http_client) as api:
                able = capabilities or await run.known_capabilities(api, wanted, first)
                if batch:
                    await ask_in_batches(run, api, able, texts, samples)
                else:
                    await run.ask_all(api, able, texts, samples)
                return able

        stopped: EmergenceError | None = None
        try:
            able = _run_async(work)
        except EmergenceError as error:
            if run.able is None:
                raise
            able, stopped = run.able, error
        done = Collected(out, able)
        if stopped is not None and not _any_answer(log, model, able.endpoint, texts, samples, settings):
            raise stopped
        write_chunks(_counted(response_chunks(log, model, able.endpoint, prompts, samples, settings), done), out)
    if stopped is not None:
        kind = type(stopped) if isinstance(stopped, InputError | NotReadyError) else EmergenceError
        raise kind(
            f"{str(stopped).rstrip('.')}. {done.rows - done.missing} of {done.rows} answers are in {out}; "
            "the same command asks for the rest."
        ) from None
    return done


def _counted(pieces: Iterable[pd.DataFrame], done: Collected) -> Iterator[pd.DataFrame]:
    for piece in pieces:
        done.count(piece)
        yield piece


def _any_answer(
    log: AnswerLog, model: str, endpoint: Endpoint, texts: Iterable[str], samples: int, settings: Settings
) -> bool:
    keys = (answer_key(model, endpoint, text, sample, settings) for text in texts for sample in range(samples))
    return any(map(log.answered, keys))


def log_path(out: Path) -> Path:
    """Where the answers of the table `out` are logged."""
    return out.with_suffix(".log.jsonl")


def estimate_bill(
    model: str, prompts: pd.DataFrame, *, out: Path, budget: Budget, samples: int = 1, settings: Settings | None = None
) -> dict[str, float | None]:
    """What `collect` would ask and cost at most, without asking anything.

    Args:
        model: its name at the server.
        prompts: as for `collect`.
        out: the table; answers in the log beside it are not asked for again.
        budget: the prices.
        samples: answers per prompt.
        settings: of the answers.

    Returns:
        ``answers`` to ask for, ``prompt_tokens`` (about, a token per 4 characters), ``answer_tokens`` (at most),
        ``probe_prompt_tokens`` and ``probe_answer_tokens`` (at most, of the questions that find out what the server
        can do; 0 if the log says that already), and ``cost`` (of all, None without prices).
    """
    prompts = check_prompts(prompts)
    settings = settings or Settings()
    answers = tokens = 0
    with AnswerLog(log_path(out)) if log_path(out).is_file() else nullcontext() as log:
        on_the_way, known = (log.on_the_way(), bool(log.capabilities)) if log is not None else (set[str](), False)
        for text in prompts["prompt"].drop_duplicates():
            for sample in range(samples):
                keys = [answer_key(model, endpoint, text, sample, settings) for endpoint in ENDPOINTS]
                if not any(key in on_the_way or (log is not None and log.answered(key)) for key in keys):
                    answers += 1
                    tokens += len(text + (settings.system or "")) // 4 + 8
    most = answers * settings.max_tokens
    probing = (0, 0) if known or not answers else most_tokens()
    return {
        "answers": answers,
        "prompt_tokens": tokens,
        "answer_tokens": most,
        "probe_prompt_tokens": probing[0],
        "probe_answer_tokens": probing[1],
        "cost": budget.cost(tokens + probing[0], most + probing[1]),
    }


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
