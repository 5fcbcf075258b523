"""Answers of a model behind an API: each asked for once, kept at once, and gathered in one table."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import EmergenceError, InputError, Progress
from estimators.contracts.numbers import number
from extraction.answers.collecting.api import Api, api_key, check_base_url, secrets_of
from extraction.answers.collecting.batch import NotReadyError, ask_in_batches
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.collected import Collected, response_chunks, write_chunks
from extraction.answers.collecting.endpoints import ENDPOINTS, Capabilities, Endpoint
from extraction.answers.collecting.log import AnswerLog, answer_key
from extraction.answers.collecting.options import Server
from extraction.answers.collecting.pace import Pace
from extraction.answers.collecting.probe import most_tokens
from extraction.answers.collecting.requests import Collector
from extraction.answers.prompt_sets import all_distinct, check_prompts, listed_entities
from extraction.answers.sampling import Sampling
from extraction.tables import check_table_path

MOST_SAMPLES = 100_000  # of one prompt
LISTS_FIRST: tuple[Endpoint, ...] = ("completions", "chat", "responses")  # the paper's lists are texts to go on with


def collect(
    model: str,
    prompts: pd.DataFrame,
    *,
    out: str | PathLike[str],
    server: Server | None = None,
    sampling: Sampling | None = None,
    samples: int = 1,
    batch: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Ask a model behind an OpenAI-compatible API for its answers to `prompts`, and write them to `out`.

    Every answer is appended to the log `out` with the ending ``.log.jsonl`` as it arrives. Called again, it asks only
    for what is missing or failed, so nothing is paid for twice.

    Args:
        model: its name at the server.
        prompts: columns ``prompt_id`` and ``prompt``, see `extraction.answers.prompt_sets`.
        out: table to write, ``.parquet``, ``.csv`` or ``.json``.
        server: address, limits and budget; by default OpenAI. If all prompts
            are lists of entities, the endpoint ``completions`` is tried first.
        sampling: what determines an answer beside its prompt: length, temperature, seed, system prompt, stops.
        samples: answers per prompt.
        batch: leave the calls to the server's Batch API: the first call submits them, a later one fetches the answers.
        progress: called with the number of answers.

    Returns:
        What was written: counts, reasons of what is missing, what the server can do, and the table on demand.

    Raises:
        InputError: if prompts, URL, key, endpoint or table path cannot be used, or the server does not answer.
        EmergenceError: if the run had to stop early: quota or budget spent, server gone, batch not finished. What
            arrived is kept.

    Example:
        >>> import tempfile
        >>> import httpx2
        >>> message = {"role": "assistant", "content": "The Elbe."}
        >>> reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
        >>> played = httpx2.MockTransport(lambda request: httpx2.Response(200, json=reply))  # in place of the network
        >>> server = Server("http://127.0.0.1:8000/v1", http_client=httpx2.AsyncClient(transport=played))
        >>> out = Path(tempfile.mkdtemp()) / "answers.csv"
        >>> done = collect("m", pd.DataFrame({"prompt": ["Name a river."]}), out=out, server=server)
        >>> done.rows, done.missing, done.table()["text"].tolist()
        (1, 0, ['The Elbe.'])
    """
    if not model.strip():
        raise InputError("The name of the model is empty; give the one that the server knows.")
    out = Path(out)
    check_table_path(out)
    prompts = check_prompts(prompts)
    server, sampling = server or Server(), sampling or Sampling()
    number(samples, "samples", least=1, most=MOST_SAMPLES, whole=True)
    url = check_base_url(server.base_url)
    key = api_key(url, server.key_env)
    wanted = None if server.endpoint == "auto" else server.endpoint
    texts = prompts["prompt"] if all_distinct(prompts["prompt"]) else prompts["prompt"].drop_duplicates()
    first = LISTS_FIRST if wanted is None and all(listed_entities(text) for text in texts) else ENDPOINTS
    with AnswerLog(log_path(out), secret=secrets_of(url, key)) as log:
        run = Collector(model, sampling, log, server.budget, Pace(server.limits.concurrency), server.limits, progress)

        async def work() -> Capabilities:
            async with Api(url, key, server.limits, http_client=server.http_client) as api:
                capabilities = server.capabilities or await run.known_capabilities(api, wanted, first, samples)
                if batch:
                    await ask_in_batches(run, api, capabilities, texts, samples)
                else:
                    await run.ask_all(api, capabilities, texts, samples)
                return capabilities

        stopped: EmergenceError | None = None
        try:
            capabilities = run_async(work)
        except EmergenceError as error:
            if run.capabilities is None:
                raise
            capabilities, stopped = run.capabilities, error
        except KeyboardInterrupt:
            held = sum(map(log.answered, _keys(model, texts, samples, sampling, run)))
            raise KeyboardInterrupt(f"{held} of {len(texts) * samples} answers are kept in {log.path}") from None
        done = Collected(out, capabilities)
        if stopped is not None and not any(map(log.answered, _keys(model, texts, samples, sampling, run))):
            raise stopped
        chunks = response_chunks(log, model, capabilities.endpoint, prompts, samples, sampling)
        try:
            write_chunks(_counted(chunks, done), out)
        except OSError as error:
            held = sum(map(log.answered, _keys(model, texts, samples, sampling, run)))
            raise EmergenceError(
                f"{out} could not be written: {error.strerror or error}. {held} of {len(texts) * samples} answers are "
                f"kept in {log.path}; free some space, and the same command continues without asking for them again."
            ) from None
    if stopped is not None:
        kind = next((kind for kind in (NotReadyError, InputError) if isinstance(stopped, kind)), EmergenceError)
        raise kind(
            f"{str(stopped).rstrip('.')}. {done.rows - done.missing} of {done.rows} answers are in {out}; "
            "the same command asks for the rest."
        ) from None
    return done


def _counted(pieces: Iterable[pd.DataFrame], done: Collected) -> Iterator[pd.DataFrame]:
    for piece in pieces:
        done.count(piece)
        yield piece


def _keys(model: str, texts: Iterable[str], samples: int, sampling: Sampling, run: Collector) -> Iterator[str]:
    """Keys of all answers that are wanted; none before it is known which endpoint answers."""
    for text in texts if run.capabilities is not None else ():
        for sample in range(samples):
            yield answer_key(model, run.capabilities.endpoint, text, sample, sampling)  # type: ignore[union-attr]


def log_path(out: Path) -> Path:
    """Where the answers of the table `out` are logged.

    Example:
        >>> log_path(Path("answers.parquet")).name
        'answers.log.jsonl'
    """
    return out.with_suffix(".log.jsonl")


def estimate_bill(
    model: str, prompts: pd.DataFrame, *, out: Path, budget: Budget, samples: int = 1, sampling: Sampling | None = None
) -> dict[str, float | None]:
    """What `collect` would ask and cost at most, without asking anything.

    Args:
        model: its name at the server.
        prompts: as for `collect`.
        out: the table; answers in the log beside it are not asked for again.
        budget: the prices.
        samples: answers per prompt.
        sampling: of the answers.

    Returns:
        ``answers`` to ask for, ``prompt_tokens`` (about, a token per 4 characters), ``answer_tokens`` (at most),
        ``probe_prompt_tokens`` and ``probe_answer_tokens`` (at most, of the questions that find out what the server
        can do; 0 if the log says that already), and ``cost`` (of all, None without prices).

    Example:
        >>> asked = pd.DataFrame({"prompt": ["Name a river."]})
        >>> bill = estimate_bill("m", asked, out=Path("answers.parquet"), budget=Budget(), samples=2)
        >>> bill["answers"], bill["answer_tokens"]
        (2, 128)
    """
    prompts = check_prompts(prompts)
    sampling = sampling or Sampling()
    answers = tokens = 0
    with AnswerLog(log_path(out)) if log_path(out).is_file() else nullcontext() as log:
        pending, known = (log.pending(), bool(log.capabilities)) if log is not None else (set[str](), False)
        for text in prompts["prompt"].drop_duplicates():
            for sample in range(samples):
                keys = [answer_key(model, endpoint, text, sample, sampling) for endpoint in ENDPOINTS]
                if not any(key in pending or (log is not None and log.answered(key)) for key in keys):
                    answers += 1
                    tokens += len(text + (sampling.system or "")) // 4 + 8
    most = answers * sampling.max_tokens
    probing = (0, 0) if known or not answers else most_tokens()
    return {
        "answers": answers,
        "prompt_tokens": tokens,
        "answer_tokens": most,
        "probe_prompt_tokens": probing[0],
        "probe_answer_tokens": probing[1],
        "cost": budget.cost(tokens + probing[0], most + probing[1]),
    }


def run_async(work: Any) -> Any:
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
