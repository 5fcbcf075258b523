"""Windows of text: from sentences, within documents, the same for everyone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction.corpora.lists import list_windows
from extraction.corpora.loading import text_windows, windows
from extraction.corpora.spec import CorpusOptions
from extraction.corpora.text import sentence_starts
from extraction.corpora.token_windows import Windows

STORY = 'The cat sat. A dog ran off! Did it? "No," said the fox. It slept.\n\nNew day. Mr. Smith left, e.g. home.'


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


def test_shuffled_windows_keep_every_position_and_lose_the_context(tokenizer: Any) -> None:
    found = windows("animal", tokenizer, count=300)
    shuffled = found.shuffled(seed=1)
    assert shuffled.corpus == "animal, shuffled"
    assert shuffled.weights.sum() == found.weights.sum()
    for t in range(found.tokens.shape[1]):
        both = [np.repeat(one.tokens[:, t], one.weights.astype(int)) for one in (found, shuffled)]
        np.testing.assert_array_equal(*map(np.sort, both))
    # Lists never name an entity twice; five of sixteen sampled independently do so in half the cases, 1 - 16!/11!/16^5.
    twice = [np.mean([len(set(row[::2])) < 5 for row in one.tokens]) for one in (found, shuffled)]
    assert twice[0] == 0
    assert twice[1] == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 300))  # four errors of a share of 300
    assert shuffled.hash == found.shuffled(seed=1).hash != found.shuffled(seed=2).hash


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
    stories = pd.DataFrame({"text": [STORY.replace("cat", str(i)) for i in range(60)]})
    file = tmp_path / "texts.jsonl"
    stories.to_json(file, orient="records", lines=True)
    first = windows(file, tokenizer, count=300)
    again = windows(file, tokenizer, count=300)
    assert first.hash == again.hash
    assert len(first.hash) == 16
    assert (first.tokens == again.tokens).all()
    shuffled = first.select(np.random.default_rng(0).permutation(len(first)))
    assert shuffled.hash == first.hash
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"tokens": 9},
        {"options": CorpusOptions(at="anywhere")},
        {"prefix": (0,)},
    ]
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


def test_options_that_make_no_sense(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="sentence or anywhere; got word"):
        windows("python-docs", tokenizer, options=CorpusOptions(at="word"))
    with pytest.raises(InputError, match="at least 1 token; got 0"):
        windows("python-docs", tokenizer, tokens=0)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused_by_each_maker_of_windows(tokenizer: Any, count: int) -> None:
    message = f"count is the number of windows to sample, at least 1; got {count}"
    for make in (
        lambda: windows("animal", tokenizer, count=count),
        lambda: text_windows([STORY], tokenizer, tokens=4, count=count),
        lambda: list_windows("pets", ["dog", "cat"], tokenizer, tokens=4, count=count),
    ):
        with pytest.raises(InputError, match=message):
            make()


def test_windows_of_one_kind_of_token_still_group() -> None:
    same = Windows("x", "text", np.zeros((1, 4), np.int64), np.ones(1))
    rows, group, weights = same.prefixes(4)
    assert (rows.tolist(), group.tolist(), weights.tolist()) == ([0], [0], [1.0])
