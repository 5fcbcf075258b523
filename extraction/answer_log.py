"""The durable log of answers: each is paid for once, so each is on disk before the next is asked for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from estimators.base import InputError
from extraction.endpoints import Endpoint, Settings

VERSION = 1
SYNC_EVERY_S = 0.5


def answer_key(model: str, endpoint: Endpoint, prompt: str, sample: int, settings: Settings) -> str:
    """Name of one answer: 32 hex digits of all that determines it."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    what = [VERSION, model, endpoint, digest, sample, asdict(settings)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


class AnswerLog:
    """An append-only file of JSON lines, held by one process at a time.

    A record is handed to the operating system before `append` returns, so a killed process loses nothing; it is forced
    to the disk within half a second, which is what a power cut can cost. A last line torn by a crash is cut off on
    opening. Only keys are kept in memory. A record with ``text`` is an answer, one with ``error`` a failure.

    Args:
        path: the file; created if missing.
        secret: a text that must never be written, e.g. the API key; it is replaced by ``[key]``.

    Raises:
        InputError: if another process holds the file, or it is no answer log of this version.
    """

    def __init__(self, path: Path, secret: str = "") -> None:
        self.path = path
        self.answered: set[str] = set()
        self.failed: set[str] = set()
        self.capabilities: dict[str, Mapping[str, Any]] = {}
        self.batches: dict[str, str] = {}
        self._secret = secret
        self._synced = time.monotonic()
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"The answer log {path} could not be opened: {error.strerror}.") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise InputError(
                f"Another run is collecting into {path}; wait for it to end, or choose another --out."
            ) from error
        try:
            self._cut_torn_line()
            for record in self.records():
                self._note(record)
        except BaseException:
            self.close()
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; it survives the end of this process from here on."""
        self._note(record)
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        if self._secret and self._secret in line:
            line = line.replace(self._secret, "[key]")
        data = line.encode("utf-8", errors="backslashreplace") + b"\n"
        while data:
            data = data[os.write(self._handle, data) :]
        if time.monotonic() - self._synced > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._handle)
        self._synced = time.monotonic()

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record in the order of writing.

        Raises:
            InputError: if a line is not a record.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise InputError(
                        f"Line {number} of {self.path} is damaged; remove that line to ask for its answer again."
                    ) from error
                if not isinstance(record, dict) or not ({"key", "capabilities", "batch"} & set(record)):
                    raise InputError(
                        f"{self.path} is no answer log (line {number}); move it away or choose another --out."
                    )
                if record.get("version", VERSION) != VERSION:
                    raise InputError(
                        f"{self.path} was written by another version ({record['version']}, this one reads {VERSION}); "
                        "choose another --out."
                    )
                yield record

    def close(self) -> None:
        """Force everything to the disk and let others have the file."""
        self.sync()
        os.close(self._handle)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, record: Mapping[str, Any]) -> None:
        if "capabilities" in record:
            self.capabilities[str(record["for"])] = record["capabilities"]
        elif "batch" in record:
            self.batches[str(record["batch"])] = str(record["state"])
        elif "error" in record:
            self.failed.add(record["key"])
        else:
            self.answered.add(record["key"])
            self.failed.discard(record["key"])

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._handle).st_size
        keep = size
        step = 1 << 16
        while keep > 0:
            start = max(0, keep - step)
            block = os.pread(self._handle, keep - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < size:
            os.ftruncate(self._handle, keep)
