"""Features of the output: what each is taken from, and what is missing stays null."""

from __future__ import annotations

import pandas as pd
import pytest

from estimators.base import InputError
from proxy.features.output import SAMPLES, common_shown, output_features, shown_in

ROWS = pd.DataFrame(
    {
        "model": "m",
        "corpus": "c",
        "layer": -1,
        "estimator": ["predictive-20", "output-20", "output-2-of-20", "output-2"],
        "macro_bits": [3.0, 2.0, 4.0, 4.5],
        "micro_bits": [1.0, 1.5, 3.0, 3.0],
        "ie_bits": [2.0, 0.5, 1.0, 1.5],
        "macro_ceiling_bits": [9.0, 6.0, 7.0, 7.0],
        "micro_ceiling_bits": [8.0, 6.0, 7.0, 7.0],
        "macro_std_error": [0.4, 0.1, 0.1, 0.1],
        "micro_std_error": [0.2, 0.1, 0.1, 0.1],
        "ie_std_error": 0.3,
        "bytes_per_token": 2.0,
    }
)


def test_each_feature_is_taken_from_its_reading() -> None:
    found = output_features(ROWS, shown=20).iloc[0]
    assert found["output.nll"] == 3.0  # (9 - 3) bits of a token of 2 bytes
    assert found["output.nll_lone"] == 3.5
    assert found["output.predictive_e"] == 2.0
    assert (found["output.j"], found["output.j_lone"], found["output.j_e"]) == (2.0, 1.5, 0.5)
    assert (found["output.j2"], found["output.j2_e"]) == (4.0, 1.0)
    assert found["noise.output.nll"] == 0.2
    assert found["noise.output.predictive_e"] == 0.3


def test_samples_tell_less_and_the_rest_is_null() -> None:
    found = output_features(ROWS, shown=SAMPLES).iloc[0]
    assert found["output.j2_e"] == 1.5
    assert found.isna()[["output.nll", "output.j", "output.predictive_e"]].all()


def test_readings_of_another_number_of_tokens_are_not_mixed() -> None:
    assert shown_in(ROWS) == [20, SAMPLES]
    assert shown_in(ROWS[ROWS["estimator"] != "output-20"]) == [SAMPLES]
    assert shown_in(ROWS.assign(layer=0)) == []


def test_two_corpora_or_two_readings_of_a_model_are_refused() -> None:
    with pytest.raises(InputError, match="the table holds a, c; choose one"):
        output_features(pd.concat([ROWS, ROWS.assign(corpus="a")]), shown=20)
    with pytest.raises(InputError, match="m was read twice by predictive-20"):
        output_features(pd.concat([ROWS, ROWS]), shown=20)


def test_costs_by_length_of_the_context_stand_beside_those_of_the_longest() -> None:
    """(9 - 2) bits of a token of 2 bytes after four tokens of context, (9 - 3) after eight."""
    short = ROWS.assign(position=4, macro_bits=2.0)
    found = output_features(pd.concat([ROWS.assign(position=8), short]), shown=20).iloc[0]
    assert (found["output.nll"], found["output.nll_at_4"]) == (3.0, 3.5)
    assert found["noise.output.nll_at_4"] == 0.2
    assert found["output.j"] == 2.0


def test_the_reading_that_all_models_share_is_taken() -> None:
    samples = ROWS.iloc[[3]].assign(model="n")
    assert common_shown(ROWS.assign(asked="weights")) == 20
    assert common_shown(pd.concat([ROWS, samples]).assign(asked="weights")) == SAMPLES
    with pytest.raises(InputError, match="The models share no set of readings"):
        common_shown(pd.concat([ROWS.iloc[:3], samples]).assign(asked="weights"))


def test_accuracy_is_of_the_likeliest_token_or_of_each_sample() -> None:
    rows = ROWS.assign(accuracy=[0.3, 0.3, 0.3, 0.2], accuracy_std_error=0.01, log_rank=[2.0, 2.0, 2.0, None])
    assert output_features(rows, shown=20)["output.accuracy"].item() == 0.3
    assert output_features(rows, shown=20)["output.log_rank"].item() == 2.0
    assert output_features(rows, shown=SAMPLES)["output.accuracy"].item() == 0.2
    assert output_features(rows, shown=SAMPLES)["output.log_rank"].isna().all()
