"""Behaviour as numbers: known answers for each, and null where nothing is known."""

import json
import math
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import InputError
from extraction.tables import RESPONSES
from proxy.features.behaviour import accuracy_by_shots, behaviour_features, distinct_share, entropy_bits, list_answer


def answers(rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [{"model": "m", "prompt_id": str(number), "prompt": "Go on", **row} for number, row in enumerate(rows)]
    )
    return RESPONSES.conform(frame)


def test_missing_is_null_not_zero():
    found = behaviour_features(answers([{"text": "A short answer."}] * 3))
    unknown = {"list_accuracy", "list_gain", "self_consistency", "semantic_entropy", "surprise_bits", "entropy_bits"}
    assert {name for name, value in found.items() if value is None} >= unknown
    assert found["refusal"] == 0.0
    assert found["cut_off"] is None  # no finish reason was given


def test_every_prompt_counts_the_same_however_many_samples_it_has():
    rows = [{"prompt_id": "a", "text": "xxxx"}] * 9 + [{"prompt_id": "b", "text": "x"}]
    found = behaviour_features(answers(rows))
    assert found["log_characters"] == pytest.approx((math.log(5) + math.log(2)) / 2)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=9))
def test_lexical_diversity_is_the_mean_over_all_draws(tokens):
    draws = list(combinations(range(len(tokens)), 3))
    mean = sum(len({tokens[place] for place in draw}) / 3 for draw in draws) / len(draws)
    assert distinct_share(tokens, 3) == pytest.approx(mean, abs=1e-9)  # rounding of logarithms


def test_lexical_diversity_does_not_fall_with_length():
    """Both are unbiased for the same mean; of 50 short texts to about 0.01 (their spread, 0.06, over 7)."""
    rng = np.random.default_rng(0)
    long = [str(word) for word in rng.integers(50, size=5000)]
    short = [distinct_share(long[start : start + 100], 20) for start in range(0, 5000, 100)]
    assert np.mean(short) == pytest.approx(distinct_share(long, 20), abs=0.03)
    assert len(set(long)) / len(long) < 0.1 * len(set(long[:100])) / 100  # as the type-token ratio does
    assert distinct_share(long[:10], 20) is None


def test_list_accuracy_by_shots():
    rows = [
        {"prompt": "The list is: dog, cat,", "text": " horse, cow,"},  # right
        {"prompt": "The list is: dog, cat,", "text": " dog, cow,"},  # named already
        {"prompt": "The list is: red, blue, green, black, white,", "text": "Pink."},  # right
        {"prompt": "Tell me,", "text": "no list"},
    ]
    found = behaviour_features(answers(rows))
    assert found["list_accuracy"] == pytest.approx(2 / 3)
    assert found["list_accuracy_few"] == 0.5
    assert found["list_accuracy_many"] == 1.0
    assert found["list_gain"] == 0.5
    assert accuracy_by_shots(answers(rows)) == {2: 0.5, 5: 1.0}
    assert list_answer("dog, cat,", "") == (2, False, "")
    assert list_answer("Nothing", "dog") is None


def test_samples_that_agree_and_samples_that_do_not():
    same = [{"prompt_id": "a", "prompt": "dog,", "text": text} for text in ("cat", " Cat, cow", "cat.", "cat")]
    found = behaviour_features(answers(same))
    assert (found["self_consistency"], found["semantic_entropy"]) == (1.0, 0.0)
    four = [{"prompt_id": "a", "text": text} for text in ("one two", "three four", "five six", "seven eight")]
    found = behaviour_features(answers(four))
    assert (found["self_consistency"], found["semantic_entropy"]) == (0.0, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=30), st.integers(1, 10))
def test_a_truncated_distribution_is_completed_from_below(counts, kept):
    total = sum(counts)
    p = sorted((count / total for count in counts), reverse=True)
    true = -sum(x * math.log2(x) for x in p)
    top = {str(place): math.log(x) for place, x in enumerate(p[:kept])}
    assert entropy_bits(top) <= true + 1e-9
    if kept >= len(p):
        assert entropy_bits(top) == pytest.approx(true, abs=1e-9)
    assert entropy_bits({}) is None


def test_logprobs_give_surprise_entropy_and_calibration():
    half = math.log(0.5)
    tokens = [
        {"token": "cat", "logprob": half, "top": {"cat": half, "cow": half}},
        {"token": "?", "logprob": None, "top": {}},
    ]
    rows = [{"prompt": "dog,", "text": "cat", "logprobs": json.dumps(tokens)}, {"text": "silent"}]
    found = behaviour_features(answers(rows))
    assert found["surprise_bits"] == pytest.approx(1.0)
    assert found["entropy_bits"] == pytest.approx(1.0)
    assert found["list_brier"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help.", 1.0),
        ("As an AI language model, I", 1.0),
        ("I cannot do that", 1.0),
        ("As a language model, I", 1.0),
        ("The can is empty.", 0.0),
        ("Python as a language is old.", 0.0),
    ],
)
def test_refusals(text, refuses):
    assert behaviour_features(answers([{"text": text}]))["refusal"] == refuses


def test_repetition_and_compression_see_loops():
    loop = behaviour_features(answers([{"text": "to the sea and back again " * 20}] * 5))
    prose = behaviour_features(answers([{"text": " ".join(f"{a}{b}" for a in "abcdefgh" for b in "ijklmnop")}] * 5))
    assert loop["repetition"] > 0.8 > 0.1 > prose["repetition"]
    assert loop["compression"] < prose["compression"]


@settings(max_examples=25, deadline=None)  # a call builds several tables
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_gives_finite_numbers(texts):
    found = behaviour_features(answers([{"text": text} for text in texts]))
    assert all(value is None or math.isfinite(value) for value in found.values())
    assert Counter(found).keys() == behaviour_features(answers([{"text": "x"}])).keys()


@pytest.mark.parametrize(
    ("reason", "refuses"),
    [("content_filter", 1.0), ("refusal", 1.0), ("SAFETY", 1.0), ("stop", 0.0), (None, 0.0)],
)
def test_an_answer_that_was_withheld_is_a_refusal(reason, refuses):
    assert behaviour_features(answers([{"text": "", "finish_reason": reason}]))["refusal"] == refuses


def test_an_answer_cut_off_in_any_server_s_words_is_cut_off():
    rows = [{"text": "The", "finish_reason": end} for end in ("length", "max_tokens", "model_length", "end_turn")]
    assert behaviour_features(answers(rows))["cut_off"] == 0.75


def test_logprobs_count_by_prompt_too():
    def said(bits):
        return json.dumps([{"token": "x", "logprob": -bits * math.log(2), "top": {}}])

    rows = [{"prompt_id": "a", "text": "x", "logprobs": said(1)}] * 9
    rows += [{"prompt_id": "b", "text": "x", "logprobs": said(3)}]
    assert behaviour_features(answers(rows))["surprise_bits"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "raw", ["{", "5", '{"a": 1}', '[{"token": "x"}]', '["x"]', '[{"logprob": -1, "top": 5}]', "[[]]"]
)
def test_malformed_logprobs_are_bad_input(raw):
    with pytest.raises(InputError, match="of prompt 1 could not be read"):
        behaviour_features(answers([{"text": "x"}, {"text": "x", "logprobs": raw}]))


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(50)]
    rows = answers([{"prompt_id": str(n), "text": " ".join(rng.choice(words, 40))} for n in range(300)])
    one, other = (
        {name: value for name, value in behaviour_features(part).items() if value is not None}
        for part in (rows, rows.iloc[::-1])
    )
    assert other == pytest.approx(one, rel=1e-12)  # rounding of sums
