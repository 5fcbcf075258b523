"""The predictive observer from text to rows, against the model's own likelihoods, and its controls."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from estimators.base import InputError
from estimators.contracts.controls import FAILED, summary, varying, with_controls
from estimators.folds import FOLDS, assign_folds
from estimators.predictive import TEMPERATURES, cross_calibrated, gain_bits, unigram
from extraction import LanguageModel, Windows, load_model, random_twin, windows
from extraction.states.budget import StateBudget
from proxy.measurement.table import Listeners, Propagation, measure
from tests.proxy.measurement.odd_heads import with_bent_head, without_head

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
    fold, _ = assign_folds(len(known), text.documents[known], 0)
    weights = text.weights[known]
    log_u = torch.stack([unigram(tokens[fold != k, 1:], weights[fold != k], model.vocabulary) for k in range(FOLDS)])

    def gain(contexts: np.ndarray, following: np.ndarray) -> np.ndarray:
        front = torch.tensor([model.prefix] * len(contexts), dtype=torch.int64).reshape(len(contexts), -1)
        with torch.inference_mode():
            logits = model.model(input_ids=torch.cat([front, torch.from_numpy(contexts)], 1)).logits[:, -1]
        target, part = torch.from_numpy(following), torch.from_numpy(fold)
        log_p = torch.stack([torch.log_softmax(logits / t, -1).gather(1, target[:, None])[:, 0] for t in TEMPERATURES])
        of_unigram = log_u[part, target]
        chosen = cross_calibrated(log_p, of_unigram, torch.from_numpy(weights), part, FOLDS)
        found = np.empty(len(target))
        for k, one in enumerate(chosen):
            mine = part == k
            at = TEMPERATURES.index(one.temperature)
            found[mine.numpy()] = gain_bits(log_p[at, mine].double(), of_unigram[mine], one.share).numpy()
        return found

    length = text.tokens.shape[1]
    macro = gain(tokens[:, :length], tokens[:, length])
    micro = np.mean([gain(tokens[:, [s]], tokens[:, s + 1]) for s in range(length)], axis=0)
    found = table[(table["layer"] == len(model.blocks) - 1) & (table["position"] == length)].iloc[0]
    # float32 logits, summed in another order: five digits
    assert found["macro_bits"] == pytest.approx(np.average(macro, weights=weights), abs=1e-3)
    assert found["micro_bits"] == pytest.approx(np.average(micro, weights=weights), abs=1e-3)
    costs = -log_u[fold[:, None], tokens[:, 1:]].numpy() / np.log(2)  # (n, T) of the unigram distribution
    assert found["macro_ceiling_bits"] == pytest.approx(np.average(costs[:, -1], weights=weights), abs=1e-6)
    assert found["micro_ceiling_bits"] == pytest.approx(np.average(costs.mean(1), weights=weights), abs=1e-6)
    size = [len(model.tokenizer.decode([token]).encode()) for token in tokens[:, -1].tolist()]
    # one or two tokens are parts of a character, which is decoded as a mark of three bytes
    assert found["bytes_per_token"] == pytest.approx(np.average(size, weights=weights), abs=0.002)


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


def test_logits_are_held_for_few_states_at_a_time(
    model: LanguageModel, text: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.measurement import predictive

    monkeypatch.setattr(predictive, "HEAD_BYTES", 1)
    monkeypatch.setattr(predictive, "HEAD_ROWS", 64)
    read: list[int] = []
    output = model.model.get_output_embeddings()
    hook = output.register_forward_hook(lambda module, args, result: read.append(args[0].shape[0]))
    measure(model, text.select(np.arange(300)))
    hook.remove()
    assert max(read) == 64
    assert sum(read) > 300 * len(model.blocks)


def test_same_seed_same_numbers(model: LanguageModel, text: Windows, table: pd.DataFrame) -> None:
    again = measure(model, text, budget=StateBudget(states_gb=0.001))  # from a spill file this time
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))


def _both_observers(model: LanguageModel, text: Windows, how: Propagation) -> pd.DataFrame:
    """Measure by both observers from one pass, whose progress must end with its work."""
    steps: list[tuple[int, int]] = []
    both = measure(
        model,
        text,
        estimator="predictive,sample-propagation",
        propagation=how,
        listeners=Listeners(progress=lambda done, total: steps.append((done, total))),
    )
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    return both


def test_one_pass_gives_what_two_give(model: LanguageModel, text: Windows, table: pd.DataFrame) -> None:
    how = Propagation(resolutions=(0.25,), queries=300)
    both = _both_observers(model, text, how)
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
    rows = measure(model, animals, options={"full": True})
    assert np.isfinite(rows["ie_bits"].astype(float)).all()
    assert rows["documents"].isna().all()


@pytest.mark.parametrize("corpus", ["python-docs", "animal"])
def test_at_the_first_position_the_output_has_no_emergence(model: LanguageModel, corpus: str) -> None:
    """A window of one token is that token alone: the last block's states, and all that reads them, are the same."""
    text = windows(corpus, model.tokenizer, count=400, prefix=model.prefix)
    rows = measure(model, text, options={"full": True})
    first = rows[(rows["position"] == 1) & (rows["layer"] == len(model.blocks) - 1)].iloc[0]
    assert first["macro_bits"] > 0.3  # so that there is something to be equal
    assert first["ie_bits"] == pytest.approx(0, abs=1e-4)  # float32 states, of other batches


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
    with pytest.raises(InputError, match="takes at least 100 different windows"):
        measure(model, text.select(np.arange(50)))
    with pytest.raises(InputError, match="predictive takes none"):
        measure(model, text, options={"epochs": 3})
    with pytest.raises(
        InputError, match=r"followed by token 99999, but gemma-2m knows \d+; make them with the tokenizer"
    ):
        measure(model, replace(text, next_tokens=np.full(len(text), 99_999)))
    with pytest.raises(InputError, match="Every next token is the same"):
        measure(model, replace(text, tokens=np.full_like(text.tokens, 7), next_tokens=np.full(len(text), 7)))
    with pytest.raises(InputError, match="has no output head, so it predicts no next token; use sample-propagation"):
        measure(without_head(model), text)


def test_a_head_that_is_not_linear_is_refused(text: Windows) -> None:
    bent = with_bent_head(MODEL)
    with pytest.raises(InputError, match="are not those of a norm and a linear output layer"):
        measure(bent, text)


def test_text_of_one_document_is_read_by_sections_and_says_so(model: LanguageModel, text: Windows) -> None:
    from pydoc_data.topics import topics

    from extraction import text_windows

    whole = text_windows(
        ["\n\n".join(topics[name] for name in sorted(topics))], model.tokenizer, count=600, prefix=model.prefix
    )
    rows = measure(model, whole)
    assert set(rows["flags"]) == {"few-documents"}
    assert rows["documents"].between(20, 41).all()
    by_document = measure(model, text.select(np.arange(600)))
    assert set(by_document["flags"]) == {""}
    last, other = rows.iloc[-1], by_document.iloc[-1]
    # the same text, other windows of it: five joint errors
    assert abs(last["ie_bits"] - other["ie_bits"]) < 5 * np.hypot(last["ie_std_error"], other["ie_std_error"])
    few = replace(text, documents=np.arange(len(text)) % 10)  # ten documents of the caller's own
    assert set(measure(model, few)["flags"]) == {"few-documents"}


def test_shuffled_windows_keep_the_document_of_what_follows_them(text: Windows) -> None:
    mixed = text.shuffled(0)
    assert mixed.documents is not None
    assert text.documents is not None
    assert mixed.next_tokens is not None
    assert text.next_tokens is not None
    pairs = set(zip(text.documents.tolist(), text.next_tokens.tolist(), strict=True))
    assert set(zip(mixed.documents.tolist(), mixed.next_tokens.tolist(), strict=True)) <= pairs


def test_large_models_are_read_at_fewer_positions_and_windows(
    model: LanguageModel, text: Windows, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.measurement import costs, predictive

    cost = predictive.PredictiveReader(model, text, seed=0).flops
    monkeypatch.setattr(costs, "DEFAULT_FLOPS", 0.9 * cost)
    some = measure(model, text)
    assert sorted(set(some["position"])) == [1, 4, 8]
    assert some.groupby("position")["windows_read"].unique().map(list).tolist() == [[500], [500], [len(text)]]
    every = table[table["position"].isin([1, 4, 8])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.drop(columns="seconds"), every.drop(columns="seconds"))
    pd.testing.assert_frame_equal(
        measure(model, text, options={"full": True}).drop(columns="seconds"), table.drop(columns="seconds")
    )
    monkeypatch.setattr(costs, "DEFAULT_FLOPS", 1.0)
    few = predictive.PredictiveReader(model, text, seed=0)
    assert (few.positions, few.windows) == ((8,), costs.LEAST)
    assert few.flops < cost


def test_both_observers_from_one_pass_give_what_each_gives_alone(
    model: LanguageModel, text: Windows, table: pd.DataFrame
) -> None:
    how = Propagation(resolutions=(0.18, 0.5), queries=200, project=32)
    alone = measure(model, text, estimator="sample-propagation", propagation=how)
    both = _both_observers(model, text, how)
    read = both[both["estimator"] == "predictive"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read.drop(columns="seconds"), table.drop(columns="seconds"))
    states = both[both["estimator"] == "sample-propagation"].reset_index(drop=True)
    # moments are added up in another order, in float32
    pd.testing.assert_frame_equal(states.drop(columns="seconds"), alone.drop(columns="seconds"), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_reads_about_the_same(dtype: str, text: Windows, table: pd.DataFrame) -> None:
    rows = measure(load_model(MODEL, device="cpu", dtype=dtype), text)
    last, full = rows.iloc[-1], table.iloc[-1]
    # the same windows: what rounding moves is far below the error of the reading
    assert abs(last["ie_bits"] - full["ie_bits"]) < full["ie_std_error"]


def test_progress_grows_evenly_to_its_end(model: LanguageModel, text: Windows) -> None:
    told: list[tuple[int, int]] = []
    measure(model, text, listeners=Listeners(progress=lambda done, total: told.append((done, total))))
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1]
    assert max(b - a for a, b in itertools.pairwise(done)) < 0.2 * told[-1][1]


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
    text = windows("python-docs", real.tokenizer, count=120, prefix=real.prefix)
    table = with_controls(
        measure(real, text),
        shuffled=measure(real, text.shuffled(0)),
    )
    last = table[(table["position"] == text.tokens.shape[1]) & (table["layer"] == len(real.blocks) - 1)].iloc[0]
    assert FAILED not in last["flags"]
    assert last["ie_bits"] > 1  # 3.3 to 4.9 were measured on 300 and 100 windows, with errors of .2 and .4
    assert abs(last["shuffled_ie_bits"]) < 4 * last["shuffled_ie_std_error"] + 0.05
