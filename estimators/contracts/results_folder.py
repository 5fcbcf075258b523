"""The results folder of a sweep: which files it has, what they hold, and how they are written and read.

    sweep.json           what was asked for: name, config, jobs (their keys), versions, git_revision, seed, hardware,
                         created, schema
    jobs/KEY.json        the record of a job that has ended: see `encode_record`
    jobs/KEY.parquet     its rows of the emergence table, if it is done
    windows/KEY.parquet  the emergence of its single windows, where its estimator gives them
    emergence.parquet    the tables of all done jobs in one
    claims/KEY.json      which driver works on a job; gone when the sweep is over

A job is one model on one corpus, its KEY 16 hex digits of the hash of all that determines its numbers. A record is
written after its table and holds the hash of it, of the windows and of itself, so that all counts only while it is as
it was written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from estimators.base import InputError
from estimators.contracts.seals import content_hash, is_whole, sealed
from estimators.contracts.secrets import masked_all

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA = 2  # of sweep.json and of records; raised when a key changes its meaning
UNSEALED = 1  # the schema before: the same without hashes, so that damage is not seen
RESULT_VERSION = 3  # raised when the same settings would give other numbers, so that earlier results are measured again

HEADER = "sweep.json"
MERGED = "emergence.parquet"
JOBS, WINDOWS, CLAIMS = FOLDERS = ("jobs", "windows", "claims")
REQUIRED = ("key", "status", "model", "corpus")  # of a record


def record_name(key: str) -> str:
    """Return the name of a job's record.

    >>> record_name("0123456789abcdef")
    'jobs/0123456789abcdef.json'
    """
    return f"{JOBS}/{key}.json"


def table_name(key: str) -> str:
    """Return the name of a job's rows of the emergence table."""
    return f"{JOBS}/{key}.parquet"


def windows_name(key: str) -> str:
    """Return the name of the emergence of a job's single windows."""
    return f"{WINDOWS}/{key}.parquet"


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Return the content of sweep.json, secrets of URLs masked."""
    return json.dumps(sealed({**masked_all(dict(header)), "schema": SCHEMA}), indent=1).encode()


def decode_header(content: bytes, where: str, file: str = HEADER) -> dict[str, Any]:
    """Return what sweep.json says.

    Args:
        content: of the file.
        where: what messages call the folder.
        file: what messages call the file.

    Raises:
        InputError: if it is damaged, or of another schema.
    """
    header = _decode(content, file)
    if header.get("schema") not in (SCHEMA, UNSEALED):
        raise InputError(
            f"{where} has results schema {header.get('schema')}, but this version reads {SCHEMA}; "
            "run the sweep again with this version."
        )
    _require_whole(header, file, "run the sweep again")
    known: dict[str, Any] = masked_all(header)  # earlier versions wrote URLs as they were given
    return known


def blank_record() -> dict[str, Any]:
    """Return a record of which nothing is known: every key that a job's worker fills in, in order.

    revision, family, parameters, windows and corpus_hash are those of the emergence table; config is all that
    determines the result; started is ISO 8601, seconds the time it took, host the machine; error_type, error and
    traceback say why it failed. A worker that ends adds device, gpus, log (its output), peak_memory_gb and
    peak_gpu_gb (GiB).

    >>> list(blank_record())[:4]
    ['model', 'revision', 'family', 'parameters']
    """
    known = ("model", "revision", "family", "parameters", "corpus", "corpus_hash", "config", "windows")
    return dict.fromkeys((*known, "seconds", "started", "host", "error_type", "error", "traceback"))


def encode_record(
    key: str,
    record: Mapping[str, Any],
    status: Literal["done", "failed"],
    *,
    table_version: int,
    table: bytes = b"",
    windows: bytes | None = None,
) -> bytes:
    """Return the content of a job's record, secrets of URLs masked.

    Args:
        key: of the job.
        record: see `blank_record`.
        status: whether it gave a table or failed.
        table_version: of the schema of its table.
        table: content of its table, if it is done.
        windows: content of the table of its windows, if there is one.
    """
    files: dict[str, Any] = {}
    if status == "done":
        files = {"bytes": len(table), "table_sha256": content_hash(table)}
        if windows is not None:
            files["windows_sha256"] = content_hash(windows)
    versions = {"schema": SCHEMA, "result_version": RESULT_VERSION, "table_version": table_version}
    whole = {"key": key, **masked_all(dict(record)), "status": status, **files, **versions}
    return json.dumps(sealed(whole), indent=1).encode()


def decode_record(content: bytes, file: str, key: str | None = None) -> dict[str, Any]:
    """Return a job's record.

    Args:
        content: of the file.
        file: what messages call it.
        key: of the job that the file is named after.

    Raises:
        InputError: if it is damaged, lacks a key that every record has, or is of another job.
    """
    record = _decode(content, file)
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}; delete it and run the sweep again.")
    _require_whole(record, file, "delete it and run the sweep again")
    if key is not None and record["key"] != key:
        raise InputError(f"{file} is the record of another job, {record['key']}; delete it and run the sweep again.")
    return record


def _require_whole(record: Mapping[str, Any], file: str, remedy: str) -> None:
    if record.get("schema") == SCHEMA and not is_whole(record):
        raise InputError(f"{file} was damaged after it was written; {remedy}.")


def encode_table(table: pa.Table) -> bytes:
    """Return a table as parquet."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def decode_table(content: bytes, file: str, sha256: str | None = None) -> pd.DataFrame:
    """Return the table of a parquet file.

    Args:
        content: of the file.
        file: what messages call it.
        sha256: hash that the record of its job holds, where it holds one.

    Raises:
        InputError: if it is damaged.
    """
    import pandas as pd

    if sha256 is not None and content_hash(content) != sha256:
        raise InputError(f"{file} was damaged after it was written; run the sweep again, which measures its job again.")
    try:
        return pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError) as error:  # pyarrow has one for each damage
        raise InputError(
            f"{file} could not be read ({error}); delete it with the record of its job (.json) and run the sweep again."
        ) from error


def _decode(content: bytes, file: str) -> dict[str, Any]:
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} could not be read as JSON: {error}; run the sweep again.") from error
    if not isinstance(decoded, dict):
        raise InputError(f"{file} should hold one JSON object, found {type(decoded).__name__}; run the sweep again.")
    return decoded
