"""Texts of two sides read by what comes next: neither is favoured, and random weights see nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from extraction import load_model, random_twin
from extraction.answers.prompt_texts import OPENINGS, QUESTIONS


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import human_vs_models

    return human_vs_models


def test_the_same_texts_on_both_sides_do_not_differ(benchmark):
    model = load_model("gemma-280k", device="cpu")
    texts = [" ".join([text] * 3) for text in (*OPENINGS, *QUESTIONS)]
    people, models = benchmark.NextTokens(model, 0)(texts, texts)
    assert people.shape == (len(texts), 3)
    assert np.array_equal(people, models)
    assert np.allclose(people[:, 0], people[:, 1] - people[:, 2])
    twin, _ = benchmark.NextTokens(random_twin(model, seed=0), 0)(texts, texts)
    error = people[:, 0].std(ddof=1) / np.sqrt(len(texts))
    assert people[:, 0].mean() > twin[:, 0].mean() + 4 * error


def test_a_side_is_read_on_the_prompts_that_both_answered_at_length(benchmark):
    model = load_model("gemma-280k", device="cpu")
    human = pd.Series([" ".join([text] * 3) for text in OPENINGS[:32]])
    answers = human.drop(index=0).where(human.index[1:] != 1, "Too short.")
    found = benchmark.Comparison(model, benchmark.NextTokens(model, 0), human, 0).with_model(answers)
    assert found["prompts"] == 30
    assert found["difference"] == 0
    assert found["low"] == found["high"] == 0
