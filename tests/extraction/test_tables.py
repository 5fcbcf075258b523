"""Tables are written whole or not at all, and read back as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction.tables import RESPONSES, Schema, read_table, write_table

ANSWER = pd.DataFrame({"model": ["m"], "prompt_id": ["1"], "text": ['a, \u00e9\n"b"'], "sample": [0]})


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".json"])
def test_round_trip_keeps_types_and_missing_values(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"answers{ending}"
    write_table(ANSWER, path, RESPONSES)
    back = read_table(path, RESPONSES)
    pd.testing.assert_frame_equal(back, RESPONSES.conform(ANSWER))
    assert back["logprobs"].isna().all()
    assert back["prompt_id"].iloc[0] == "1"  # not the number 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing half-written beside it


@pytest.mark.parametrize("value", [["a"], {"a": 1}, ("a",), np.array(["a"])])
@pytest.mark.parametrize("column", ["model", "prompt_id", "finish_reason"])
def test_what_is_nested_is_no_text(column: str, value: Any) -> None:
    rows = pd.DataFrame({"model": ["m"] * 2, "prompt_id": ["1", "2"], "text": ["a", "b"]}, dtype=object)
    rows[column] = pd.Series(["a", value], dtype=object)
    with pytest.raises(InputError, match=rf"Row 2 of the responses table, column {column}, holds a \w+; give a text"):
        RESPONSES.conform(rows)


def test_a_number_that_is_no_whole_one_is_one_sentence(recwarn: pytest.WarningsRecorder) -> None:
    rows = pd.DataFrame({"model": ["m"], "prompt_id": ["1"], "text": ["a"], "sample": [1e300]})
    with pytest.raises(InputError, match="Column sample of the responses table must be of type Int64"):
        RESPONSES.conform(rows)
    assert not recwarn.list


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    write_table(ANSWER, path, RESPONSES)
    before = path.read_bytes()
    with pytest.raises(InputError, match="prompt_id missing"):
        write_table(ANSWER.drop(columns="prompt_id"), path, RESPONSES)
    with pytest.raises(Exception, match="cannot mix struct and non-struct"):  # arrow refuses a column of mixed objects
        write_table(pd.DataFrame({"x": [1, {"a": 2}]}), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "No table at"),
        ("table.txt", b"x", r"ends in \.parquet, \.csv, \.json"),
        ("cut.parquet", b"PAR1", "could not be read as parquet"),
        ("bad.json", b"{", "is not JSON"),
        ("empty.csv", b"", "could not be read as csv"),
        ("other.csv", b"a,b\n1,2\n", "model, prompt_id, text missing"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name, RESPONSES)
    assert "\n" not in str(caught.value)


def test_other_schema_version_is_refused(tmp_path: Path) -> None:
    old = Schema("responses", 0, RESPONSES.columns, RESPONSES.required)
    write_table(ANSWER, tmp_path / "old.parquet", old)
    with pytest.raises(InputError, match="responses/0, but responses/1"):
        read_table(tmp_path / "old.parquet", RESPONSES)


def test_value_of_wrong_type_is_named() -> None:
    with pytest.raises(InputError, match="Column sample of the responses table must be of type Int64"):
        RESPONSES.conform(ANSWER.assign(sample="first"))


def test_unwritable_folder_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_table(ANSWER, tmp_path / "no" / "a.csv", RESPONSES)
