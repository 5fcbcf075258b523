"""A small model and its windows, for tests of what a model says next."""

import pytest

from extraction import LanguageModel, load_model
from proxy.measurement.output import Contexts, corpus_contexts


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("gpt2-90k", device="cpu")


@pytest.fixture(scope="module")
def contexts(model: LanguageModel) -> Contexts:
    return corpus_contexts("python-docs", model.tokenizer, count=60)
