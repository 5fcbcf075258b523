"""The durable log of answers: each is paid for once, so each is on disk before the next is asked for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from estimators.base import EmergenceError, InputError
from estimators.contracts.closing import Closing
from estimators.contracts.seals import is_whole, sealed
from extraction.answers.collecting.endpoints import Endpoint
from extraction.answers.collecting.redaction import without_secret
from extraction.answers.sampling import Sampling

VERSION = 1  # of what names an answer
SEALED = 2  # of a record with a hash of itself; earlier ones have none
SYNC_EVERY_S = 0.5
BEGINNING = b'{"version": '  # of every record


def answer_key(model: str, endpoint: Endpoint, prompt: str, sample: int, sampling: Sampling) -> str:
    """Name of one answer: 32 hex digits of all that determines it.

    Example:
        >>> len(answer_key("m", "chat", "Name a river.", 0, Sampling(seed=1)))
        32
    """
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    how = asdict(sampling)
    for later in ("whole", "echo"):
        if not how[later]:
            del how[later]  # so that answers of earlier versions keep their names
    what = [VERSION, model, endpoint, digest, sample, how]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


class LogInUseError(InputError):
    """Another process holds the log."""


class AnswerLog(Closing):
    """An append-only file of JSON lines, held by one process at a time.

    A record is handed to the operating system before `append` returns, so a killed process loses nothing; it is forced
    to the disk by the next `append` or `sync` half a second later and by `close`, so a power cut costs half a second. A
    line torn by a crash or a full disk is passed over, so that its answer alone is asked for again. Only keys and the
    places of their lines are kept in memory. A record with ``text`` is an answer, one with ``error`` a failure.

    Args:
        path: the file; created if missing. Nothing in it is changed unless all of it is an answer log.
        secret: a text that must never be written, e.g. the API key; it is replaced by ``[key]`` if it has 8 characters.

    Attributes:
        capabilities: of servers, by place.
        batches: state of each batch, by name.
        submitted: what each batch was asked for, by the token it was submitted under.
        over: tokens of batches that have been fetched, or never arrived.
        billed: prompt and answer tokens, by model.
        questions: calls of the last time that each question of what a server can do was looked into, by model and key.

    Raises:
        InputError: if another process holds the file, or it is not an answer log of this version.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.log.jsonl"
        >>> with AnswerLog(path) as log:
        ...     log.append({"key": "ab", "model": "m", "text": "The Elbe.", "billed": [9, 3]})
        ...     log.answered("ab"), log.billed
        (True, {'m': (9, 3)})
    """

    def __init__(self, path: Path, secret: str | Iterable[str] = "") -> None:
        self.path = path
        self._places: dict[bytes, int] = {}  # of each key's last answer; of its last failure as -1 - place
        self.capabilities: dict[str, Mapping[str, Any]] = {}
        self.batches: dict[str, str] = {}
        self.submitted: dict[str, Mapping[str, Any]] = {}
        self.over: set[str] = set()
        self.billed: dict[str, tuple[int, int]] = {}
        self.questions: dict[tuple[str, str], int] = {}
        self._sent: dict[str, tuple[str, int, int]] = {}  # calls without an outcome: model, and the most they cost
        self._secret = secret
        self._synced_all = True
        self._synced = time.monotonic()
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is not a file but a device or pipe; choose another --out.")
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"The answer log {path} could not be opened: {error.strerror}.") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise LogInUseError(
                f"Another run is collecting into {path}; wait for it to end, or choose another --out."
            ) from error
        try:
            for place, record in self._placed_records():
                self._note(record, place)
            self._mend_end()
        except BaseException:
            self.close()
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; it survives the end of this process from here on.

        Raises:
            EmergenceError: if it cannot be written, as on a full disk.
        """
        clean: dict[str, Any] = without_secret(dict(record), self._secret)
        if clean.get("logprobs") and clean.get("text") != record.get("text"):
            clean["logprobs"] = None  # token by token, they would spell what was taken out of the text
        line = json.dumps(sealed({"version": SEALED, **clean}), ensure_ascii=False, allow_nan=False)
        data = line.encode("utf-8", errors="backslashreplace") + b"\n"
        before = os.fstat(self._handle).st_size
        self._synced_all = False
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            os.ftruncate(self._handle, before)  # half a record would spoil the next one
            raise EmergenceError(f"The answer log {self.path} could not be written: {error.strerror}.") from error
        self._note(clean, before)
        self.sync_now_and_then()

    def sync_now_and_then(self) -> None:
        """Force what was written to the disk, if that was not done for half a second."""
        if not self._synced_all and time.monotonic() - self._synced > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Force what was written to the disk.

        Raises:
            EmergenceError: if that cannot be done, as on a full disk.
        """
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise EmergenceError(f"The answer log {self.path} could not be written: {error.strerror}.") from error
        self._synced, self._synced_all = time.monotonic(), True

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record in the order of writing.

        Raises:
            InputError: if a line is not a record.
        """
        for _, record in self._placed_records():
            yield record

    def answered(self, key: str) -> bool:
        """Whether the log holds an answer of this key."""
        return self._places.get(_packed(key), -1) >= 0

    def record(self, key: str) -> dict[str, Any] | None:
        """The last answer of this key; where there is none, the last failure, or None."""
        place = self._places.get(_packed(key))
        return None if place is None else self._record_at(place if place >= 0 else -1 - place)

    def _placed_records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        place = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = self._read(line, number)
                if record is not None:
                    yield place, record
                place += len(line)

    def _record_at(self, place: int) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            block = os.pread(self._handle, 1 << 14, place + len(line))
            line += block[: block.find(b"\n") + 1] if b"\n" in block else block
            if not block:
                break
        return self._read(line, 0) or {}

    def _read(self, line: bytes, number: int) -> dict[str, Any] | None:
        """The record in a line; None if the line was torn."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if line.startswith(BEGINNING) or BEGINNING.startswith(line.rstrip()):
                behind = line.rfind(BEGINNING)  # the next record, if it was written after the torn one
                return self._read(line[behind:], number) if behind > 0 else None
            raise InputError(
                f"Line {number} of {self.path} is damaged; remove that line to ask for its answer again."
            ) from error
        if not isinstance(record, dict) or not ({"key", "capabilities", "batch"} & set(record)):
            raise InputError(f"{self.path} is not an answer log (line {number}); move it away or choose another --out.")
        if record.get("version", VERSION) not in (VERSION, SEALED):
            raise InputError(
                f"{self.path} was written by another version ({str(record['version'])[:20]}, this one reads {SEALED}); "
                "choose another --out."
            )
        if (record.get("version") == SEALED and not is_whole(record)) or not _well_formed(record):
            raise InputError(
                f"Line {number} of {self.path} was damaged after it was written; remove that line to ask for its "
                "answer again."
            )
        return record

    def pending(self) -> set[str]:
        """Keys of answers that pending batches were asked for."""
        return {key for batch in self._open_batches() for key in batch["keys"] if not self.answered(key)}

    def due(self, model: str) -> tuple[int, int]:
        """Prompt and answer tokens that pending batches can cost at most."""
        held = [batch["held"] for batch in self._open_batches() if batch["model"] == model]
        return sum(each[0] for each in held), sum(each[1] for each in held)

    def _open_batches(self) -> Iterator[Mapping[str, Any]]:
        return (batch for batch in self.submitted.values() if batch["batch"] not in self.over)

    def settle_interrupted(self) -> None:
        """Charge calls of a run that died before their replies at the most they can have cost."""
        for key, (model, prompt_tokens, completion_tokens) in list(self._sent.items()):
            reason = "the run ended before the reply"
            self.append({"key": key, "model": model, "error": reason, "billed": [prompt_tokens, completion_tokens]})

    def close(self) -> None:
        """Force everything to the disk and let others have the file."""
        try:
            self.sync()
        finally:
            os.close(self._handle)

    def _note(self, record: Mapping[str, Any], place: int) -> None:
        billed = record.get("billed")
        if isinstance(billed, list | tuple) and "model" in record:
            before = self.billed.get(str(record["model"]), (0, 0))
            self.billed[str(record["model"])] = (before[0] + (billed[0] or 0), before[1] + (billed[1] or 0))
            self._sent.pop(str(record.get("key")), None)
        if "calls" in record:
            self.questions[str(record["model"]), str(record["key"])] = int(record["calls"])
        if "sent" in record:
            _, *before_this = self._sent.get(str(record["key"]), ("", 0, 0))
            held = record["sent"]
            self._sent[str(record["key"])] = str(record["model"]), before_this[0] + held[0], before_this[1] + held[1]
        elif "capabilities" in record:
            self.capabilities[str(record["for"])] = record["capabilities"]
        elif "batch" in record:
            self.batches[str(record["batch"])] = str(record["state"])
            if "keys" in record:
                self.submitted[str(record["batch"])] = record
            if record["state"] in ("fetched", "never arrived"):
                self.over.add(str(record.get("token", record["batch"])))
        elif "error" not in record:
            self._places[_packed(record["key"])] = place
        elif not self.answered(record["key"]):
            self._places[_packed(record["key"])] = -1 - place

    def _mend_end(self) -> None:
        """End a last line that was torn, so that the next record has a line of its own; it costs no paid answer."""
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")


def _packed(key: str) -> bytes:
    """The key in half the memory."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode("utf-8", "surrogatepass")


def _well_formed(record: Mapping[str, Any]) -> bool:
    """Whether the fields that this log reads are what they should be."""

    def counts(pair: object) -> bool:
        return isinstance(pair, list) and len(pair) == 2 and all(x is None or (type(x) is int and x >= 0) for x in pair)

    if "billed" in record and record["billed"] is not None and not counts(record["billed"]):
        return False
    if "sent" in record and not (counts(record["sent"]) and None not in record["sent"] and "model" in record):
        return False
    if "calls" in record and not (type(record["calls"]) is int and {"key", "model"} <= set(record)):
        return False
    kinds = {"text": str | None, "error": str, "model": str, "batch": str}
    if any(name in record and not isinstance(record[name], kind) for name, kind in kinds.items()):
        return False
    if "capabilities" in record:
        return "for" in record and isinstance(record["capabilities"], dict)
    if "batch" not in record:
        return isinstance(record["key"], str)
    if "keys" in record:
        whole = isinstance(record["keys"], list) and all(isinstance(key, str) for key in record["keys"])
        together = record.get("together", [])
        whole = whole and isinstance(together, list) and all(type(count) is int and count > 0 for count in together)
        if not (whole and counts(record.get("held")) and None not in record["held"] and "model" in record):
            return False
    return isinstance(record.get("state"), str)
