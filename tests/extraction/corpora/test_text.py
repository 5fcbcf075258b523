"""Where texts come from: files of every kind, folders, data sets; and what cannot be used."""

import json
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from estimators.base import InputError
from extraction.corpora import text
from extraction.corpora.loading import check_corpus, windows
from extraction.corpora.spec import CorpusOptions
from extraction.tables import RESPONSES, write_table


def write(folder: Path, ending: str, rows: list[str]) -> Path:
    path = folder / f"texts{ending}"
    if ending == ".txt":
        path.write_text("\n\n".join(rows), encoding="utf-8")
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    else:
        frame = pd.DataFrame({"text": rows, "other": range(len(rows))})
        save = {
            ".csv": frame.to_csv,
            ".parquet": frame.to_parquet,
            ".json": lambda p, index: frame.to_json(p, orient="records"),
        }
        save[ending](path, index=False)
    return path


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".parquet"])
def test_every_kind_of_file_holds_the_same_text(tokenizer: Any, tmp_path: Path, ending: str) -> None:
    rows = ["The cat sat on it.", 'A \u2028 dog, "quoted" \u00e9\u00e8 ran.']
    found = windows(write(tmp_path, ending, rows), tokenizer, tokens=5, count=None)
    assert {tokenizer.decode(row) for row in found.tokens} >= {
        tokenizer.decode(tokenizer(row)["input_ids"][:5]) for row in rows
    }
    assert found.corpus == f"texts{ending}"


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_tables_are_read_a_part_at_a_time(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    rows = [f"{number} 'quoted', \r\n and a break, \u2028 \u00e9." for number in range(50)]
    path = write(tmp_path, ending, rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark, as some editors put
    monkeypatch.setattr(text, "ROWS", 7)
    monkeypatch.setattr(text, "read_text", None)  # nothing reads it whole
    assert list(text.documents(str(path))) == rows


def test_a_folder_is_all_its_files(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, ".txt", ["11111"])
    write(tmp_path / "deep", ".jsonl", ["22222", "33333"])
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe")
    found = windows(tmp_path, tokenizer, tokens=5)
    assert {tokenizer.decode(row) for row in found.tokens} == {"11111", "22222", "33333"}
    (tmp_path / "config.json").write_text('{"model_type": "x", "layers": [1, 2]}', encoding="utf-8")
    assert windows(tmp_path, tokenizer, tokens=5).hash == found.hash  # settings beside the texts are none
    with pytest.raises(InputError, match=r"config\.json"):
        windows(tmp_path / "config.json", tokenizer)
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json is not JSON"):
        windows(tmp_path, tokenizer, tokens=5)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no \.txt, \.jsonl"):
        windows(tmp_path / "none", tokenizer)


def test_a_responses_table_is_text(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    answers = pd.DataFrame({"model": "m", "prompt_id": ["1", "2"], "text": ["The cat sat there.", None]})
    write_table(answers, path, RESPONSES)
    found = windows(path, tokenizer, tokens=4)
    assert [tokenizer.decode(row) for row in found.tokens] == [
        tokenizer.decode(tokenizer("The cat sat")["input_ids"][:4])
    ]


@pytest.mark.parametrize("corpus", ["animal", "python-docs", "story.txt", "list:story.txt", "story.md"])
def test_a_column_is_refused_where_there_are_none(
    corpus: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("story.txt", "story.md"):
        Path(name).write_text("One day a dog ran.\n")
    options = CorpusOptions(column="story")
    said = r"has no columns, and story was given .*; leave it out \(--column"
    with pytest.raises(InputError, match=said):
        windows(corpus, tokenizer, options=options)
    with pytest.raises(InputError, match=said):
        check_corpus(corpus, options=options)


def test_another_column_by_name(tokenizer: Any, tmp_path: Path) -> None:
    pd.DataFrame({"story": ["aaaaaa"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no column text or output or response or content; it has story\."):
        windows(tmp_path / "x.parquet", tokenizer, tokens=5)
    assert len(windows(tmp_path / "x.parquet", tokenizer, tokens=5, options=CorpusOptions(column="story"))) == 1


def test_a_data_set_is_streamed(tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    letters = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(600)]
    pd.DataFrame({"text": [pair * 5 for pair in letters]}).to_parquet(tmp_path / "train.parquet")
    found = windows(f"hf:{tmp_path}", tokenizer, tokens=5, count=20)
    assert found.weights.sum() == 20
    assert found.documents is not None
    assert found.documents.max() < 256  # read no further than the first batch of documents, of 600
    with pytest.raises(InputError, match=r"no column story; it has text\."):
        windows(f"hf:{tmp_path}", tokenizer, options=CorpusOptions(column="story"))
    with pytest.raises(InputError, match=r"could not be read.*HF_DATASETS_OFFLINE=1"):
        windows("hf:nobody/nothing-of-this-name", tokenizer)


class Streamed(list[dict[str, str]]):
    """Rows as `datasets` hands them out."""

    def shuffle(self, *, seed: int, buffer_size: int) -> "Streamed":
        return self


def test_a_split_and_a_configuration_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(name: str, config: str | None, *, split: str, revision: str | None, streaming: bool) -> Streamed:
        asked.append((name, config, split, revision))
        if name == "away":
            raise ConnectionError("Couldn't reach the hub")
        return Streamed([{"text": "a"}])

    library = SimpleNamespace(load_dataset=load, exceptions=SimpleNamespace(DatasetsError=KeyError))
    monkeypatch.setitem(sys.modules, "datasets", library)
    for source in ("hf:a/b", "hf:a/b:test", "hf:a/b:small:test"):
        assert list(text.documents(source)) == ["a"]
    assert list(text.documents("hf:openorca", column="text", revision="abc")) == ["a"]
    assert asked == [
        ("a/b", None, "train", None),
        ("a/b", None, "test", None),
        ("a/b", "small", "test", None),
        ("Open-Orca/OpenOrca", None, "train", "abc"),
    ]
    for source in ("hf:", "hf:a/b:", "hf:a:b:c:d"):
        with pytest.raises(InputError, match="is hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT"):
            list(text.documents(source))
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE=1 and HF_DATASETS_OFFLINE=1 to use the cache alone"):
        list(text.documents("hf:away"))


def test_a_data_set_without_the_library(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'emergence-proxy\[datasets\]'"):
        windows("hf:openorca", tokenizer)


def test_an_unknown_corpus_names_the_known_and_the_nearest(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"one of country, animal, color, python-docs; nearest: country\."):
        windows("countries", tokenizer)
    with pytest.raises(InputError, match=r"neither a file or folder nor one of .*python-docs\.$"):
        windows("/no/such/file.txt", tokenizer)
    with pytest.raises(InputError, match="Unknown corpus"):
        windows("A text given in place of its file. " * 200, tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", r"empty\.txt is empty; give a text of at least 8 tokens"),
        ("blank.txt", b" \n \n", r"blank\.txt is empty"),
        ("short.txt", b"ab", r"longest text of short\.txt has 2 tokens.*a window needs 8"),
        ("latin.txt", b"caf\xe9 au lait", r"not UTF-8: byte 0xe9 at position 3; convert it"),
        ("latin.csv", b"text\ncaf\xe9 au lait\n", r"not UTF-8: byte 0xe9 at position 8"),
        ("empty.csv", b"", r"empty\.csv could not be read as a table: No columns"),
        ("nothing.csv", b"text\n", r"nothing\.csv is empty"),
        ("broken.jsonl", b'{"text": "a"}\n{"text"\n', r"Line 2 of .*broken\.jsonl is not JSON"),
        ("list.jsonl", b"[1]\n", r"Line 1 of .*list\.jsonl is not a JSON object"),
        (
            "other.jsonl",
            b'{"text": "a"}\n{"story": "b"}\n',
            r"Line 2 of .*other\.jsonl has no column .*it has story",
        ),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"not UTF-8: byte 0xe9 at position 24"),
        ("other.csv", b"story\nb\n", r"other\.csv has no column text .*it has story"),
        ("ragged.csv", b'text\na\n"b",c,d\n', r"ragged\.csv could not be read as a table"),
        ("broken.json", b"{", r"broken\.json is not JSON"),
        ("broken.parquet", b"PAR1nothing", r"broken\.parquet could not be read as parquet"),
    ],
)
def test_texts_that_cannot_be_used(tokenizer: Any, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        windows(tmp_path / name, tokenizer)


@pytest.mark.parametrize(
    "unit", ["The river is cold. Nobody swims in it. ", "abcdefghij", "A line of it\n", "\u4e2d\u6587\u3002"]
)
def test_a_long_text_is_read_in_pieces(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    whole = unit * (3000 // len(unit))
    monkeypatch.setattr(text, "PIECE", 500)
    pieces = [*text._pieces([whole, "  ", "short"])]
    assert "".join(piece for number, piece in pieces if number == 0) == whole
    assert pieces[-1] == (1, "short")
    assert max(len(piece) for _, piece in pieces) <= 500
    assert all(sum(len(t) for _, t in batch) <= 500 for batch in text._batched(pieces))


def test_windows_of_a_text_in_pieces_are_those_of_the_whole(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the few that would cross from one piece to the next, and the space before a piece's first word."""
    sentences = "".join(f"It is number {number} of them. " for number in range(300))

    def sampled() -> set[tuple[int, ...]]:
        found = text.sample_text([sentences], tokenizer, 6, count=None, seed=0, at="sentence", name="t", enough=None)
        assert found.sections  # one document is cut into stretches of a fortieth
        assert set(found.documents) <= set(range(40))
        return {tuple(row) for row in found.tokens.tolist()}

    whole = sampled()
    monkeypatch.setattr(text, "PIECE", 2000)
    parts = sampled()
    pieces = len([*text._pieces([sentences])])
    assert pieces > 3
    assert len(whole - parts) <= 2 * pieces
    assert len(parts - whole) <= pieces


def test_too_few_windows_are_said(tokenizer: Any) -> None:
    from extraction.corpora.loading import text_windows
    from extraction.corpora.token_windows import fewer_windows

    made = text_windows(["A b c. D e f. G h i. " * 3], tokenizer, tokens=3, count=2000, name="small.txt")
    sampled = int(made.weights.sum())
    said = fewer_windows(made, 2000)
    assert said is not None
    assert said.startswith(f"small.txt has only {sampled} windows of 3 tokens, 2000 were asked for")
    assert fewer_windows(made, sampled) is None
    assert fewer_windows(made, None) is None


def test_a_text_that_many_rows_name_is_written_out_row_by_row(tmp_path: Path) -> None:
    """A file of 100 kB that would be 10 GB in memory."""
    rows = pa.array(np.zeros(10_000, np.int32))
    long = pa.DictionaryArray.from_arrays(rows, pa.array(["A dog ran to the tree. " * 45_000]))
    pq.write_table(pa.table({"text": long}), tmp_path / "many.parquet")
    found = text.documents(tmp_path / "many.parquet")
    assert {len(next(found)) for _ in range(20)} == {len("A dog ran to the tree. " * 45_000)}
    assert pa.total_allocated_bytes() < 100_000_000
    found.close()


def test_short_texts_take_no_more_memory_than_their_tokens(tokenizer: Any) -> None:
    """A window takes 24 bytes and its tokens 4 each; arrays of their own would take 500 a text."""
    count = 20_000
    sizes = []
    for texts in (count, 2 * count):
        tracemalloc.start()
        rows = ("The cat sat." for _ in range(texts))
        text.sample_text(rows, tokenizer, 3, count=10, seed=0, at="sentence", name="t", enough=None)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / count < 250
