"""The format of a results folder: what is written is read back, what is damaged is named."""

import hashlib
import json
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pytest

from estimators.base import InputError
from estimators.contracts import results_folder as form

KEY = "0123456789abcdef"
RECORD = form.blank_record() | {"model": "gpt2-30k", "corpus": "animal", "seconds": 1.5}


def test_a_record_says_what_was_written_and_in_which_versions() -> None:
    content = form.encode_record(KEY, RECORD, "done", table_version=1, table=b"a table")
    versions = {"schema": form.SCHEMA, "result_version": form.RESULT_VERSION, "table_version": 1}
    read = form.decode_record(content, "a.json")
    assert read.pop("table_sha256") == hashlib.sha256(b"a table").hexdigest()
    assert len(read.pop("record_sha256")) == 64
    assert read == {"key": KEY, **RECORD, "status": "done", "bytes": 7, **versions}
    failed = form.decode_record(form.encode_record(KEY, RECORD, "failed", table_version=1), "a.json")
    assert failed["status"] == "failed"
    assert "bytes" not in failed


def test_a_header_is_read_back() -> None:
    read = form.decode_header(form.encode_header({"name": "demo"}), "results")
    assert (read["name"], read["schema"]) == ("demo", 2)
    assert form.decode_header(b'{"name": "old", "schema": 1}', "results")["name"] == "old"


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
    with pytest.raises(InputError, match="results has results schema 3, but this version reads 2"):
        form.decode_header(content, "results")


def test_a_damaged_table_is_named() -> None:
    with pytest.raises(InputError, match=r"jobs/a.parquet could not be read .*run the sweep again"):
        form.decode_table(b"PAR1 torn", "jobs/a.parquet")


def _flips(content: bytes) -> Iterator[bytes]:
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_no_flipped_bit_of_a_record_is_believed() -> None:
    record = {"model": "gpt2-30k", "corpus": "animal", "seconds": 1.5}
    content = form.encode_record(KEY, record, "done", table_version=1, table=b"a table")
    whole = form.decode_record(content, "a.json")
    believed = []
    for flipped in _flips(content):
        try:
            read = form.decode_record(flipped, "a.json")
        except InputError:
            continue
        if read != whole and read.get("schema") == form.SCHEMA:  # another schema is refused by who reads it
            believed.append(read)
    assert not believed


def test_no_flipped_bit_of_a_header_is_believed() -> None:
    content = form.encode_header({"name": "demo", "jobs": ["a", "b"], "seed": 3})
    whole = form.decode_header(content, "results")
    for flipped in _flips(content):
        try:
            assert form.decode_header(flipped, "results") == whole
        except InputError:
            continue


def test_a_table_that_is_not_what_its_record_says_is_named() -> None:
    content = form.encode_table(pa.Table.from_pandas(pd.DataFrame({"ie_bits": [0.5]})))
    sha256 = hashlib.sha256(content).hexdigest()
    assert len(form.decode_table(content, "t", sha256)) == 1
    with pytest.raises(InputError, match=r"jobs/a.parquet was damaged after it was written; run the sweep again"):
        form.decode_table(content, "jobs/a.parquet", sha256[::-1])


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"key": ' + b"1" * 10_000 + b"}", b"\xff\xfe", b"", b"null"])
def test_no_json_ends_in_a_traceback(content: bytes) -> None:
    with pytest.raises(InputError, match=r"jobs/a.json .*again"):
        form.decode_record(content, "jobs/a.json")


def test_a_record_of_another_job_is_refused_by_name():
    content = form.encode_record(KEY, RECORD, "failed", table_version=1)
    assert form.decode_record(content, f"jobs/{KEY}.json", KEY)["key"] == KEY
    with pytest.raises(InputError, match=f"jobs/b.json is the record of another job, {KEY}"):
        form.decode_record(content, "jobs/b.json", "b")
