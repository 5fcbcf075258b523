"""The results of a sweep on disk: a record and a table per job, and the merged table of all."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from estimators.base import EmergenceError, InputError
from estimators.contracts.results_folder import (
    CLAIMS,
    FOLDERS,
    HEADER,
    JOBS,
    MERGED,
    SCHEMA,
    UNSEALED,
    decode_record,
    encode_header,
    encode_record,
    encode_table,
    record_name,
    table_name,
    windows_name,
)
from estimators.contracts.seals import content_hash
from proxy.schemas import EMERGENCE, WINDOWS
from proxy.sweeps.store.storage import Folder, Storage, retry

OTHER_VERSION = "its result is from another version of this program"
ORDER = ["model", "corpus", "layer", "position", "resolution"]
HASHED = 64  # jobs whose tables are in memory at a time to be checked
ROW_GROUP = 100_000  # rows of the merged table written at a time


class Named(Protocol):
    """A job, as far as its results go: its key and the names it has in tables."""

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def model_name(self) -> str: ...  # noqa: D102

    @property
    def corpus_name(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Peaks:
    """What a model took at most when it was measured before, in GiB; None where it was not."""

    main_gb: float | None = None
    gpu_gb: float | None = None


@dataclass
class Found:
    """What a results folder already holds of a list of jobs.

    Attributes:
        done: keys whose result can be used.
        rejected: keys with a result that cannot be used, and why; they are done again.
        failed: keys whose record says that they failed, and when that attempt started.
        unsealed: keys whose record, of an earlier version, holds no hash, so that damage to their tables is not seen.
        seconds: how long each done job took.
        peaks: what each model took at most.
    """

    done: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unsealed: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, Peaks] = field(default_factory=dict)


class ResultsStore:
    """Reads and writes a results folder; every file is in place whole or not at all."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._hashes: dict[str, str] = {}  # of the tables, by key, as their records say

    def __str__(self) -> str:
        return str(self.storage)

    def write_header(self, header: dict[str, Any]) -> None:
        """Write sweep.json: what was asked for, with which versions, on what."""
        content = encode_header(header)
        retry(lambda: self.storage.write(HEADER, content))

    def write_done(self, key: str, table: bytes, record: dict[str, Any], windows: bytes | None = None) -> None:
        """Write a job's windows and its table (see `to_parquet`), then the record that makes them count."""
        if windows is not None:
            retry(lambda: self.storage.write(windows_name(key), windows))
        retry(lambda: self.storage.write(table_name(key), table))
        content = encode_record(key, record, "done", table_version=EMERGENCE.version, table=table, windows=windows)
        self._hashes[key] = content_hash(table)
        retry(lambda: self.storage.write(record_name(key), content))

    def write_failed(self, key: str, record: dict[str, Any]) -> None:
        """Write the record of a job that failed."""
        content = encode_record(key, record, "failed", table_version=EMERGENCE.version)
        retry(lambda: self.storage.write(record_name(key), content))

    def record(self, key: str) -> dict[str, Any] | None:
        """Return a job's record, or None if there is no readable one."""
        try:
            return _parsed(retry(lambda: self.storage.read(record_name(key))), key)
        except FileNotFoundError:
            return None

    def find(self, keys: Iterable[str], *, tables: bool = True) -> Found:
        """Look which of `keys` are done.

        Args:
            keys: of the jobs to look for.
            tables: also check that each table is there and as it was written; without, only the records are read.
        """
        found = Found()
        sizes = retry(lambda: self.storage.sizes(JOBS)) if tables else None
        present = [key for key in keys if sizes is None or record_name(key) in sizes]
        for batch in _batched(present, 1000):
            names = [record_name(key) for key in batch]
            contents = retry(lambda names=names: self.storage.read_many(names))  # type: ignore[misc]
            for key in batch:
                content = contents.get(record_name(key))
                if content is not None:
                    self._classify(key, _parsed(content, key), sizes, found)
            if tables:
                self._check_hashes(batch, contents, found)
        return found

    def _check_hashes(self, keys: Sequence[str], records: Mapping[str, bytes], found: Found) -> None:
        """Reject those done jobs whose tables are not what their records say."""
        for few in _batched([key for key in keys if key in found.done], HASHED):
            names = [name for key in few for name in (table_name(key), windows_name(key))]
            contents = retry(lambda names=names: self.storage.read_many(names))  # type: ignore[misc]
            for key in few:
                record = _parsed(records[record_name(key)], key) or {}
                for name, wanted in (
                    (table_name(key), record.get("table_sha256")),
                    (windows_name(key), record.get("windows_sha256")),
                ):
                    if wanted is not None and (name not in contents or content_hash(contents[name]) != wanted):
                        found.done.discard(key)
                        found.rejected[key] = f"{name} was damaged after it was written"

    def recorded(self) -> set[str]:
        """Return the keys of all jobs that have a record, whatever it says."""
        return {Path(name).stem for name in retry(lambda: self.storage.sizes(JOBS)) if name.endswith(".json")}

    def _classify(self, key: str, record: dict[str, Any] | None, sizes: Mapping[str, int] | None, found: Found) -> None:
        if record is None:
            found.rejected[key] = f"{record_name(key)} was damaged after it was written"
        elif record.get("schema") not in (SCHEMA, UNSEALED) or record.get("table_version") != EMERGENCE.version:
            found.rejected[key] = OTHER_VERSION
        elif record.get("status") == "failed":
            found.failed[key] = str(record.get("started"))
        elif sizes is not None and table_name(key) not in sizes:
            found.rejected[key] = "its table is missing"
        elif sizes is not None and sizes[table_name(key)] != record.get("bytes"):
            found.rejected[key] = "its table is cut short"
        else:
            found.done.add(key)
            if "table_sha256" in record:
                self._hashes[key] = str(record["table_sha256"])
            else:
                found.unsealed.add(key)
            found.seconds[key] = float(record.get("seconds") or 0)
            known = found.peaks.get(record["model"], Peaks())
            found.peaks[record["model"]] = Peaks(
                _larger(known.main_gb, record.get("peak_memory_gb")), _larger(known.gpu_gb, record.get("peak_gpu_gb"))
            )

    def tables(self, jobs: Sequence[Named]) -> Iterator[pa.Table]:
        """Yield the tables of `jobs` sorted by model, corpus, layer, position and resolution, few at a time."""
        ordered = sorted(jobs, key=lambda job: (job.model_name, job.corpus_name, job.key))
        for _, group in itertools.groupby(ordered, key=lambda job: (job.model_name, job.corpus_name)):
            parts = [self._table(job.key) for job in group]
            if len(parts) == 1:  # sorted when it was written
                yield parts[0]
            else:
                yield pa.concat_tables(parts).sort_by([(column, "ascending") for column in ORDER])

    def _table(self, key: str) -> pa.Table:
        content = retry(lambda: self.storage.read(table_name(key)))
        if key in self._hashes and content_hash(content) != self._hashes[key]:
            raise EmergenceError(
                f"{table_name(key)} was damaged after it was written; run the same command again, which measures that "
                "job again."
            )
        try:
            # On small files the reader's threads cost more than they bring.
            return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
        except (OSError, ValueError, TypeError, KeyError, ArithmeticError) as error:  # a table without a hash
            raise EmergenceError(
                f"{table_name(key)} is damaged; delete it with its record, {record_name(key)}, and run the same "
                "command again."
            ) from error

    def emergence(self) -> pd.DataFrame:
        """Return the merged table; without rows when no job is done."""
        try:
            content = retry(lambda: self.storage.read(MERGED))
        except FileNotFoundError:
            return EMERGENCE.conform(pd.DataFrame(columns=list(EMERGENCE.columns)))
        return EMERGENCE.conform(pd.read_parquet(io.BytesIO(content)))

    def copy_to(self, folder: Path) -> None:
        """Copy everything to a local folder, for what can read nothing else."""
        target = Folder(folder)
        parts = (name for part in FOLDERS if part != CLAIMS for name in self.storage.sizes(part))
        for name in (HEADER, MERGED, *parts):
            for found, content in self.storage.read_many([name]).items():
                target.write(found, content)

    def merge(self, jobs: Sequence[Named]) -> int:
        """Write emergence.parquet from the done `jobs`, a few tables in memory at a time; returns its rows."""
        rows = 0
        writer: pq.ParquetWriter | None = None
        with tempfile.TemporaryDirectory(prefix="emergence-") as scratch:
            merged = Path(scratch) / MERGED
            for table in _joined(self.tables(jobs)):
                if writer is None:
                    writer = pq.ParquetWriter(merged, table.schema)
                writer.write_table(table.cast(writer.schema))
                rows += table.num_rows
            if writer is not None:
                writer.close()
                retry(lambda: self.storage.put(MERGED, merged))
        return rows


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables: each one written by itself is a row group, of which the writer keeps 36 kB until the end."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Return a job's rows of the emergence table, sorted, as parquet that carries the schema's version."""
    ordered = EMERGENCE.conform(frame)[list(EMERGENCE.columns)]
    ordered = ordered.sort_values(ORDER, kind="stable", ignore_index=True)
    return encode_table(EMERGENCE.arrow(ordered))


def windows_to_parquet(frame: pd.DataFrame) -> bytes:
    """Return a job's values of single windows as parquet that carries the schema's version."""
    return encode_table(WINDOWS.arrow(WINDOWS.conform(frame)))


def _larger(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _parsed(content: bytes, key: str) -> dict[str, Any] | None:
    try:
        return decode_record(content, record_name(key), key)
    except InputError:
        return None


def _batched(items: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
