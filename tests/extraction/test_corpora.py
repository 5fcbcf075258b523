"""Windows: complete, distinct, uniform, within documents, the same for everyone."""

import itertools
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import InputError
from extraction import text
from extraction.categories import CATEGORIES
from extraction.corpora import text_windows, windows
from extraction.drawn import Windows
from extraction.lists import _ordered_choices, list_windows
from extraction.tables import RESPONSES, write_table
from extraction.text import sentence_starts

STORY = 'The cat sat. A dog ran off! Did it? "No," said the fox. It slept.\n\nNew day. Mr. Smith left, e.g. home.'


# ------------------------------------------------------------------------------------------------------------- lists


def test_a_category_is_enumerated_completely(tokenizer: Any) -> None:
    shown = windows("country", tokenizer, count=None)
    assert shown.tokens.shape == (303_600, 8)  # 25 * 24 * 23 * 22, as in the paper
    assert (shown.weights == 1).all()
    entities = shown.tokens[:, ::2]
    assert len(np.unique(entities @ 512 ** np.arange(4))) == 303_600
    assert (np.diff(np.sort(entities, axis=1), axis=1) > 0).all()  # none comes twice in a window
    assert (shown.tokens[:, 1::2] == tokenizer.convert_tokens_to_ids(",")).all()
    assert tokenizer.decode(shown.tokens[0]).count(",") == 4
    assert tokenizer.decode(shown.tokens[0]).startswith(" ")


@pytest.mark.parametrize(("corpus", "tokens"), [("country", 8), ("animal", 10), ("color", 10)])
def test_the_papers_lists_are_the_default(tokenizer: Any, corpus: str, tokens: int) -> None:
    sample = windows(corpus, tokenizer)
    assert sample.tokens.shape == (2000, tokens)
    assert (sample.kind, sample.tokens_per_demonstration, sample.documents) == ("icl", 2, None)
    assert sample.entities is not None
    assert {tokenizer.decode(entity).strip() for entity in sample.entities} == set(CATEGORIES[corpus])
    assert sample.dropped == ()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.data())
def test_ordered_choices_are_distinct_and_complete(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    count = data.draw(st.one_of(st.none(), st.integers(1, 50_000)))
    chosen = [tuple(row) for row in _ordered_choices(n, k, count, 0, "x")]
    possible = set(itertools.permutations(range(n), k))
    assert len(chosen) == len(set(chosen)) == min(len(possible), count or len(possible))
    assert set(chosen) <= possible


def test_ordered_choices_are_uniform() -> None:
    # 400 draws of 2 of the 12 choices of (4, 2): each choice has 400 * 2/12 = 66.7 expected hits, standard deviation
    # sqrt(400 * 1/6 * 5/6) = 7.5; five of them leave a false alarm in about 1 of 10^5 seeds, and the seeds are fixed.
    hits = np.zeros((4, 4))
    for seed in range(400):
        for a, b in _ordered_choices(4, 2, 2, seed, "x"):
            hits[a, b] += 1
    off = ~np.eye(4, dtype=bool)
    assert np.abs(hits[off] - 400 / 6).max() < 5 * 7.5
    assert not hits[~off].any()


def test_choices_among_more_than_can_be_counted() -> None:
    chosen = _ordered_choices(400, 12, 3000, 0, "x")  # 400!/388! is above 2^100
    assert chosen.shape == (3000, 12)
    assert len(np.unique(chosen, axis=0)) == 3000
    assert (np.diff(np.sort(chosen, axis=1), axis=1) > 0).all()
    # The mean of 3,000 uniform entries of 0..399 has standard deviation 115.5 / sqrt(3000) = 2.1.
    assert np.abs(chosen.mean(0) - 199.5).max() < 5 * 2.1


@pytest.mark.parametrize("shots", range(1, 13))
def test_one_to_twelve_shots(tokenizer: Any, shots: int) -> None:
    sample = windows("animal", tokenizer, tokens=2 * shots, count=50)
    assert sample.tokens.shape == (min(50, math.perm(16, shots)), 2 * shots)


def test_entities_that_are_not_one_token_are_dropped_and_named(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "mixed.txt"
    file.write_text("France\nLiechtenstein\nGermany,\n\nJapan\nFrance\nSpain\n", encoding="utf-8")
    sample = windows(f"list:{file}", tokenizer, tokens=4, count=None)
    assert sample.dropped == ("Liechtenstein",)
    assert len(sample) == 4 * 3
    with pytest.raises(InputError, match=r"Only 4 of the 5 entities .* needs 5.*Left out: Liechtenstein\."):
        windows(f"list:{file}", tokenizer, tokens=10)


def test_several_tokens_per_demonstration(tokenizer: Any) -> None:
    words = [a + b for a, b in itertools.permutations(CATEGORIES["animal"], 2)]
    length = {word: len(tokenizer(f" {word}")["input_ids"]) for word in words}
    kept = [word for word in words if length[word] == 3]
    assert 2 <= len(kept) < len(words)
    found = list_windows("pairs", words, tokenizer, tokens=8, demonstration=4, count=None)
    assert set(found.dropped) == set(words) - set(kept)
    assert {tokenizer.decode(row) for row in found.tokens} == {
        f" {a}, {b}," for a, b in itertools.permutations(kept, 2)
    }
    assert found.tokens_per_demonstration == 4
    assert found.entities is not None
    assert found.entities.shape == (len(kept), 3)


@pytest.mark.parametrize("leading", ["always", "first"])
def test_a_sentencepiece_tokenizer_makes_the_same_lists(leading: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import Metaspace
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), (",", -1.0), ("X", -1.0), ("\u2581", -1.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in ("France", "Japan", "Spain", "X")]
    pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyzC"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=leading)
    backend.decoder = Metaspace(prepend_scheme=leading)
    sentencepiece = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=pieces[0][0])
    sample = list_windows("c", ["France", "Japan", "Spain", "Cuba"], sentencepiece, tokens=4, count=None)
    assert sample.dropped == ("Cuba",)
    pairs = itertools.permutations(("\u2581France", "\u2581Japan", "\u2581Spain"), 2)
    shown = {tuple(sentencepiece.convert_ids_to_tokens(row)) for row in sample.tokens.tolist()}
    assert shown == {(a, ",", b, ",") for a, b in pairs}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 7}, "multiple of 2 tokens; got 7"),
        ({"tokens": 0}, "multiple of 2 tokens; got 0"),
        ({"tokens": 60}, "needs 30"),
        ({"count": 0}, "at least 1; got 0"),
        ({"tokens": 24, "count": None}, "windows of 12 entities, too many to take all"),
        ({"demonstration": 1}, "at least 2 tokens; got 1"),
        ({"demonstration": 5}, "are 4 tokens followed by a one-token comma"),
    ],
)
def test_lists_that_cannot_be(tokenizer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        windows("country", tokenizer, **options)


def test_lists_from_files_that_cannot_be(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No list of entities at"):
        windows(f"list:{tmp_path / 'none.txt'}", tokenizer)
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(InputError, match="lists no entities; write one per line"):
        windows(f"list:{tmp_path / 'empty.txt'}", tokenizer)


# -------------------------------------------------------------------------------------------------------------- text


def test_sentences_start_where_a_reader_sees_them() -> None:
    starts = [STORY[i : i + 4] for i in sentence_starts(STORY)]
    assert starts == ["The ", "A do", "Did ", '"No,', "It s", "New ", "Mr. ", "Smit"]
    assert sentence_starts("").size == 0
    chinese = "\u4f60\u597d\u3002\u518d\u89c1\uff01\u597d"
    assert sentence_starts(chinese).tolist() == [0, 3, 6]


def test_windows_start_at_sentences(tokenizer: Any) -> None:
    found = text_windows([STORY], tokenizer, tokens=4, count=None)
    texts = {tokenizer.decode(row).strip()[:2] for row in found.tokens}
    assert texts == {"Th", "A ", "Di", '"N', "It", "Ne", "Mr", "Sm"}
    everywhere = text_windows([STORY], tokenizer, tokens=4, count=None, at="anywhere")
    assert everywhere.weights.sum() == len(tokenizer(STORY)["input_ids"]) - 3


def test_windows_stay_within_documents(tokenizer: Any) -> None:
    texts = ["1111", "", "22222", "333"]
    found = text_windows(texts, tokenizer, tokens=3, count=None, at="anywhere")
    shown = {tokenizer.decode(row): weight for row, weight in zip(found.tokens, found.weights, strict=True)}
    assert shown == {"111": 2.0, "222": 3.0, "333": 1.0}  # repeated ones are counted, not repeated
    assert found.documents is not None
    assert len(set(found.documents)) == 3


def test_a_sample_is_drawn_without_replacement(tokenizer: Any) -> None:
    everything = windows("python-docs", tokenizer, count=None)
    sample = windows("python-docs", tokenizer, count=500)
    assert sample.weights.sum() == 500
    known = {tuple(row): weight for row, weight in zip(everything.tokens.tolist(), everything.weights, strict=True)}
    pairs = zip(sample.tokens.tolist(), sample.weights, strict=True)
    assert all(weight <= known[tuple(row)] for row, weight in pairs)


def test_windows_are_the_same_for_everyone(tokenizer: Any, tmp_path: Path) -> None:
    file = write(tmp_path, ".jsonl", [STORY.replace("cat", str(i)) for i in range(60)])
    first = windows(file, tokenizer, count=300)
    again = windows(file, tokenizer, count=300)
    assert first.hash == again.hash
    assert len(first.hash) == 16
    assert (first.tokens == again.tokens).all()
    shuffled = first.select(np.random.default_rng(0).permutation(len(first)))
    assert shuffled.hash == first.hash
    changes: list[dict[str, Any]] = [{"seed": 1}, {"tokens": 9}, {"at": "anywhere"}, {"prefix": (0,)}]
    others = {windows(file, tokenizer, **{"count": 300, **change}).hash for change in changes}
    assert len({first.hash} | others) == 5


def test_what_the_tokenizer_adds_is_recorded(bos_tokenizer: Any) -> None:
    start = bos_tokenizer.bos_token_id
    for found in (windows("animal", bos_tokenizer, count=20), text_windows([STORY], bos_tokenizer)):
        assert found.prefix == (start,)
        assert start not in found.tokens


def test_prefixes_and_distinct_tokens_agree_with_the_windows(tokenizer: Any) -> None:
    found = windows("python-docs", tokenizer, count=400)
    for t in (1, 3, 8):
        rows, group, weights = found.prefixes(t)
        assert (found.tokens[rows][group][:, :t] == found.tokens[:, :t]).all()
        assert len(rows) == len(np.unique(found.tokens[:, :t], axis=0))
        assert weights.tolist() == [found.weights[group == g].sum() for g in range(len(rows))]
    ids, index = found.distinct_tokens()
    assert (ids[index] == found.tokens).all()
    assert len(ids) == len(set(found.tokens.reshape(-1).tolist()))


def test_held_out_windows_are_of_other_documents(tokenizer: Any) -> None:
    found = windows("python-docs", tokenizer, count=800)
    rest, held_out = found.split(0.25)
    assert rest.documents is not None
    assert held_out.documents is not None
    assert not set(rest.documents) & set(held_out.documents)
    assert rest.weights.sum() + held_out.weights.sum() == found.weights.sum()
    # 79 documents of very different length; a quarter of them holds some, and not most, of the windows.
    assert 0.02 < len(held_out) / len(found) < 0.7
    lists, more = windows("animal", tokenizer, count=100).split(0.2)
    assert (len(lists), len(more)) == (80, 20)
    with pytest.raises(InputError, match="too few to hold out 20%"):
        text_windows([STORY], tokenizer, tokens=2).split()


def test_a_window_of_two_documents_counts_in_each_part_what_was_drawn_there(tokenizer: Any) -> None:
    texts = ["1111", "22222", "111", "3333", "1111"]
    found = text_windows(texts, tokenizer, tokens=3, count=None, at="anywhere")
    drawn = {text: [text[i : i + 3] for i in range(len(text) - 2)] for text in texts}
    for seed in range(8):
        rest, held_out = found.split(0.4, seed=seed)
        held = {int(document) for document in held_out.occurrences[:, 1]}
        assert len(held) == 2
        assert not held & {int(document) for document in rest.occurrences[:, 1]}
        for part, members in ((rest, set(range(5)) - held), (held_out, held)):
            wanted: dict[str, float] = {}
            for window in [window for document in members for window in drawn[texts[document]]]:
                wanted[window] = wanted.get(window, 0) + 1
            weights = zip(part.tokens, part.weights, strict=True)
            assert {tokenizer.decode(row): weight for row, weight in weights} == wanted
            assert part.documents is not None
            assert set(part.documents) <= members
            again = part.select(np.arange(len(part))[::-1])
            assert (again.occurrences[:, 2].sum(), len(again)) == (part.weights.sum(), len(part))
            first = again.occurrences[again.occurrences[:, 0] == 0]
            assert first[:, 2].sum() == again.weights[0]


def test_windows_of_ones_own_split_by_their_documents() -> None:
    own = Windows("x", "text", np.arange(8)[:, None], np.full(8, 2.0), documents=np.repeat(np.arange(4), 2))
    rest, held_out = own.split(0.25)
    assert (len(rest), len(held_out), held_out.weights.tolist()) == (6, 2, [2.0, 2.0])
    assert len(set(held_out.documents)) == 1


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
    monkeypatch.setattr(text, "_read", None)  # nothing reads it whole
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
    with pytest.raises(InputError, match=r"broken\.json could not be read as a table"):
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


def test_another_column_by_name(tokenizer: Any, tmp_path: Path) -> None:
    pd.DataFrame({"story": ["aaaaaa"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no column text or output or response or content; it has story\."):
        windows(tmp_path / "x.parquet", tokenizer, tokens=5)
    assert len(windows(tmp_path / "x.parquet", tokenizer, tokens=5, column="story")) == 1


def test_a_data_set_is_streamed(tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    letters = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(600)]
    pd.DataFrame({"text": [pair * 5 for pair in letters]}).to_parquet(tmp_path / "train.parquet")
    found = windows(f"hf:{tmp_path}", tokenizer, tokens=5, count=20)
    assert found.weights.sum() == 20
    assert found.documents is not None
    assert found.documents.max() < 256  # read no further than the first batch of documents, of 600
    with pytest.raises(InputError, match=r"no column story; it has text\."):
        windows(f"hf:{tmp_path}", tokenizer, column="story")
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
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE=1 and HF_DATASETS_OFFLINE=1 to keep to the cache"):
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
        ("list.jsonl", b"[1]\n", r"Line 1 of .*list\.jsonl is no JSON object"),
        (
            "other.jsonl",
            b'{"text": "a"}\n{"story": "b"}\n',
            r"Line 2 of .*other\.jsonl has no column .*it has story",
        ),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"not UTF-8: byte 0xe9 at position 24"),
        ("other.csv", b"story\nb\n", r"other\.csv has no column text .*it has story"),
        ("ragged.csv", b'text\na\n"b",c,d\n', r"ragged\.csv could not be read as a table"),
        ("broken.json", b"{", r"broken\.json could not be read as a table"),
        ("broken.parquet", b"PAR1nothing", r"broken\.parquet could not be read as parquet"),
    ],
)
def test_texts_that_cannot_be_used(tokenizer: Any, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        windows(tmp_path / name, tokenizer)


def test_options_that_make_no_sense(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="sentence or anywhere; got word"):
        windows("python-docs", tokenizer, at="word")
    with pytest.raises(InputError, match="at least 1 token; got 0"):
        windows("python-docs", tokenizer, tokens=0)


def test_windows_of_one_kind_of_token_still_group() -> None:
    same = Windows("x", "text", np.zeros((1, 4), np.int64), np.ones(1))
    rows, group, weights = same.prefixes(4)
    assert (rows.tolist(), group.tolist(), weights.tolist()) == ([0], [0], [1.0])
