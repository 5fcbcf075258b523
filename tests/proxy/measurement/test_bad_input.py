"""What cannot be read by the predictive observer, from the command line: one sentence each, and exit 2."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import extraction
from estimators.base import InputError
from extraction import LanguageModel, load_model
from proxy.measurement.names import check_options
from proxy.measurement.table import Propagation
from tests.proxy.measurement.odd_heads import with_bent_head, without_head

WORDS = (
    "One",
    "Two",
    "The",
    "She",
    "He",
    "It",
    "They",
    "We",
    "You",
    "And",
    "But",
    "Then",
    "Now",
    "Here",
    "When",
    "All",
)


@pytest.fixture
def refused(emergence: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run `emergence measure`, which must refuse and write nothing, and return the sentence that it says."""

    def run(*args: object) -> str:
        folder = tmp_path_factory.mktemp("written")
        written = ("--out", folder / "rows.parquet", "--plot", folder / "depth.png")
        done = emergence("measure", "gpt2-30k", "--prefix", "none", *written, *args)
        assert done.code == 2, (done.out, done.err)
        assert done.out == ""
        assert not list(folder.iterdir())
        last = [line for line in done.err.splitlines() if line.strip()][-1]
        assert last.startswith("Error: ")
        return str(last)

    return run


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[LanguageModel], None]:
    """Let the command load this model, whatever it is asked for."""

    def give(model: LanguageModel) -> None:
        monkeypatch.setattr(extraction, "load_model", lambda name, **options: model, raising=False)

    return give


def sentences(count: int) -> str:
    made = itertools.product(WORDS, WORDS, WORDS)
    return " ".join(f"{a} was {b.lower()} and {c.lower()} of it all." for a, b, c in itertools.islice(made, count))


def test_a_text_too_short_says_how_much_is_needed(refused: Callable[..., str], tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text(sentences(40), encoding="utf-8")
    said = refused("--corpus", short)
    assert "takes at least 100 different windows that a token follows; short.txt gave 40." in said
    assert said.endswith("Ask for more windows, or give at least 2.5 times as much text.")
    assert "takes at least 100" in refused("--corpus", "python-docs", "--windows", 50)
    few = tmp_path / "few.txt"
    few.write_text(sentences(8), encoding="utf-8")
    said = refused("--corpus", few, "--estimator", "output-20")
    assert "whole characters; what a model says next is read on at least 10" in said


def test_a_text_that_is_long_enough_is_read_in_parts_and_says_so(emergence: Callable[..., Any], tmp_path: Path) -> None:
    enough = tmp_path / "enough.txt"
    enough.write_text(sentences(130), encoding="utf-8")
    done = emergence("measure", "gpt2-30k", "--corpus", enough, "--prefix", "none", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert {row["flags"] for row in rows} == {"few-documents"}


def test_windows_that_end_with_their_text(refused: Callable[..., str], tmp_path: Path) -> None:
    tokenizer = load_model("gpt2-30k", device="cpu").tokenizer
    lines = [sentence for text in WORDS for sentence in (f"{text} was {word.lower()} of it" for word in WORDS)]
    ids = [tokenizer(line)["input_ids"] for line in lines]
    length = max(set(map(len, ids)), key=[len(one) for one in ids].count)
    texts = tmp_path / "texts.jsonl"
    kept = [line for line, one in zip(lines, ids, strict=True) if len(one) == length]
    texts.write_text("".join(json.dumps({"text": line}) + "\n" for line in kept), encoding="utf-8")
    said = refused("--corpus", texts, "--tokens", length)
    assert "Every window of texts.jsonl ends with its text, so no next token is left to predict" in said


def test_one_next_token(refused: Callable[..., str], tmp_path: Path) -> None:
    tokenizer = load_model("gpt2-30k", device="cpu").tokenizer
    following = tokenizer(" the")["input_ids"]
    lines = [f"{tokenizer.decode([token])} the" for token in range(len(tokenizer))]
    lines = [line for line in lines if line.isprintable() and tokenizer(line)["input_ids"][1:] == following]
    assert len(lines) > 100
    same = tmp_path / "same.jsonl"
    same.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    for estimator in ("predictive", "predictive-20"):
        said = refused("--corpus", same, "--tokens", 1, "--estimator", estimator)
        assert said == "Error: Every next token is the same, so there is nothing to predict; give a more varied corpus."


def test_a_model_without_an_output_head(refused: Callable[..., str], loads: Callable[[LanguageModel], None]) -> None:
    loads(without_head(load_model("gpt2-30k", device="cpu")))
    said = refused("--corpus", "python-docs")
    assert "has no output head, so it predicts no next token; use sample-propagation" in said


def test_a_head_that_is_not_linear(refused: Callable[..., str], loads: Callable[[LanguageModel], None]) -> None:
    loads(with_bent_head("gpt2-30k"))
    said = refused("--corpus", "python-docs")
    assert "are not those of a norm and a linear output layer, so no lens can read its states" in said


def test_states_that_overflow_in_half_precision(
    refused: Callable[..., str], loads: Callable[[LanguageModel], None], tmp_path: Path
) -> None:
    model = load_model("gpt2-30k", device="cpu")
    with torch.no_grad():
        model.model.get_decoder().wpe.weight[4:] = 1e5  # of later tokens; float16 ends at 65,504
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loads(load_model(tmp_path, device="cpu", dtype="float16"))
    for estimator, sentence in (
        ("predictive", "States hold values that are not finite, so no lens can be fitted"),
        ("sample-propagation", "States hold values that are not finite, so they cannot be normalised"),
        ("output-20", "Logits are not numbers, so nothing can be read of the output"),
    ):
        said = refused("--corpus", "python-docs", "--windows", 300, "--estimator", estimator)
        assert f"{sentence}; load the model as bfloat16 or float32" in said


def test_full_is_no_option_of_trained_estimators() -> None:
    check_options(["predictive", "mine"], {"full": True, "steps": 5})
    check_options(["sample-propagation"], {"full": True})
    with pytest.raises(InputError, match="full is an option of predictive and sample-propagation; mine takes no such"):
        check_options(["mine"], {"full": True})
    with pytest.raises(InputError, match="full is true or false; got 'yes'"):
        check_options(["predictive"], {"full": "yes"})
    with pytest.raises(InputError, match="Options are for trained estimators"):
        check_options(["predictive"], {"full": True, "steps": 5})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"queries": 0}, "queries takes a whole number of at least 2, got 0"),
        ({"project": 0}, "project takes a whole number of at least 1, got 0"),
        ({"resolutions": (0.18, 0.0)}, "resolution takes a number above 0, got 0.0"),
        ({"resolutions": (float("nan"),)}, "resolution takes a number above 0, got nan"),
    ],
)
def test_numbers_that_nothing_can_be_read_with_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Propagation(**given)
