"""Files of other people: encoding, ids, missing values, JSON that no one meant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from estimators.base import InputError
from extraction.answers.prompt_sets import prompts
from extraction.answers.responses import read_responses
from extraction.corpora.text import documents
from extraction.reading import frame_of, read_frame, whole_characters
from extraction.tables import read_table, write_table

LARGE = 2**53 + 1  # the first whole number that a float cannot hold
BOM = b"\xef\xbb\xbf"


def _write(path: Path, rows: list[dict[str, Any]], *, mark: bool = False) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    text = {
        ".json": lambda: json.dumps(rows),
        ".jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows),
        ".csv": lambda: pd.DataFrame(rows, dtype=object).to_csv(index=False),
    }[path.suffix]()
    path.write_bytes((BOM if mark else b"") + text.encode())
    return path


@pytest.mark.parametrize("ending", [".json", ".csv", ".parquet"])
def test_whole_numbers_stay_whole_where_one_is_missing(tmp_path: Path, ending: str) -> None:
    rows = [{"prompt_id": LARGE, "prompt": "a"}, {"prompt_id": None, "prompt": "b"}, {"prompt_id": 2, "prompt": "c"}]
    frame = read_frame(_write(tmp_path / f"t{ending}", rows))
    assert frame["prompt_id"].astype("string").tolist() == [str(LARGE), pd.NA, "2"]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet"])
def test_ids_of_answers_and_prompts_are_what_the_file_says(tmp_path: Path, ending: str) -> None:
    rows = [{"model": "m", "prompt_id": i, "prompt": f"p{i}", "text": "t"} for i in (LARGE, 1, 2)]
    path = _write(tmp_path / f"t{ending}", rows)
    assert prompts(path)["prompt_id"].tolist() == [str(LARGE), "1", "2"]
    if ending != ".jsonl":
        assert read_responses(path)["prompt_id"].tolist() == [str(LARGE), "1", "2"]
    path = _write(tmp_path / f"u{ending}", [*rows, {**rows[0], "prompt_id": None, "prompt": "none"}])
    with pytest.raises(InputError, match="prompts without prompt_id"):
        prompts(path)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1.0, 2.0]),  # as pandas stores whole numbers once one was missing
        pa.array([1, 2], pa.uint8()),
        pa.array([b"1", b"2"]),
        pa.array(["1", "2"]).dictionary_encode(),
        pa.array([1.0, 2.0], pa.float32()),
    ],
)
def test_ids_are_the_same_whatever_type_their_file_has(tmp_path: Path, ids: pa.Array) -> None:
    columns = {"model": ["m", "m"], "prompt_id": ids, "prompt": ["a", "b"], "text": ["t", "t"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert prompts(tmp_path / "t.parquet")["prompt_id"].tolist() == ["1", "2"]
    assert read_responses(tmp_path / "t.parquet")["prompt_id"].tolist() == ["1", "2"]


def test_large_ids_stay_exact_beside_fractions(tmp_path: Path) -> None:
    rows = [{"prompt_id": LARGE, "prompt": "a"}, {"prompt_id": 1.5, "prompt": "b"}, {"prompt_id": 2.0, "prompt": "c"}]
    assert prompts(_write(tmp_path / "t.jsonl", rows))["prompt_id"].tolist() == [str(LARGE), "1.5", "2"]


@pytest.mark.parametrize("form", ["message", "messages"])
def test_messages_in_a_parquet_corpus_are_their_text(tmp_path: Path, form: str) -> None:
    message = {"role": "user", "content": "A dog sat down."}
    pq.write_table(
        pa.Table.from_pylist([{"text": message if form == "message" else [message]}]), tmp_path / "t.parquet"
    )
    assert [*documents(str(tmp_path / "t.parquet"))] == ["A dog sat down."]
    pq.write_table(pa.Table.from_pylist([{"text": ["A", "dog"]}]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"Row 1 of .*t.parquet holds a list of 2 that are not messages"):
        [*documents(str(tmp_path / "t.parquet"))]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_a_byte_order_mark_is_no_content(tmp_path: Path, ending: str) -> None:
    rows = [{"model": "m", "prompt_id": "a", "prompt": "p", "text": "a text"}]
    path = _write(tmp_path / f"t{ending}", rows, mark=True)
    assert prompts(path)["prompt"].tolist() == ["p"]
    assert [*documents(str(path))] == ["a text"]
    if ending != ".jsonl":
        assert list(read_table(path).columns) == ["model", "prompt_id", "prompt", "text"]


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_halves_of_characters_are_replaced(tmp_path: Path, ending: str) -> None:
    rows = [{"model": "m", "prompt_id": "a", "prompt": "p \ud800", "text": "\udc00 t \ud83d\ude00"}]
    path = _write(tmp_path / f"t{ending}", rows)
    assert prompts(path)["prompt"].tolist() == ["p \ufffd"]
    assert [*documents(str(path))] == ["\ufffd t \U0001f600"]


def test_whole_characters_are_left_alone() -> None:
    value = {"a": ["x", {"b": "\U0001f600"}], "c": 1.5}
    assert whole_characters(value) == value


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b'[{"a": ' + b"1" * 10_000 + b"}]", "a number with too many digits"),
        ("a.json", b"", "is not JSON"),
        ("a.json", b"\xff\xfe[]", "is not UTF-8: byte 0xff at position 0"),
        ("a.json", b"[1, 2]", "should hold a list of rows"),
        ("a.json", b'{"a": 1}', "should hold a list of rows"),
        ("a.json", b'{"a": [1], "b": [1, 2]}', "columns of different lengths"),
        ("a.csv", b"", "could not be read as csv"),
        ("a.csv", b"a,b\n1,2,3\n4,5\n\xff", "is not UTF-8"),
        ("a.csv", b"a,a\n1,2\n", "two columns named a"),
        ("a.csv", b'a\n"b', "could not be read as csv"),
        ("a.parquet", b"", "could not be read as parquet"),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", "could not be read as parquet"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns named a"):
        read_table(tmp_path / "a.parquet")


def test_columns_of_json_are_a_table_too() -> None:
    frame = frame_of([{"a": 1, "b": [1, 2]}, {"a": 2.5}, {"b": {"c": 1}}])
    assert frame["a"].tolist()[:2] == [1.0, 2.5]
    assert frame["b"].tolist() == [[1, 2], None, {"c": 1}]


def test_no_flipped_bit_in_the_pages_of_a_table_is_believed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"model": [f"m{i}" for i in range(50)], "ie_bits": [i / 7 for i in range(50)]})
    path = tmp_path / "t.parquet"
    write_table(frame, path)
    content = path.read_bytes()
    believed = []
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            read = read_table(path)
        except InputError:
            continue
        if list(read.columns) == list(frame.columns) and not read.equals(frame):
            believed.append(place)
    assert not believed


def test_a_table_that_would_not_fit_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 1 MB that 5,000 rows name, and one that fits."""
    path = tmp_path / "many.parquet"
    rows = pa.array(np.zeros(5_000, np.int32))
    pq.write_table(pa.table({"text": pa.DictionaryArray.from_arrays(rows, pa.array(["a" * 10**6]))}), path)
    monkeypatch.setattr("extraction.reading.most_bytes", lambda: 10**9)
    with pytest.raises(InputError, match=r"would take 4\.7 GiB in memory"):
        read_frame(path)
    few = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), pa.array(["one", "two"]))
    pq.write_table(pa.table({"text": few, "id": [1, 2, None, 4], "parts": [["a"], [], None, ["b"]]}), path)
    found = read_frame(path)
    assert found["text"].fillna("none").tolist() == ["one", "two", "none", "one"]
    assert found["id"].tolist() == [1, 2, pd.NA, 4]


@pytest.mark.parametrize("name", ["model", "prompt_id"])
def test_answers_without_a_name_or_id_are_refused_by_row(tmp_path: Path, name: str) -> None:
    rows = [{"model": "m", "prompt_id": "a", "text": "t"}, {"model": "m", "prompt_id": "b", "text": "t", name: " "}]
    with pytest.raises(InputError, match=f"Row 2 of .* has no {name}"):
        read_responses(_write(tmp_path / "t.json", rows))
