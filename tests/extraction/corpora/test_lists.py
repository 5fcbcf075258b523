"""Windows of lists: complete or sampled uniformly, distinct, of entities that are one token."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import InputError
from extraction.corpora.categories import CATEGORIES
from extraction.corpora.lists import _ordered_choices, list_windows
from extraction.corpora.loading import windows
from extraction.corpora.spec import CorpusOptions


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
        ({"options": CorpusOptions(demonstration=1)}, "at least 2 tokens; got 1"),
        ({"options": CorpusOptions(demonstration=5)}, "are 4 tokens followed by a one-token comma"),
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
