"""The neutral first token: found by hand, found again, overridden."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from estimators.base import InputError
from estimators.folds import assign_folds
from estimators.predictive import SHARES, TEMPERATURES
from estimators.shown import unigram_of
from extraction import LanguageModel, load_model, windows
from extraction.models.twin import random_twin
from proxy.measurement import prefix as searching
from proxy.measurement.prefix import NeutralPrefix, chosen_prefix, neutral_prefix, with_prefix

END = "<|endoftext|>"


@pytest.fixture
def model() -> LanguageModel:
    return load_model("gpt2-30k", device="cpu")


@pytest.fixture
def sinking(model: LanguageModel) -> LanguageModel:
    """The state of the first position is the same whatever stands there."""
    with torch.no_grad():
        model.model.get_decoder().wpe.weight[0] = 1e4 * torch.randn(
            model.width, generator=torch.Generator().manual_seed(0)
        )
    return model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMERGENCE_CACHE", str(tmp_path))
    return tmp_path / "prefixes"


def by_hand(model: LanguageModel, front: list[int]) -> float:
    """Mean gain behind `front` of all lone tokens that are counted, each run by itself."""
    text = windows("python-docs", model.tokenizer, prefix=())
    assert text.next_tokens is not None
    assert text.documents is not None
    known = text.next_tokens >= 0
    rows = np.column_stack([text.tokens[known], text.next_tokens[known]])
    fold, _ = assign_folds(len(rows), text.documents[known], 0)
    fitting, counted = fold != 0, fold == 0
    u = torch.from_numpy(unigram_of(rows[fitting, 1:], model.vocabulary, text.weights[known][fitting]))
    pairs = [
        (first, then, weight)
        for row, weight in zip(rows[counted], text.weights[known][counted], strict=True)
        for first, then in itertools.pairwise(row)
    ]
    with torch.inference_mode():
        said = {
            first: model.model(input_ids=torch.tensor([[*front, first]])).logits[0, -1].double()
            for first in {first for first, _, _ in pairs}
        }
    assert len(said) <= searching.LONE  # so that none was left out
    of_then = torch.tensor([float(u[then]) for _, then, _ in pairs]).double()
    p = torch.tensor(
        [[float(torch.softmax(said[first] / t, -1)[then]) for first, then, _ in pairs] for t in TEMPERATURES]
    ).double()
    share = torch.tensor([weight for *_, weight in pairs]).double()
    return max(
        float(torch.log2(((1 - w) * row + w * of_then) / of_then) @ share / share.sum()) for row in p for w in SHARES
    )


def test_gains_are_those_of_every_lone_token_run_by_itself(model: LanguageModel) -> None:
    found = neutral_prefix(model)
    for text, front in (("", []), (END, [0])):
        assert found.gains[text] == pytest.approx(by_hand(model, front), abs=1e-4)  # float32 logits


def test_a_model_that_speaks_from_its_first_position_takes_none(model: LanguageModel) -> None:
    found = neutral_prefix(model)
    assert (found.ids, found.text) == ((), "")
    assert found.gains[""] > found.gains[END] > 0.2
    assert str(found) == "no neutral first token: lone tokens tell most without one"


def test_a_model_whose_first_position_says_nothing_takes_its_special_token(sinking: LanguageModel) -> None:
    found = neutral_prefix(sinking)
    assert (found.ids, found.text) == ((0,), END)
    # behind nothing only what the head knows better than counts of how often each token comes
    assert abs(found.gains[""]) < 0.1 < 0.2 < found.gains[END]
    assert str(found).startswith("neutral first token '<|endoftext|>': lone tokens tell 0.")


def test_of_many_special_tokens_the_best_is_found(sinking: LanguageModel) -> None:
    sinking.tokenizer.add_special_tokens({"extra_special_tokens": ["Ġthe", "Ġand", "Ġof", "Ġa", "Ġto"]})
    candidates = searching._candidates(sinking)
    assert len(candidates) == 7
    found = neutral_prefix(sinking)
    pairs = searching.next_token_pairs(windows("python-docs", sinking.tokenizer, prefix=()), sinking.vocabulary)
    of_all = {text: searching._gain(sinking, ids, pairs.most_frequent(600)) for text, ids in candidates.items()}
    assert found.text == max(of_all, key=of_all.__getitem__)
    assert 2 <= len(found.gains) <= 1 + searching.FINALISTS


def test_what_the_tokenizer_adds_is_taken_without_a_search(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_search", None)
    found = neutral_prefix(replace(model, prefix=(0,)))
    assert (found.ids, found.text, found.gains) == ((0,), END, {})
    assert with_prefix(replace(model, prefix=(0,)), "none").prefix == ()


def test_it_is_found_once_for_a_model(model: LanguageModel, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = neutral_prefix(model)
    searched: list[str] = []
    search = searching._search

    def counted(model: LanguageModel, *given: Any) -> NeutralPrefix:
        searched.append(model.name)
        return search(model, *given)

    monkeypatch.setattr(searching, "_search", counted)
    assert neutral_prefix(model) == first
    assert neutral_prefix(replace(model, name="another name", path=cache)) == first
    assert not searched
    twin = random_twin(model)  # other weights are another model
    neutral_prefix(twin)
    assert searched == [twin.name]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 5000,
        "[]",
        json.dumps({"version": 0, "text": "", "gains": {"": 0.5}}),
        json.dumps({"version": 1, "text": "<s>", "gains": {"<s>": 0.5}}),
        json.dumps({"version": 1, "text": "", "gains": {"": 0.1, END: 0.5}}),
        json.dumps({"version": 1, "text": "", "gains": {"": math.nan}}),
        json.dumps({"version": 1, "text": "", "gains": []}),
        json.dumps({"version": 1, "text": [], "gains": {}}),
    ],
)
def test_what_was_kept_and_damaged_is_found_anew(model: LanguageModel, cache: Path, content: str) -> None:
    file = searching._cache_file(model)
    assert file is not None
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="utf-8")
    found = neutral_prefix(model)
    assert found.gains[""] > found.gains[END]
    assert json.loads(file.read_text(encoding="utf-8")) == {"version": 1, "text": "", "gains": found.gains}


def test_nothing_is_kept_where_nothing_can_be_written(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMERGENCE_CACHE", str(tmp_path / "file" / "inside"))
    assert neutral_prefix(model).ids == ()


@pytest.mark.parametrize("choice", ["two words here", "", "<s>", "qzx"])
def test_a_token_that_is_none_is_refused(model: LanguageModel, choice: str) -> None:
    with pytest.raises(InputError, match=r"is not a single token of gpt2-30k; give auto, none or .* <\|endoftext\|>\."):
        chosen_prefix(model, choice)


def test_windows_and_table_follow_the_option(emergence: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    told = {}
    for choice in ("auto", "none", END):
        done = emergence("measure", "gpt2-30k", "--corpus", "animal", "--windows", 100, "--prefix", choice,
                         "--estimator", "sample-propagation", "--out", out)  # fmt: skip
        assert done.code == 0, done.err
        told[choice] = pd.read_parquet(out)
    assert {choice: set(table["prefix"]) for choice, table in told.items()} == {"auto": {""}, "none": {""}, END: {END}}
    same = told["auto"]["ie_bits"].to_numpy() == told["none"]["ie_bits"].to_numpy()
    assert same.all()
    assert (told["none"]["ie_bits"] != told[END]["ie_bits"]).any()
    done = emergence("measure", "gpt2-30k", "--corpus", "animal", "--prefix", "<bos>")
    assert done.code == 2
    assert "The prefix '<bos>' is not a single token of gpt2-30k" in done.err


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("EMERGENCE_REAL_MODELS"), reason="EMERGENCE_REAL_MODELS names no folder")
def test_a_real_model_takes_its_document_separator() -> None:
    real = load_model(Path(os.environ["EMERGENCE_REAL_MODELS"]) / "SmolLM2-135M-Instruct.gguf", device="cpu")
    found = neutral_prefix(real)
    assert found.text == END
    # 1.00, .58 and .17 were measured; another Python has other texts.
    assert found.gains[END] > found.gains["<|im_start|>"] + 0.3 > found.gains[""] + 0.5


def test_rows_from_sinks_are_flagged_and_said(
    sinking: LanguageModel, emergence: Callable[..., Any], tmp_path: Path
) -> None:
    folder, out = tmp_path / "sinking", tmp_path / "out.parquet"
    sinking.model.save_pretrained(folder)
    sinking.tokenizer.save_pretrained(folder)
    for choice, flagged in (("none", True), ("auto", False)):
        done = emergence("measure", folder, "--corpus", "python-docs", "--windows", 300, "--prefix", choice,
                         "--estimator", "predictive,sample-propagation", "--out", out)  # fmt: skip
        assert done.code == 0, done.err
        table = pd.read_parquet(out)
        assert set(table["estimator"]) == {"predictive", "sample-propagation"}
        assert (table["flags"].str.split(",").map(lambda flags: "sink" in flags) == flagged).all()
        assert ("Attention sinks in 4 of 4 blocks of sinking: states at a position" in done.err) == flagged
