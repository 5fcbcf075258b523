"""The format of a results folder: what is written is read back, what is damaged is named."""

import json

import pandas as pd
import pyarrow as pa
import pytest

from estimators.base import InputError
from estimators.contracts import results_folder as form

KEY = "0123456789abcdef"
RECORD = form.blank_record() | {"model": "gpt2-30k", "corpus": "animal", "seconds": 1.5}


def test_a_record_says_what_was_written_and_in_which_versions() -> None:
    content = form.encode_record(KEY, RECORD, "done", table_version=1, table_bytes=7)
    versions = {"schema": form.SCHEMA, "result_version": form.RESULT_VERSION, "table_version": 1}
    assert form.decode_record(content, "a.json") == {"key": KEY, **RECORD, "status": "done", "bytes": 7, **versions}
    failed = form.decode_record(form.encode_record(KEY, RECORD, "failed", table_version=1), "a.json")
    assert failed["status"] == "failed"
    assert "bytes" not in failed


def test_a_header_is_read_back() -> None:
    assert form.decode_header(form.encode_header({"name": "demo"}), "results") == {"name": "demo", "schema": 1}


def test_a_table_is_read_back() -> None:
    frame = pd.DataFrame({"model": ["a", "b"], "ie_bits": [0.5, 1.0]})
    pd.testing.assert_frame_equal(form.decode_table(form.encode_table(pa.Table.from_pandas(frame)), "t"), frame)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"key": "a', r"jobs/a.json could not be read as JSON: .*; run the sweep again"),
        (b"[1, 2]", r"jobs/a.json should hold one JSON object, found list; run the sweep again"),
        (b'{"key": "a", "model": "m"}', r"jobs/a.json lacks status, corpus; delete it and run the sweep again"),
    ],
)
def test_a_damaged_record_is_named(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        form.decode_record(content, "jobs/a.json")


def test_another_schema_is_refused() -> None:
    content = json.dumps({"schema": form.SCHEMA + 1}).encode()
    with pytest.raises(InputError, match="results has results schema 2, but this version reads 1"):
        form.decode_header(content, "results")


def test_a_damaged_table_is_named() -> None:
    with pytest.raises(InputError, match=r"jobs/a.parquet could not be read .*run the sweep again"):
        form.decode_table(b"PAR1 torn", "jobs/a.parquet")
