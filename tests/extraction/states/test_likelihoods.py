"""What the head says, against the plain model; and the judging of lists."""

from typing import Any

import numpy as np
import pytest
import torch

from estimators.base import InputError
from extraction.corpora.lists import list_windows
from extraction.corpora.loading import text_windows, windows
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel, load_model
from extraction.states import forward
from extraction.states.extracting import extract
from extraction.states.likelihoods import Likelihoods, accuracy_by_shots, likelihood_table


@pytest.mark.parametrize("prefix", [(), (7, 8)])
def test_behaviour_is_that_of_the_plain_model(
    gpt2: LanguageModel, prefix: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "HEAD_BYTES", 5 * 4 * 6 * gpt2.vocabulary)  # a few sequences at a time
    found = windows("animal", gpt2.tokenizer, tokens=6, count=40, prefix=prefix)
    front, length = len(prefix), 6
    rows = torch.cat(
        [torch.tensor(prefix, dtype=torch.int64).expand(len(found), -1), torch.from_numpy(found.tokens)], 1
    )
    with torch.no_grad():
        said = torch.log_softmax(gpt2.model(rows).logits.double(), dim=-1)
    with extract(gpt2, found) as states:
        likelihoods = states.likelihoods
    assert likelihoods is not None
    for t in range(length):
        given = likelihoods.nll_bits[:, t]
        if t + front == 0:
            assert given.isnan().all()
        else:
            wanted = -said[torch.arange(len(found)), t + front - 1, rows[:, t + front]] / np.log(2)
            # float32 logits of order 10 against the same in float64
            torch.testing.assert_close(given.double(), wanted, rtol=1e-4, atol=1e-4)
        entropy = -(said[:, t + front].exp() * said[:, t + front]).sum(-1) / np.log(2)
        torch.testing.assert_close(likelihoods.entropy_bits[:, t].double(), entropy, rtol=1e-4, atol=1e-4)
        assert (likelihoods.predicted[:, t] == said[:, t + front, 1:].argmax(-1) + 1).all()  # token 0 is end of text


def test_behaviour_only_when_asked_for(gpt2: LanguageModel) -> None:
    with extract(gpt2, windows("animal", gpt2.tokenizer, count=5), likelihoods=False) as states:
        assert states.likelihoods is None
        assert states.nll_bits is None


def judged(found: Windows, predicted: np.ndarray) -> list[tuple[int, float, float]]:
    """Accuracy when `predicted` (N, T) is what the model says next."""
    nothing = torch.zeros(predicted.shape)
    table = accuracy_by_shots(Likelihoods(nothing, nothing, torch.from_numpy(predicted)), found)
    assert (table["windows"] == len(found)).all()
    assert found.entities is not None
    assert table["chance"].tolist() == pytest.approx((1 - table["shots"] / len(found.entities)).tolist())
    return list(table[["shots", "in_category", "correct"]].itertuples(index=False, name=None))


def test_a_list_is_judged_by_its_rule(tokenizer: Any) -> None:
    found = list_windows("c", ["France", "Japan", "Spain"], tokenizer, tokens=6, count=None)
    right = np.roll(found.tokens, -1, axis=1)
    assert judged(found, right) == [(1, 1.0, 1.0), (2, 1.0, 1.0), (3, 1.0, 0.0)]  # after all three none is left
    assert judged(found, np.roll(found.tokens, 1, axis=1)) == [(1, 1.0, 0.0), (2, 1.0, 0.0), (3, 1.0, 0.0)]
    assert judged(found, np.zeros_like(right)) == [(1, 0.0, 0.0), (2, 0.0, 0.0), (3, 0.0, 0.0)]
    half = np.where(np.arange(len(found))[:, None] % 2, right, 0)
    assert judged(found, half)[0] == (1, 0.5, 0.5)


def test_an_entity_of_several_tokens_is_judged_by_its_first(tokenizer: Any) -> None:
    tokens = np.array([[10, 11, 5, 20, 21, 5], [10, 12, 5, 20, 21, 5]])
    entities = np.array([[10, 11], [10, 12], [20, 21]])
    found = Windows("c", "icl", tokens, np.array([3.0, 1.0]), tokens_per_demonstration=3, entities=entities)
    same = np.full((2, 6), 10)
    # After 10 11, another entity that begins with 10 is left; so it is after 20 21.
    assert judged(found, same) == [(1, 1.0, 1.0), (2, 1.0, 1.0)]
    other = np.array([[20] * 6, [0] * 6])
    assert judged(found, other) == [(1, 0.75, 0.75), (2, 0.75, 0.0)]  # by weight


def test_text_has_no_shots(tokenizer: Any) -> None:
    text = text_windows(["the cat sat on the mat"], tokenizer, tokens=4)
    empty = torch.zeros(text.tokens.shape)
    with pytest.raises(InputError, match="needs lists of entities, but text is text"):
        accuracy_by_shots(Likelihoods(empty, empty, empty.long()), text)


def test_a_table_has_a_row_a_position() -> None:
    tokens = np.array([[10, 11, 5, 20, 21, 5], [10, 12, 5, 20, 21, 5]])
    entities = np.array([[10, 11], [10, 12], [20, 21]])
    found = Windows("c", "icl", tokens, np.array([3.0, 1.0]), tokens_per_demonstration=3, entities=entities)
    nll = torch.tensor([[torch.nan, 1.0, 1.0, 1.0, 1.0, 1.0], [torch.nan, 5.0, 1.0, 1.0, 1.0, 1.0]])
    likelihoods = Likelihoods(nll, torch.ones(2, 6), torch.full((2, 6), 10))
    table = likelihood_table(likelihoods, found, "m")
    assert table["nll_bits"].tolist()[1:3] == [2.0, 1.0]  # by weight
    assert table["nll_bits"].isna().tolist() == [True] + [False] * 5
    assert table["shots"].isna().tolist() == [True, True, False, True, True, False]
    assert table["correct"].dropna().tolist() == accuracy_by_shots(likelihoods, found)["correct"].tolist()
    assert set(table["corpus_hash"]) == {found.hash}
    text = Windows("t", "text", tokens, np.ones(2))
    assert list(likelihood_table(likelihoods, text, "m")) == [
        "model",
        "corpus",
        "corpus_hash",
        "position",
        "nll_bits",
        "entropy_bits",
        "windows",
    ]


def test_a_trained_model_sees_the_rule_and_a_random_one_does_not(gpt2: LanguageModel) -> None:
    """The bundled models were trained on such lists; a network with random weights was not."""
    trained = load_model("gpt2-2m")
    tables = []
    for model in (trained, gpt2):
        found = windows("animal", model.tokenizer, count=200)
        with extract(model, found) as states:
            assert states.likelihoods is not None
            tables.append(accuracy_by_shots(states.likelihoods, found))
    assert tables[0]["in_category"].min() > 0.9
    assert (tables[0]["correct"] > tables[0]["chance"]).all()
    assert (tables[1]["correct"] < tables[1]["chance"]).all()  # it may repeat what was shown, as tied weights make it
