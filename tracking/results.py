"""A sweep's results folder as read from disk: all that is needed to track, compare or report it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import InputError
from estimators.contracts.files import check_file
from estimators.contracts.peaks import complete, flags, measured
from estimators.contracts.results_folder import (
    HEADER,
    JOBS,
    decode_header,
    decode_record,
    decode_table,
    windows_name,
)
from estimators.contracts.secrets import masked
from tracking.summary import figure_rows, summary_table

WINDOWS_FILE = "windows.parquet"  # among the artifacts of a job's run


@dataclass(frozen=True)
class JobResult:
    """What became of a job: one model on one corpus, done or failed.

    Attributes:
        key: hash of all that determines the result.
        record: the job's JSON: status, model, corpus, configuration, times, error.
        path: parquet file of its rows of the emergence table; None if the job failed.
        model: the model's name, with what tells it apart if the sweep has two of that name.
        corpus: the corpus' name, likewise.
    """

    key: str
    record: dict[str, Any]
    path: Path | None
    model: str
    corpus: str

    @property
    def name(self) -> str:
        """What people call it: model and corpus."""
        return f"{self.model} on {self.corpus}"

    @cached_property
    def digest(self) -> str:
        """Hash of the outcome: equal when the job gave the same numbers or failed in the same way, whenever it ran."""
        outcome = [self.key, *(self.record.get(name) for name in ("status", "error_type", "error"))]
        numbers = pd.util.hash_pandas_object(self.rows.drop(columns=["seconds"], errors="ignore"), index=False)
        return digest(json.dumps(outcome).encode() + numbers.to_numpy().tobytes())

    @property
    def reason(self) -> str:
        """Why the job gave no number: its error, or the flags of rows that hold none."""
        if self.failed:
            return f"{self.record.get('error_type')}: {self.record.get('error')}"
        return f"none of its {len(self.rows)} rows holds a finite number ({flags(self.rows) or 'no flags'})"

    @property
    def failed(self) -> bool:
        """Whether the job has an error instead of rows."""
        return self.path is None

    @property
    def started(self) -> int:
        """Start in milliseconds since 1970, as MLflow counts; 0 if not known."""
        return milliseconds(self.record.get("started"))

    @property
    def ended(self) -> int:
        """End in milliseconds since 1970."""
        return self.started + round(1000 * float(self.record.get("seconds") or 0))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The job's rows of the emergence table; empty if it failed.

        Raises:
            InputError: if the file cannot be read.
        """
        if self.path is None:
            return pd.DataFrame()
        rows = _table(self.path, self.record.get("table_sha256"))
        return complete(rows.assign(model=self.model, corpus=self.corpus))

    @property
    def windows_path(self) -> Path | None:
        """Parquet file of the values of single windows; None where none was kept: a trained estimator, a failure."""
        if self.path is None:
            return None
        path = self.path.parent.parent / windows_name(self.key)
        return path if path.is_file() else None


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        folder: where it lies, maybe as a copy.
        record: sweep.json: name, config, versions, git_revision, seed, hardware, created.
        jobs: all jobs that ended, failed ones too, by model and corpus.
        where: what people call the place of the results.
    """

    folder: Path
    record: dict[str, Any]
    jobs: tuple[JobResult, ...]
    where: str

    @property
    def name(self) -> str:
        """The sweep's name."""
        return str(self.record.get("name") or self.folder.name)

    @property
    def key(self) -> str:
        """What makes this sweep the same one wherever and however often it is run or tracked (16 hex)."""
        return digest(json.dumps([self.name, sorted(self.record.get("jobs") or [self.record.get("config")])]).encode())

    @property
    def failures(self) -> tuple[JobResult, ...]:
        """The jobs that failed."""
        return tuple(job for job in self.jobs if job.failed)

    @cached_property
    def empty(self) -> tuple[JobResult, ...]:
        """The jobs that are done and yet hold no finite number."""
        return tuple(job for job in self.jobs if not job.failed and measured(job.rows).empty)

    @property
    def missing(self) -> int:
        """How many jobs of the sweep have not ended."""
        return max(len(self.record.get("jobs") or []) - len(self.jobs), 0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The emergence table of the whole sweep; empty if nothing succeeded."""
        parts = [job.rows for job in self.jobs if not job.failed]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def windows(self, model: str, corpus: str) -> pd.DataFrame:
        """Read the emergence of the single windows of one model on one corpus; empty where none was kept.

        Raises:
            InputError: if the file cannot be read.
        """
        for job in self.jobs:
            if (job.model, job.corpus) == (model, corpus) and job.windows_path is not None:
                return _table(job.windows_path, job.record.get("windows_sha256"))
        return pd.DataFrame()

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per model, corpus and estimator, controls as columns; see `summary_table`."""
        return summary_table(self.figure_rows)

    @cached_property
    def figure_rows(self) -> pd.DataFrame:
        """The few rows of the table that figures and summaries are made of, kept because each of them asks."""
        return figure_rows(self.table)


def read_results(folder: Path, display_name: str | None = None) -> Results:
    """Read a sweep's results folder, finished or not.

    Args:
        folder: that `emergence sweep` wrote.
        display_name: what messages call it, where it is a copy of another place.

    Raises:
        InputError: if it is not a results folder, was written by another version, or is damaged.

    >>> found = read_results(results)
    >>> found.name, [job.name for job in found.jobs], found.missing
    ('example', ['gpt2-30k on animal'], 0)
    """
    where = masked(display_name or str(folder))
    check_file(folder)
    if not folder.is_dir():
        raise InputError(f"No results folder at {where}; give the folder that `emergence sweep` wrote.")
    if not (folder / HEADER).is_file():
        raise InputError(
            f"{where} holds no {HEADER}, so it is not a results folder; give one that `emergence sweep` wrote."
        )
    record = decode_header(_content(folder / HEADER), where, str(folder / HEADER))
    wanted = record.get("jobs")  # the folder may hold results of earlier configurations
    paths = [path for path in (folder / JOBS).glob("[!.]*.json") if wanted is None or path.stem in wanted]
    records = {path: _read_record(path) for path in paths}
    jobs = [
        JobResult(record["key"], record, None if record["status"] == "failed" else path.with_suffix(".parquet"), *names)
        for (path, record), names in zip(records.items(), _names(list(records.values())), strict=True)
    ]
    return Results(folder, record, tuple(sorted(jobs, key=lambda job: (job.model, job.corpus, job.key))), where)


def _names(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Name each job's model and corpus; where a sweep has two alike, say in which settings they differ."""
    alike: dict[tuple[str, str], list[dict[str, str]]] = {}
    for record in records:
        alike.setdefault((record["model"], record["corpus"]), []).append(flatten(record.get("config") or {}))
    names = []
    for record in records:
        group = alike[record["model"], record["corpus"]]
        own = flatten(record.get("config") or {})
        differ = [name for name in own if any(other.get(name) != own[name] for other in group)]
        model = [f"{name.split('.')[-1]}={own[name]}" for name in differ if not name.startswith("corpus")]
        corpus = [f"{name.split('.')[-1]}={own[name]}" for name in differ if name.startswith("corpus.")]
        names.append((" ".join([record["model"], *model]), " ".join([record["corpus"], *corpus])))
    return names


def _read_record(path: Path) -> dict[str, Any]:
    record = decode_record(_content(path), str(path), path.stem)
    table = path.with_suffix(".parquet")
    if record["status"] != "failed" and not table.is_file():
        raise InputError(f"{path} says done but {table.name} is missing; delete it and run the sweep again.")
    return record


def _table(path: Path, sha256: str | None) -> pd.DataFrame:
    return decode_table(_content(path), str(path), sha256)


def _content(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror}); check the disk and its permissions.") from error


def digest(data: bytes) -> str:
    """Return 16 hex digits of sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def milliseconds(moment: object) -> int:
    """Turn an ISO 8601 text (UTC where no zone is given) or seconds since 1970 into milliseconds."""
    if isinstance(moment, int | float):
        return round(1000 * moment)
    if not moment:
        return 0
    stamp = datetime.fromisoformat(str(moment))
    return round(1000 * (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp())


def flatten(record: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings, and lists of them by index, to dotted names.

    Scalars and lists of scalars become JSON; what is null is left out.

    >>> flatten({"a": {"b": 1, "c": [1, 2]}, "d": "x", "e": None, "models": [{"id": "gpt2"}]})
    {'a.b': '1', 'a.c': '[1, 2]', 'd': 'x', 'models.0.id': 'gpt2'}
    """
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            flat.update(flatten({str(index): item for index, item in enumerate(value)}, f"{prefix}{name}."))
        elif value is not None:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat
