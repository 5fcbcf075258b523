"""The results of a sweep on disk: a record and a table per job, and the merged table of all."""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from proxy.schemas import EMERGENCE, WINDOWS
from proxy.sweeps.jobs import RESULT_VERSION, Job
from proxy.sweeps.placement import Peaks
from proxy.sweeps.store.storage import Folder, Storage, patiently

FOLDER_SCHEMA = 1
OTHER_VERSION = "its result is from another version of this program"
ORDER = ["model", "corpus", "layer", "position", "resolution"]
ROW_GROUP = 100_000  # rows of the merged table written at a time


@dataclass
class Found:
    """What a results folder already holds of a list of jobs.

    Attributes:
        done: keys whose result can be used.
        rejected: keys with a result that cannot be used, and why; they are done again.
        failed: keys whose record says that they failed, and when that attempt started.
        seconds: how long each done job took.
        peaks: what each model took at most.
    """

    done: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, Peaks] = field(default_factory=dict)


class Results:
    """Reads and writes a results folder; every file is in place whole or not at all."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __str__(self) -> str:
        return str(self.storage)

    def write_header(self, header: dict[str, Any]) -> None:
        """Write sweep.json: what was asked for, with which versions, on what."""
        content = json.dumps({**header, "schema": FOLDER_SCHEMA}, indent=1).encode()
        patiently(lambda: self.storage.write("sweep.json", content))

    def write_done(self, job: Job, table: bytes, record: dict[str, Any], windows: bytes | None = None) -> None:
        """Write a job's windows and its table (see `to_parquet`), then the record that makes them count."""
        if windows is not None:
            patiently(lambda: self.storage.write(f"windows/{job.key}.parquet", windows))
        patiently(lambda: self.storage.write(f"jobs/{job.key}.parquet", table))
        self._write_record(job, {**record, "status": "done", "bytes": len(table)})

    def write_failed(self, job: Job, record: dict[str, Any]) -> None:
        """Write the record of a job that failed."""
        self._write_record(job, {**record, "status": "failed"})

    def _write_record(self, job: Job, record: dict[str, Any]) -> None:
        versions = {"schema": FOLDER_SCHEMA, "result_version": RESULT_VERSION, "table_version": EMERGENCE.version}
        content = json.dumps({"key": job.key, **record, **versions}, indent=1).encode()
        patiently(lambda: self.storage.write(f"jobs/{job.key}.json", content))

    def record(self, key: str) -> dict[str, Any] | None:
        """Return a job's record, or None if there is no readable one."""
        try:
            return _parsed(patiently(lambda: self.storage.read(f"jobs/{key}.json")))
        except FileNotFoundError:
            return None

    def find(self, keys: Iterable[str], *, tables: bool = True) -> Found:
        """Look which of `keys` are done, from the records, without opening a table.

        Args:
            keys: of the jobs to look for.
            tables: also check by a listing that each table is there and whole; without, only the records are read.
        """
        found = Found()
        sizes = patiently(lambda: self.storage.sizes("jobs")) if tables else None
        present = [key for key in keys if sizes is None or f"jobs/{key}.json" in sizes]
        for batch in _batched(present, 1000):
            names = [f"jobs/{key}.json" for key in batch]
            contents = patiently(lambda names=names: self.storage.read_many(names))  # type: ignore[misc]
            for key in batch:
                content = contents.get(f"jobs/{key}.json")
                if content is not None:
                    self._judge(key, _parsed(content), sizes, found)
        return found

    def outdated(self, jobs: Sequence[Job]) -> list[Job]:
        """Return those of `jobs` that an earlier version of this program has done."""
        sizes = patiently(lambda: self.storage.sizes("jobs"))
        return [job for job in jobs if any(f"jobs/{key}.json" in sizes for key in job.earlier_keys)]

    def _judge(self, key: str, record: dict[str, Any] | None, sizes: Mapping[str, int] | None, found: Found) -> None:
        if record is None:
            found.rejected[key] = "its record is cut short"
        elif (record.get("schema"), record.get("table_version")) != (FOLDER_SCHEMA, EMERGENCE.version):
            found.rejected[key] = OTHER_VERSION
        elif record.get("status") == "failed":
            found.failed[key] = str(record.get("started"))
        elif sizes is not None and f"jobs/{key}.parquet" not in sizes:
            found.rejected[key] = "its table is missing"
        elif sizes is not None and sizes[f"jobs/{key}.parquet"] != record.get("bytes"):
            found.rejected[key] = "its table is cut short"
        else:
            found.done.add(key)
            found.seconds[key] = float(record.get("seconds") or 0)
            known = found.peaks.get(record["model"], Peaks())
            found.peaks[record["model"]] = Peaks(
                _larger(known.main_gb, record.get("peak_memory_gb")), _larger(known.gpu_gb, record.get("peak_gpu_gb"))
            )

    def tables(self, jobs: Sequence[Job]) -> Iterator[pa.Table]:
        """Yield the tables of `jobs` sorted by model, corpus, layer, position and resolution, few at a time."""
        ordered = sorted(jobs, key=lambda job: (job.model_name, job.corpus_name, job.key))
        for _, group in itertools.groupby(ordered, key=lambda job: (job.model_name, job.corpus_name)):
            parts = [self._table(job.key) for job in group]
            if len(parts) == 1:  # sorted when it was written
                yield parts[0]
            else:
                yield pa.concat_tables(parts).sort_by([(column, "ascending") for column in ORDER])

    def _table(self, key: str) -> pa.Table:
        content = patiently(lambda: self.storage.read(f"jobs/{key}.parquet"))
        # On small files the reader's threads cost more than they bring.
        return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)

    def emergence(self) -> pd.DataFrame:
        """Return the merged table; without rows when no job is done."""
        try:
            content = patiently(lambda: self.storage.read("emergence.parquet"))
        except FileNotFoundError:
            return EMERGENCE.conform(pd.DataFrame(columns=list(EMERGENCE.columns)))
        return EMERGENCE.conform(pd.read_parquet(io.BytesIO(content)))

    def copy_to(self, folder: Path) -> None:
        """Copy everything to a local folder, for what can read nothing else."""
        target = Folder(folder)
        parts = (name for part in ("jobs", "windows") for name in self.storage.sizes(part))
        for name in ("sweep.json", "emergence.parquet", *parts):
            for found, content in self.storage.read_many([name]).items():
                target.write(found, content)

    def merge(self, jobs: Sequence[Job]) -> int:
        """Write emergence.parquet from the done `jobs`, a few tables in memory at a time; returns its rows."""
        rows = 0
        writer: pq.ParquetWriter | None = None
        with tempfile.TemporaryDirectory(prefix="emergence-") as scratch:
            merged = Path(scratch) / "emergence.parquet"
            for table in _joined(self.tables(jobs)):
                if writer is None:
                    writer = pq.ParquetWriter(merged, table.schema)
                writer.write_table(table.cast(writer.schema))
                rows += table.num_rows
            if writer is not None:
                writer.close()
                patiently(lambda: self.storage.put("emergence.parquet", merged))
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
    return _parquet(EMERGENCE.arrow(ordered))


def windows_to_parquet(frame: pd.DataFrame) -> bytes:
    """Return a job's values of single windows as parquet that carries the schema's version."""
    return _parquet(WINDOWS.arrow(WINDOWS.conform(frame)))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _larger(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _batched(items: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
