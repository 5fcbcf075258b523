"""Tokenizers without their model: of bundled models, and encodings of tiktoken, made here rather than fetched."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from estimators.base import InputError
from extraction.models.tokenizers import REFERENCE, Tiktoken, load_tokenizer, tokenizer_of_closed
from proxy.measurement.output import corpus_contexts


@pytest.fixture(scope="module")
def encoding() -> Tiktoken:
    """Bytes and a few merges, with the usual two special tokens."""
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    words = [bytes([value]) for value in range(256)]
    words += [b"th", b"the", b" the", b"in", b"er", b" a", b" o", b" of", b"\xc3\xa9"]
    ranks = {word: rank for rank, word in enumerate(words)}
    special = {"<|endoftext|>": len(ranks), "<|endofprompt|>": len(ranks) + 1}
    pattern = r" ?\w+| ?[^\s\w]+|\s+"
    return Tiktoken(tiktoken.Encoding("small", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special))


def test_an_encoding_places_its_tokens_in_the_text(encoding: Tiktoken) -> None:
    text = "the end of the caf\u00e9 \u4f60\u597d"
    found = encoding(text, return_offsets_mapping=True)
    assert encoding.decode(found["input_ids"]) == text
    for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        piece = encoding.decode([token])
        if "\ufffd" not in piece:  # a part of a character spans that character
            assert text[start:end] == piece
    both = encoding([text, "of"])
    assert both["input_ids"] == [found["input_ids"], encoding("of")["input_ids"]]
    assert encoding.all_special_tokens == ["<|endofprompt|>", "<|endoftext|>"]
    assert len(encoding) == 267
    assert "<|endoftext|>" not in encoding.decode(encoding("<|endoftext|>")["input_ids"][:1])  # text, not the token


def test_windows_are_cut_by_an_encoding(encoding: Tiktoken) -> None:
    contexts = corpus_contexts("python-docs", encoding, tokens=6, count=30)
    assert contexts.positions == 6
    assert all(
        encoding.decode(row[:6]) == contexts.texts[place]
        for row, place in zip(contexts.ids.tolist(), contexts.of_window, strict=True)
    )


def test_a_closed_model_without_a_tokenizer_gets_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    tokenizer, own, called = tokenizer_of_closed("gpt-4o-mini", None)
    needs = "The encoding gpt-4o-mini needs the package tiktoken; pip install tiktoken"
    assert (own, called) == (False, f"the reference tokenizer, {REFERENCE}'s ({needs})")
    assert tokenizer_of_closed("m", None)[1:] == (False, f"the reference tokenizer, {REFERENCE}'s")
    assert len(tokenizer) == len(load_tokenizer(REFERENCE))
    with pytest.raises(InputError, match="pip install tiktoken"):
        load_tokenizer("tiktoken:o200k_base")


def test_openai_names_take_their_encoding(encoding: Tiktoken, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = importlib.import_module("tiktoken")
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: encoding._encoding)
    tokenizer, own, called = tokenizer_of_closed("gpt-4o-mini", None)
    assert (len(tokenizer), own, called) == (267, True, "tiktoken's for gpt-4o-mini")
    with pytest.raises(InputError, match="tiktoken has no encoding for klingon"):
        load_tokenizer("tiktoken:klingon")


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be loaded"):
        load_tokenizer(str(tmp_path))
    assert tokenizer_of_closed("m", "gpt2-30k")[1:] == (True, "gpt2-30k")
