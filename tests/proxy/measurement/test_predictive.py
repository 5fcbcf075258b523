"""The predictive observer from text to rows, against the model's own likelihoods, and its controls."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from estimators.base import InputError
from estimators.contracts.controls import FAILED, summary, varying, with_controls
from estimators.predictive import FOLDS, TEMPERATURES, calibrate, gain_bits, split_folds, unigram
from extraction import LanguageModel, Windows, load_model, random_twin, windows
from extraction.states.budget import StateBudget
from proxy.measurement.predictive import CALIBRATED
from proxy.measurement.table import Listeners, Propagation, measure

MODEL = "gemma-2m"
COUNT = 2000


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model(MODEL, device="cpu")


@pytest.fixture(scope="module")
def text(model: LanguageModel) -> Windows:
    return windows("python-docs", model.tokenizer, count=COUNT, prefix=model.prefix)


@pytest.fixture(scope="module")
def table(model: LanguageModel, text: Windows) -> pd.DataFrame:
    return measure(model, text)


def test_a_row_for_every_block_and_position(table: pd.DataFrame, model: LanguageModel, text: Windows) -> None:
    assert len(table) == len(model.blocks) * text.tokens.shape[1]
    assert table["resolution"].isna().all()
    assert (table["estimator"] == "predictive").all()
    assert (table["asked"] == "weights").all()
    assert (table["macro_bits"] <= table["macro_ceiling_bits"]).all()
    np.testing.assert_allclose(
        table["ie_bits_per_byte"].astype(float), (table["ie_bits"] / table["bytes_per_token"]).astype(float)
    )
    np.testing.assert_allclose(
        (table["macro_bits"] - table["micro_bits"]).astype(float), table["ie_bits"].astype(float), atol=1e-9
    )


def test_at_the_last_block_it_is_the_difference_of_the_models_own_calibrated_likelihoods(
    table: pd.DataFrame, model: LanguageModel, text: Windows
) -> None:
    """Nothing between logits and bits but temperature and mixture: a plain forward pass gives the same number."""
    assert text.next_tokens is not None
    assert text.documents is not None
    known = np.flatnonzero(text.next_tokens >= 0)
    tokens = np.column_stack([text.tokens[known], text.next_tokens[known]])
    folds = split_folds(len(known), text.documents[known], 0)

    def gain(rows: np.ndarray, following: np.ndarray, width: int, choosing: int) -> np.ndarray:
        """Bits (N, width) that each row tells about what follows it; `choosing` windows of a fold calibrate."""
        front = torch.tensor([model.prefix] * len(rows), dtype=torch.int64).reshape(len(rows), len(model.prefix))
        with torch.inference_mode():
            ids = torch.cat([front, torch.from_numpy(rows)], 1)
            logits = model.model(input_ids=ids).logits[:, -1]
        target = torch.from_numpy(following)
        log_p = torch.stack([torch.log_softmax(logits / t, -1).gather(1, target[:, None])[:, 0] for t in TEMPERATURES])
        weights, window = np.repeat(text.weights[known], width), np.repeat(np.arange(len(known)), width)
        bits = np.empty(len(rows))
        for fold in range(FOLDS):
            fit = folds.fitting(fold)
            log_u = unigram(tokens[fit, 1:], text.weights[known][fit], model.vocabulary).float()[target]
            choose = np.isin(window, folds.choosing(fold)[:choosing])
            chosen = calibrate(log_p[:, choose], log_u[choose], torch.from_numpy(weights[choose]))
            at = TEMPERATURES.index(chosen.temperature)
            mine = folds.of[window] == fold
            bits[mine] = gain_bits(log_p[at, mine].double(), log_u[mine].double(), chosen.share).numpy()
        return bits.reshape(-1, width)

    length = text.tokens.shape[1]
    macro = gain(tokens[:, :length], tokens[:, length], 1, CALIBRATED)[:, 0]
    micro = gain(tokens[:, :length].reshape(-1, 1), tokens[:, 1:].ravel(), length, CALIBRATED // length).mean(1)
    weights = text.weights[known]
    found = table[(table["layer"] == len(model.blocks) - 1) & (table["position"] == length)].iloc[0]
    # float32 logits, summed in another order: five digits
    assert found["macro_bits"] == pytest.approx(np.average(macro, weights=weights), abs=1e-3)
    assert found["micro_bits"] == pytest.approx(np.average(micro, weights=weights), abs=1e-3)


def test_trained_models_stand_above_their_controls(table: pd.DataFrame, model: LanguageModel, text: Windows) -> None:
    twin = measure(random_twin(model), text)
    shuffled = measure(model, text.shuffled(0))
    joined = with_controls(table, twin=twin, shuffled=shuffled)
    last = joined[joined["position"] == text.tokens.shape[1]]
    assert not last.loc[last["layer"] > 0, "flags"].str.contains(FAILED).any()
    assert (last["shuffled_ie_bits"].abs() < 4 * last["shuffled_ie_std_error"] + 0.02).all()
    shown, above = varying(summary(joined))
    assert shown["verdict"].tolist() == ["learned"]
    assert above["corpus"] == "python-docs"
    # what is in both is no sign of learning: a twin put to the same test fails it
    itself = with_controls(twin, twin=twin)
    assert itself["flags"].str.contains(FAILED).all()
    assert summary(itself)["verdict"].tolist() == ["not shown"]
    assert summary(table)["verdict"].tolist() == ["no controls"]


def test_same_seed_same_numbers(model: LanguageModel, text: Windows, table: pd.DataFrame) -> None:
    again = measure(model, text, budget=StateBudget(states_gb=0.001))  # from a spill file this time
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))


def test_one_pass_gives_what_two_give(model: LanguageModel, text: Windows, table: pd.DataFrame) -> None:
    how = Propagation(resolutions=(0.25,), queries=300)
    both = measure(model, text, estimator="predictive,sample-propagation", propagation=how)
    alone = measure(model, text, estimator="sample-propagation", propagation=how)
    mine = both["estimator"] == "predictive"
    pd.testing.assert_frame_equal(both[mine].drop(columns="seconds"), table.drop(columns="seconds"))
    other = both[~mine].reset_index(drop=True)
    # the same states, normalised in other batches: float32 has seven digits
    pd.testing.assert_frame_equal(other.drop(columns="seconds"), alone.drop(columns="seconds"), rtol=1e-3, atol=1e-3)


def test_lists_are_read_too(model: LanguageModel) -> None:
    animals = windows("animal", model.tokenizer, count=400, prefix=model.prefix)
    assert animals.next_tokens is not None
    assert animals.entities is not None
    for row, following in zip(animals.tokens, animals.next_tokens, strict=True):
        assert following in animals.entities[:, 0]
        assert following not in row  # an entity that was not shown yet
    rows = measure(model, animals)
    assert np.isfinite(rows["ie_bits"].astype(float)).all()
    assert rows["documents"].isna().all()


def test_what_follows_a_window_is_what_stands_behind_it_in_the_text(model: LanguageModel) -> None:
    from extraction import text_windows

    sentence = "One two three four five six seven eight nine ten."
    made = text_windows([sentence, "Short."], model.tokenizer, tokens=4, count=None, at="anywhere")
    ids = model.tokenizer(sentence, add_special_tokens=False)["input_ids"]
    assert made.next_tokens is not None
    followers = {tuple(row): int(after) for row, after in zip(made.tokens, made.next_tokens, strict=True)}
    for start in range(len(ids) - 4):
        assert followers[tuple(ids[start : start + 4])] == ids[start + 4]
    assert followers[tuple(ids[-4:])] == -1  # its document ends there


def test_values_of_single_windows_name_their_rows_in_the_corpus(model: LanguageModel, text: Windows) -> None:
    assert text.next_tokens is not None
    cut = replace(text, next_tokens=np.where(np.arange(len(text)) < 500, -1, text.next_tokens))
    kept: list[pd.DataFrame] = []
    measure(model, cut, listeners=Listeners(windows=kept.append))
    rows = kept[0]["window"].astype(int)
    assert rows.is_unique
    assert rows.between(500, len(text) - 1).all()  # those without a next token are not read


def test_bad_input(model: LanguageModel, text: Windows) -> None:
    with pytest.raises(InputError, match="do not say which token follows"):
        measure(model, replace(text, next_tokens=None))
    with pytest.raises(InputError, match="no next token is left to predict"):
        measure(model, replace(text, next_tokens=np.full(len(text), -1)))
    with pytest.raises(InputError, match="at least 100 in all"):
        measure(model, text.select(np.arange(50)))
    with pytest.raises(InputError, match="predictive takes none"):
        measure(model, text, options={"epochs": 3})


def test_the_command_shows_a_row_per_model_with_its_verdict(emergence, tmp_path) -> None:
    out = tmp_path / "emergence.parquet"
    command = ("measure", MODEL, "gpt2-30k", "--corpus", "python-docs", "--windows", COUNT, "--controls", "--out", out)
    done = emergence(*command)
    assert done.code == 0, done.err
    assert "twin" in done.out
    assert "learned" in done.out
    assert "Learned: above the random twin and the shuffled windows by four joint errors." in done.err
    written = pd.read_parquet(out)
    assert set(written["model"]) == {MODEL, "gpt2-30k"}  # controls are columns
    assert written["twin_ie_bits"].notna().all()
    plain = emergence("measure", MODEL, "--corpus", "python-docs", "--windows", COUNT)
    assert "No controls were run" in plain.err


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("EMERGENCE_REAL_MODELS"), reason="EMERGENCE_REAL_MODELS names no folder")
def test_a_real_model_stands_above_shuffled_windows() -> None:
    real = load_model(Path(os.environ["EMERGENCE_REAL_MODELS"]) / "SmolLM2-135M-Instruct.gguf", device="cpu")
    text = windows("python-docs", real.tokenizer, count=200, prefix=real.prefix)
    table = with_controls(
        measure(real, text),
        shuffled=measure(real, text.shuffled(0)),
    )
    last = table[(table["position"] == text.tokens.shape[1]) & (table["layer"] == len(real.blocks) - 1)].iloc[0]
    assert FAILED not in last["flags"]
    assert last["ie_bits"] > 1  # 2.8 to 3.3 were measured on 2,400 windows, with an error of .13; here it is about .4
    assert abs(last["shuffled_ie_bits"]) < 4 * last["shuffled_ie_std_error"] + 0.05
