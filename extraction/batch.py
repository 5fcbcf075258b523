"""The Batch API: calls handed in as files, answered within a day at the server's leisure, fetched later."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from estimators.base import EmergenceError, InputError
from extraction.answer_log import VERSION
from extraction.api import Api, BrokenError, RefusedError
from extraction.asking import Asking, Job
from extraction.endpoints import PATHS, Capabilities, Endpoint, MalformedAnswerError, billed_tokens, read
from extraction.pace import prompt_tokens_upper

if TYPE_CHECKING:
    from openai.types import Batch

MOST_CALLS = 50_000  # of one batch, as OpenAI documents
MOST_BYTES = 190_000_000  # of its file; the documented limit is 200 MB
OVER = ("completed", "expired", "cancelled", "failed")
MARK = "emergence"  # metadata by which a batch is found again if this process dies before it learns the batch's name

T = TypeVar("T")


class NotReadyError(EmergenceError):
    """The batch is on its way; come back later."""


async def ask_in_batches(run: Asking, api: Api, able: Capabilities, texts: Sequence[str], samples: int) -> None:
    """Fetch what batches handed in earlier have answered, or else hand in what is missing.

    Raises:
        NotReadyError: if answers are still to come.
        InputError: if the server has no Batch API.
    """
    run.able = able = replace(able, several=False)
    missing = {job.keys[0]: job for job in run.jobs(able, texts, samples)}
    await _find_again(run, api)
    waiting = []
    fetched = 0
    for name in [name for name, state in run.log.batches.items() if state == "handed in"]:
        batch = await _answer(api, api.client.batches.retrieve(name))
        if batch.status not in OVER:
            waiting.append(batch)
            continue
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                await _fetch(run, api, able.endpoint, file, missing)
        run.log.append({"version": VERSION, "batch": name, "state": "fetched"})
        fetched += 1
        if batch.status == "failed":
            reasons = [str(error.message) for error in (batch.errors.data if batch.errors else None) or []]
            raise EmergenceError(f"The server refused batch {name}: {'; '.join(reasons[:3]) or 'it does not say why'}.")
    if waiting:
        raise NotReadyError("; ".join(_state(batch) for batch in waiting))
    if missing and not fetched:
        names = [await _hand_in(run, api, able, part) for part in _parts(run, able, missing.values())]
        raise NotReadyError(f"Handed in {len(missing)} calls as {', '.join(names)}; answers come within 24 hours")


async def _hand_in(run: Asking, api: Api, able: Capabilities, part: IO[bytes]) -> str:
    token = uuid.uuid4().hex
    run.log.append({"version": VERSION, "batch": token, "state": "preparing"})
    run.log.sync()
    with part:
        file = await _answer(api, api.client.files.create(file=Path(part.name), purpose="batch"))
    endpoint: Any = f"/v1{PATHS[able.endpoint]}"
    window: Literal["24h"] = "24h"
    batch = await _answer(
        api,
        api.client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window=window, metadata={MARK: token}
        ),
    )
    run.log.append({"version": VERSION, "batch": token, "state": "named"})
    run.log.append({"version": VERSION, "batch": batch.id, "state": "handed in"})
    run.log.sync()
    return str(batch.id)


async def _find_again(run: Asking, api: Api) -> None:
    """Look for batches that were handed in by a run that died before it could note their names."""
    tokens = {name for name, state in run.log.batches.items() if state == "preparing"}
    if not tokens:
        return
    page = await _answer(api, api.client.batches.list(limit=100))
    for batch in page.data:
        token = (batch.metadata or {}).get(MARK)
        if token in tokens:
            run.log.append({"version": VERSION, "batch": batch.id, "state": "handed in"})
    for token in tokens:
        run.log.append({"version": VERSION, "batch": token, "state": "named"})


def _parts(run: Asking, able: Capabilities, jobs: Iterable[Job]) -> Iterator[IO[bytes]]:
    """Files of requests within the limits of one batch, each open and at its end."""
    part: IO[bytes] | None = None
    count = size = 0
    for job in jobs:
        run.budget.hold(prompt_tokens_upper(job.prompt + (run.settings.system or "")), run.settings.max_tokens)
        url = f"/v1{PATHS[able.endpoint]}"
        call = {"custom_id": job.keys[0], "method": "POST", "url": url, "body": run.body(able, job)}
        line = json.dumps(call).encode() + b"\n"
        if part is None or count == MOST_CALLS or size + len(line) > MOST_BYTES:
            if part is not None:
                part.flush()
                yield part
            part = tempfile.NamedTemporaryFile(prefix="emergence-batch-", suffix=".jsonl")  # noqa: SIM115
            count = size = 0
        part.write(line)
        count, size = count + 1, size + len(line)
    if part is not None:
        part.flush()
        yield part


async def _fetch(run: Asking, api: Api, endpoint: Endpoint, file: str, missing: dict[str, Job]) -> None:
    """Log the answers in a result file; what was not asked for, or is there already, is left alone."""
    async for line in _lines(api, file):
        try:
            entry = json.loads(line)
            job = missing.get(str(entry["custom_id"]))
        except (ValueError, KeyError, TypeError):
            continue  # without its name a line belongs to nobody; the answer stays missing
        if job is None or job.keys[0] in run.log.answered:
            continue
        response = entry.get("response") or {}
        reply = response.get("body")
        if response.get("status_code") != 200:
            error = entry.get("error") or (reply or {}).get("error") or {}
            run.fail(job.keys, f"HTTP {response.get('status_code', '?')}: {str(error.get('message', error))[:300]}")
            continue
        billed = billed_tokens(endpoint, reply)
        run.budget.settle((0, 0), (billed[0] or 0, billed[1] or 0))
        try:
            run.keep(job, read(endpoint, reply), billed, None)
        except MalformedAnswerError as error:
            run.fail(job.keys, str(error))


async def _lines(api: Api, file: str) -> AsyncIterator[bytes]:
    rest = b""
    async with api.client.files.with_streaming_response.content(file) as response:
        async for block in response.iter_bytes():
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line
    if rest.strip():
        yield rest


async def _answer(api: Api, call: Awaitable[T]) -> T:
    import openai

    try:
        return await call
    except openai.APIConnectionError:
        raise BrokenError("the server could not be reached", reached=False) from None
    except openai.APIStatusError as error:
        explained = api.explained(error)
        if isinstance(explained, RefusedError) and explained.status in (404, 405):
            raise InputError(f"{api.base_url} has no Batch API (HTTP {explained.status}); leave --batch out.") from None
        raise explained from None


def _state(batch: Batch) -> str:
    counts = batch.request_counts
    done = f", {counts.completed} of {counts.total} done" if counts is not None else ""
    return f"Batch {batch.id} is {batch.status.replace('_', ' ')}{done}"
