"""Models behind llama.cpp's server show what their weights show when transformers reads them."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from extraction import LanguageModel, Limits, Server, load_model, reference_models
from extraction.answers.collecting.next_tokens import INSTRUCTION
from extraction.answers.serving import serve
from proxy.measurement.api import Closed, find_first, gathered, measure_closed, open_api, readings
from proxy.measurement.output import Contexts, corpus_contexts, open_output, output_rows
from proxy.measurement.prefix import neutral_prefix

REAL = Path(os.environ.get("EMERGENCE_REAL_MODELS", "."))
real = pytest.mark.skipif(
    not os.environ.get("EMERGENCE_REAL_MODELS"), reason="EMERGENCE_REAL_MODELS names no folder of real models"
)
EDGE = 16.0  # log2 of one over the unigram probability of a token that was never seen in a few hundred
VALUES = (("macro_bits", "macro_std_error"), ("micro_bits", "micro_std_error"), ("ie_bits", "ie_std_error"))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def asked(url: str, model: LanguageModel, folder: Path, way: str, **options) -> Closed:
    return open_api(
        model.name, Server(url, limits=Limits(concurrency=4)), model.tokenizer, log=folder / f"{way}.jsonl", way=way,
        **options,
    )  # fmt: skip


def both(closed: Closed, model: LanguageModel, contexts: Contexts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows through the API, and from the weights behind the same first token or in the same chat."""
    through = measure_closed(closed, contexts)
    kept = gathered(closed, contexts, closed.ask([*contexts.texts, *contexts.alone_texts])).keep
    first = model.tokenizer(closed.first, add_special_tokens=False)["input_ids"] if closed.first else None
    data = open_output(model, contexts, prefix=first, instruction=INSTRUCTION if closed.asking.chat else None)
    return through, output_rows(replace(data, keep=kept), contexts, list(through["estimator"]))


def check_agreement(through: pd.DataFrame, weights: pd.DataFrame) -> None:
    """Within three joint errors, and closer where both read the same windows, so that their errors are shared.

    J moves by what 16-bit keys, values and quantised products move the probabilities. A true token at the edge of those
    shown may be seen on one side only, which costs its window up to `EDGE` bits: two such windows are allowed for.
    """
    for (_, api), (_, own) in zip(through.iterrows(), weights.iterrows(), strict=True):
        name = api["estimator"]
        edge = 2 * EDGE / api["windows"] if name.startswith("predictive") else 0.0
        for bits, error in VALUES:
            off = abs(api[bits] - own[bits])
            assert off < 3 * math.hypot(api[error], own[error]), (name, bits)
            if name != "output-2":  # whose samples have an error of their own
                assert off < 0.05 + edge, (name, bits)


@pytest.fixture(scope="module")
def small() -> tuple[LanguageModel, Contexts]:
    model = load_model("gpt2-280k", device="cpu")
    return model, corpus_contexts("python-docs", model.tokenizer, count=60)


@pytest.mark.parametrize("way", ["completions-logprobs", "chat-logprobs", "completions-samples"])
def test_a_bundled_model_through_a_real_server(llama_server, small, tmp_path, way) -> None:
    closed = asked(llama_server("gpt2-280k"), small[0], tmp_path, way)
    through, weights = both(closed, *small)
    check_agreement(through, weights)
    assert set(through["asked"]) == {closed.asking.name}


def test_without_v1_the_same_way_of_asking_is_found(llama_server, small, tmp_path) -> None:
    """Without it llama.cpp's server completes in a form of its own, while its chats look like any other's."""
    closed = asked(llama_server("gpt2-280k").removesuffix("/v1"), small[0], tmp_path, "auto")
    assert (closed.asking.name, closed.asking.capabilities.path) == ("completions-logprobs-20", "/v1")


def test_the_neutral_first_token_is_that_of_the_weights(llama_server, small, tmp_path) -> None:
    closed = asked(llama_server("gpt2-280k"), small[0], tmp_path, "completions-logprobs")
    assert closed.candidates == ("", "<|endoftext|>")
    bits = find_first(closed)
    print(bits, neutral_prefix(small[0]))
    assert closed.first == max(bits, key=bits.__getitem__) == neutral_prefix(small[0]).text


@pytest.mark.slow
def test_transformers_serve_gives_samples(tmp_path) -> None:
    """It ignores logprobs and n with HTTP 200, and applies chat templates."""
    model = load_model("gpt2-30k", device="cpu")
    contexts = corpus_contexts("python-docs", model.tokenizer, count=12)
    with serve(reference_models.path("gpt2-30k")) as url:
        closed = asked(url, model, tmp_path, "auto", samples=4)
        assert closed.asking.name == f"{closed.asking.capabilities.endpoint}-samples-4"
        assert not closed.asking.capabilities.several
        replies = closed.ask(contexts.texts)
    assert not replies.reasons
    sampled = [said.texts for said in replies.said.values()]
    assert {len(texts) for texts in sampled} == {4}
    assert any(len(set(texts)) > 1 for texts in sampled)  # it samples, by a field of its own
    assert readings(closed.asking) == ("output-2",)


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "way", "windows"),
    [
        ("SmolLM2-135M-Instruct.gguf", "completions-logprobs", 40),
        ("SmolLM2-135M-Instruct.gguf", "chat-logprobs", 24),
        ("SmolLM2-135M-Instruct.gguf", "completions-samples", 24),
        ("gemma-3-270m.gguf", "completions-logprobs", 30),
        ("gemma-3-270m.gguf", "completions-samples", 20),
    ],
)
def test_a_real_model_through_a_real_server(llama_server, tmp_path, file, way, windows) -> None:
    model = load_model(REAL / file, device="cpu")
    contexts = corpus_contexts("python-docs", model.tokenizer, count=windows)
    url = llama_server(REAL / file, "--context", 256, "--parallel", 8)  # 8 samples a call
    closed = asked(url, model, tmp_path, way)
    through, weights = both(closed, model, contexts)
    print(through[["estimator", "asked", "prefix", *np.ravel(VALUES), "flags"]].to_string())
    print(weights[["estimator", "asked", "prefix", *np.ravel(VALUES)]].to_string())
    check_agreement(through, weights)
