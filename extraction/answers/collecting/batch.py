"""The Batch API: calls submitted as files, answered by the server within a day, fetched later."""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.api import Api
from extraction.answers.collecting.budget import BudgetSpentError
from extraction.answers.collecting.endpoints import PATHS, Capabilities
from extraction.answers.collecting.faults import BrokenError, MalformedAnswerError, RefusedError, reason_of
from extraction.answers.collecting.replies import Answer, billed_tokens
from extraction.answers.collecting.requests import Call, Collector, cut

if TYPE_CHECKING:
    from openai.types import Batch

MOST_CALLS = 50_000  # of one batch, as OpenAI documents
MOST_BYTES = 190_000_000  # of its file; the documented limit is 200 MB
OVER = ("completed", "expired", "cancelled", "failed")
MARK = "emergence"  # metadata by which a batch is found again if this process dies before it learns the batch's name
CLOCKS_DIFFER_S = 24 * 3600  # batches older than this before one was submitted are not looked through

T = TypeVar("T")


class NotReadyError(EmergenceError):
    """The batch is not finished yet; run the same command later."""


async def ask_in_batches(
    run: Collector, api: Api, capabilities: Capabilities, texts: Iterable[str], samples: int
) -> None:
    """Fetch what batches submitted earlier have answered, whatever run they were for, then submit what is missing.

    What a batch fetched just now failed to answer is submitted by the next call, so that its reasons are seen first.

    Raises:
        NotReadyError: if answers are still to come.
        InputError: if the server has no Batch API, or no system prompt.
        BudgetSpentError: if the limit does not allow for all; what it does allow for is submitted.
    """
    run.begin(capabilities)
    await _find_again(run, api)
    before = run.log.pending()
    unknown = waiting = False
    states = []
    for name in [name for name, state in run.log.batches.items() if state == "submitted"]:
        batch = await _answer(api, api.client.batches.retrieve(name))
        if batch.status in OVER:
            await _fetch_all(run, api, capabilities, batch)
            unknown = unknown or _asked(run, batch) is None
        else:
            states.append(_state(batch))
            waiting = waiting or _asked(run, batch) is None  # a log that does not say what the batch was asked for
    pending = run.log.pending()
    ready, due = [], 0
    for call in run.calls(capabilities, texts, samples):
        due += sum(key in pending for key in call.keys)
        ready += _lines_of(run, call, before)
    if ready and not unknown and not waiting:
        names, spent, count = [], None, 0
        try:
            for part in _parts(run, capabilities, ready):
                names.append(await _submit(run, api, capabilities, part))
                count += len(part.calls)
        except BudgetSpentError as error:
            spent = error
        submitted = f"Submitted {count} calls as {', '.join(names)}; answers come within 24 hours"
        if spent is not None:
            raise BudgetSpentError(f"{submitted if names else 'Nothing was submitted'}. {spent}") from None
        raise NotReadyError("; ".join([submitted, *states]))
    if due or waiting:
        raise NotReadyError("; ".join(states))


@dataclass(slots=True)
class _Part:
    """The requests of one batch: their file, and what they can cost."""

    file: IO[bytes]
    calls: list[tuple[str, ...]]  # keys of each
    held: tuple[int, int] = (0, 0)
    size: int = 0


def _lines_of(run: Collector, call: Call, before: set[str]) -> list[Call]:
    """Lines for those answers of a call that are not pending.

    They stand in one line, unless they failed together: some servers take `n` up to a number of their own.
    """
    open_ = [(number, key) for number, key in zip(call.samples, call.keys, strict=True) if key not in before]
    if any(run.log.record(key) is not None for _, key in open_):
        return [Call(call.prompt, (number,), (key,)) for number, key in open_]
    if not open_:
        return []
    numbers, keys = zip(*open_, strict=True)
    return [Call(call.prompt, numbers, keys)]


def _asked(run: Collector, batch: Batch) -> Mapping[str, Any] | None:
    """What the batch was asked for, as the log says; None in a log of an earlier release."""
    return run.log.submitted.get((batch.metadata or {}).get(MARK, ""))


async def _submit(run: Collector, api: Api, capabilities: Capabilities, part: _Part) -> str:
    token = uuid.uuid4().hex
    asked: dict[str, Any] = {"model": run.model, "endpoint": capabilities.endpoint, "stop": run.sampling.stop}
    asked |= {"keys": [key for keys in part.calls for key in keys], "together": [len(keys) for keys in part.calls]}
    made = int(time.time())
    run.log.append({"batch": token, "state": "preparing", **asked, "held": part.held, "made": made})
    run.log.sync()
    with part.file as requests:
        file = await _answer(api, api.client.files.create(file=Path(requests.name), purpose="batch"))
    endpoint: Any = f"/v1{PATHS[capabilities.endpoint]}"
    window: Literal["24h"] = "24h"
    batch = await _answer(
        api,
        api.client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window=window, metadata={MARK: token}
        ),
    )
    run.log.append({"batch": batch.id, "state": "submitted"})
    run.log.append({"batch": token, "state": "named"})
    run.log.sync()
    return str(batch.id)


async def _find_again(run: Collector, api: Api) -> None:
    """Look for batches that were submitted by a run that died before it could note their names."""
    tokens = {name for name, state in run.log.batches.items() if state == "preparing"}
    if not tokens:
        return
    oldest = min(run.log.submitted[token]["made"] if token in run.log.submitted else 0 for token in tokens)
    try:
        async for batch in api.client.batches.list(limit=100):  # newest first, page by page
            token = (batch.metadata or {}).get(MARK)
            if token in tokens:
                run.log.append({"batch": batch.id, "state": "submitted"})
                run.log.append({"batch": token, "state": "named"})
                tokens.remove(token)
            if not tokens or (batch.created_at or oldest) < oldest - CLOCKS_DIFFER_S:
                break
    except _client_errors() as error:
        raise _explained(api, error) from None
    for token in tokens:
        run.log.append({"batch": token, "state": "never arrived"})


def _parts(run: Collector, capabilities: Capabilities, calls: Iterable[Call]) -> Iterator[_Part]:
    """Files of requests within the limits of one batch and of the budget.

    Raises:
        BudgetSpentError: if the budget does not allow for all, after those parts for which it does.
    """
    part: _Part | None = None
    spent: BudgetSpentError | None = None
    url = f"/v1{PATHS[capabilities.endpoint]}"
    for call in calls:
        held = run.most_tokens(call)
        try:
            run.budget.hold(*held)
        except BudgetSpentError as error:
            spent = error
            break
        request = {"custom_id": call.keys[0], "method": "POST", "url": url, "body": run.body(capabilities, call)}
        line = json.dumps(request).encode() + b"\n"
        if part is not None and (len(part.calls) == MOST_CALLS or part.size + len(line) > MOST_BYTES):
            part.file.flush()
            yield part
            part = None
        if part is None:
            part = _Part(tempfile.NamedTemporaryFile(prefix="emergence-batch-", suffix=".jsonl"), [])  # noqa: SIM115
        part.file.write(line)
        part.calls.append(call.keys)
        part.size += len(line)
        part.held = part.held[0] + held[0], part.held[1] + held[1]
    if part is not None:
        part.file.flush()
        yield part
    if spent is not None:
        raise spent


async def _fetch_all(run: Collector, api: Api, capabilities: Capabilities, batch: Batch) -> None:
    """Log what a batch brought; only then is it marked as fetched."""
    asked = _asked(run, batch) or {"model": run.model, "endpoint": capabilities.endpoint, "stop": run.sampling.stop}
    for file in (batch.output_file_id, batch.error_file_id):
        if file:
            await _fetch(run, api, asked, file)
    token = (batch.metadata or {}).get(MARK, "")
    run.log.append({"batch": batch.id, "state": "fetched", "token": token})
    run.count_earlier()
    if batch.status == "failed":
        reasons = [api.clean(error.message) for error in (batch.errors.data if batch.errors else None) or []]
        raise EmergenceError(f"The server refused batch {batch.id}: {'; '.join(reasons[:3]) or 'it does not say why'}.")


async def _fetch(run: Collector, api: Api, asked: Mapping[str, Any], file: str) -> None:
    """Log every answer in a result file, also those that this run does not ask for: they are paid for."""
    calls = _keys_by_name(asked) if "keys" in asked else None
    async for line in _lines(api, file):
        try:
            entry = json.loads(line)
            name = str(entry["custom_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # without its name a line cannot be assigned; the answer stays missing
        keys = calls.get(name, ()) if calls is not None else (name,) if re.fullmatch("[0-9a-f]{32}", name) else ()
        missing = [(place, key) for place, key in enumerate(keys) if not run.log.answered(key)]
        if not missing:
            continue
        reply, reason = _outcome(entry)
        answers: list[Answer] = []
        bill = (0, 0)
        if reason is None:
            if len(missing) == len(keys):  # else a run that died among them has noted the bill with the first
                billed = billed_tokens(asked["endpoint"], reply)
                bill = run.budget.settle((0, 0), (billed[0] or 0, billed[1] or 0))
            try:
                answers = [answer for answer, _ in zip(api.read(asked["endpoint"], reply), keys, strict=False)]
                reason = f"the reply has {len(answers)} of {len(keys)} answers asked for"
            except MalformedAnswerError as error:
                reason = str(error)
        for place, key in missing:
            if place < len(answers):
                run.note_answer(key, asked["model"], cut(answers[place], asked["stop"]), bill)
            else:
                run.note_failure(key, asked["model"], api.clean(reason or ""), bill)
            bill = (0, 0)


def _keys_by_name(asked: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Keys of the answers of each line, by its name; in a log of an earlier release each line has one."""
    keys = iter(asked["keys"])
    lines = (tuple(islice(keys, count)) for count in asked.get("together") or repeat(1, len(asked["keys"])))
    return {line[0]: line for line in lines}


def _outcome(entry: Mapping[str, Any]) -> tuple[object, str | None]:
    """The reply in a line of a result file, or the reason why there is none."""
    response = entry.get("response")
    response = response if isinstance(response, dict) else {}
    if response.get("status_code") == 200:
        return response.get("body"), None
    reason = reason_of(entry.get("error")) or reason_of(response.get("body")) or "the server gives no reason"
    return None, f"HTTP {response.get('status_code', '?')}: {reason}"


async def _lines(api: Api, file: str) -> AsyncIterator[bytes]:
    rest = b""
    try:
        async with api.client.files.with_streaming_response.content(file) as response:
            async for block in response.iter_bytes():
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield line
    except _client_errors() as error:
        raise _explained(api, error) from None
    if rest.strip():
        yield rest


async def _answer(api: Api, call: Awaitable[T]) -> T:
    try:
        return await call
    except _client_errors() as error:
        explained = _explained(api, error)
        if isinstance(explained, RefusedError) and explained.status in (404, 405):
            raise InputError(f"{api.shown} has no Batch API (HTTP {explained.status}); leave --batch out.") from None
        raise explained from None


def _client_errors() -> tuple[type[Exception], ...]:
    """What the client raises, also while it transfers a file."""
    import httpx2
    import openai

    return openai.OpenAIError, httpx2.HTTPError, ValueError


def _explained(api: Api, error: Exception) -> EmergenceError:
    """The error of this project for one of the client's."""
    import openai

    if isinstance(error, EmergenceError):
        return error
    if isinstance(error, openai.APIStatusError):
        return api.explained(error)
    if isinstance(error, openai.APIConnectionError):
        return BrokenError("the server could not be reached", reached=False)
    return BrokenError(f"the reply was lost or cannot be read ({api.clean(error)})", reached=True)


def _state(batch: Batch) -> str:
    counts = batch.request_counts
    done = f", {counts.completed} of {counts.total} done" if counts is not None else ""
    return f"Batch {batch.id} is {str(batch.status).replace('_', ' ')}{done}"
