"""The emergence table against a slow, readable twin, and what its summaries say."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from transformers import AutoModelForCausalLM

from estimators.base import InputError
from extraction import LanguageModel, StateBudget, Windows, load_model, reference_models, windows
from extraction.models.twin import random_twin
from proxy.measurement.table import Listeners, Propagation, emergence_by_block, measure, peak_emergence
from proxy.schemas import EMERGENCE

NAME = "gpt2-30k"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model(NAME, device="cpu")


@pytest.fixture(scope="module")
def animals(model: LanguageModel) -> Windows:
    return windows("animal", model.tokenizer, count=150, seed=3, prefix=model.prefix)


@pytest.fixture(scope="module")
def table(model: LanguageModel, animals: Windows) -> pd.DataFrame:
    return measure(
        model, animals, estimator="sample-propagation", propagation=Propagation(resolutions=(0.12, 0.25)), seed=0
    )


def _information(states: np.ndarray, p: np.ndarray, sigma: float, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Pointwise I(S; Y + sigma Z) in bits of every row, by the definition in float64, mean over noise draws."""
    values = []
    for _ in range(draws):
        seen = states + sigma * rng.standard_normal(states.shape)
        log_density = -((seen[:, None] - states[None]) ** 2).sum(-1) / (2 * sigma**2)
        own = np.diagonal(log_density)
        values.append((own - logsumexp(log_density + np.log(p), axis=1)) / np.log(2))
    return np.mean(values, axis=0)


def test_agrees_with_the_definition(table: pd.DataFrame, animals: Windows) -> None:
    """One block and position, from raw hooks to bits, with nothing of the project in between."""
    block, t, rho, draws = 2, 6, 0.25, 60
    raw = AutoModelForCausalLM.from_pretrained(reference_models.path(NAME)).eval()
    kept: list[torch.Tensor] = []
    handle = raw.transformer.h[block].register_forward_hook(
        lambda module, args, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    ids, token_of = np.unique(animals.tokens, return_inverse=True)
    token_of = token_of.reshape(animals.tokens.shape)
    with torch.no_grad():
        raw(torch.from_numpy(animals.tokens))
        raw(torch.from_numpy(ids)[:, None])
    handle.remove()
    macro, micro = kept[0].double().numpy(), kept[1][:, 0].double().numpy()

    p = animals.weights / animals.weights.sum()
    usage = np.bincount(token_of.ravel(), weights=np.repeat(p, animals.tokens.shape[1])) / animals.tokens.shape[1]
    each = macro.reshape(-1, macro.shape[-1])
    share = np.repeat(p, animals.tokens.shape[1]) / animals.tokens.shape[1]
    mean = (share @ each + usage @ micro) / 2
    std = np.sqrt((share @ (each - mean) ** 2 + usage @ (micro - mean) ** 2) / 2)
    macro, micro = (macro - mean) / std, (micro - mean) / std
    sigma = rho * np.sqrt(macro.shape[-1])  # RMS norm of z-scored states

    rng = np.random.default_rng(0)
    _, first, prefix_of = np.unique(animals.tokens[:, :t], axis=0, return_index=True, return_inverse=True)
    prefix_p = np.bincount(prefix_of, weights=p)
    pointwise = _information(macro[first, t - 1], prefix_p, sigma, rng, draws)[prefix_of]
    micro_bits = []
    for s in range(t):
        present, row = np.unique(token_of[:, s], return_inverse=True)
        one = _information(micro[present], np.bincount(row, weights=p), sigma, rng, draws)
        micro_bits.append(p @ one[row])
    expected = p @ pointwise - np.mean(micro_bits)

    found = table.query("layer == @block and position == @t and resolution == @rho").iloc[0]
    # One noise draw per window there, 60 here: four standard errors of the stated kind, plus a tenth of one of ours.
    assert found["ie_bits"] == pytest.approx(expected, abs=4.1 * found["ie_std_error"])
    assert found["macro_bits"] == pytest.approx(p @ pointwise, abs=4.1 * found["ie_std_error"])
    assert found["ie_std_error"] < 0.2
    assert found["macro_ceiling_bits"] == pytest.approx(-(prefix_p @ np.log2(prefix_p)), abs=1e-9)


def test_table_is_whole_and_within_its_ceilings(table: pd.DataFrame, model: LanguageModel, animals: Windows) -> None:
    assert len(table) == len(model.blocks) * animals.tokens.shape[1] * 2
    assert list(table.columns) == list(EMERGENCE.columns)
    assert (table["macro_bits"] <= table["macro_ceiling_bits"] + 1e-9).all()
    assert (table["micro_bits"] <= table["micro_ceiling_bits"] + 1e-9).all()
    np.testing.assert_allclose(table["ie_bits"], table["macro_bits"] - table["micro_bits"], atol=1e-9)
    assert (table["windows"] == animals.weights.sum()).all()
    finer, coarser = (table[table["resolution"] == rho].reset_index(drop=True) for rho in (0.12, 0.25))
    # More noise, less information, by the data-processing inequality; both use the same noise draws.
    assert (finer["macro_bits"] >= coarser["macro_bits"] - 4 * coarser["ie_std_error"]).all()


def test_first_position_has_no_emergence(table: pd.DataFrame) -> None:
    """Without a prefix the first token run in a window is that token run alone."""
    first = table[table["position"] == 1]
    assert (first["ie_bits"].abs() <= 4 * first["ie_std_error"] + 1e-6).all()


def test_same_seed_same_numbers(table: pd.DataFrame, model: LanguageModel, animals: Windows) -> None:
    again = measure(
        model, animals, estimator="sample-propagation", propagation=Propagation(resolutions=(0.12, 0.25)), seed=0
    )
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))


def test_sampled_queries_agree_with_all(table: pd.DataFrame, model: LanguageModel, animals: Windows) -> None:
    some = measure(
        model,
        animals,
        estimator="sample-propagation",
        propagation=Propagation(resolutions=(0.12, 0.25), queries=80),
        seed=0,
    )
    assert (some["macro_bits"] <= some["macro_ceiling_bits"] + 1e-9).all()
    assert (some["micro_bits"] <= some["micro_ceiling_bits"] + 1e-9).all()
    difference = (some["ie_bits"] - table["ie_bits"]).abs()
    # 64 comparisons of two estimates with the stated errors: 4.5 errors leave a chance below 0.1 %.
    assert (difference <= 4.5 * np.hypot(some["ie_std_error"], table["ie_std_error"]) + 1e-6).all()


def test_where_states_are_dear_fewer_positions_and_windows_are_read(
    table: pd.DataFrame, model: LanguageModel, animals: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.measurement import costs

    how = Propagation(resolutions=(0.12, 0.25))
    read = partial(measure, model, animals, estimator="sample-propagation", propagation=how, seed=0)
    monkeypatch.setattr(costs, "LEAST", 50)
    monkeypatch.setattr(costs, "DEFAULT_FLOPS", 1.0)
    steps: list[tuple[int, int]] = []
    few = read(listeners=Listeners(progress=lambda *step: steps.append(step)))
    assert steps[-1][0] == steps[-1][1]
    assert set(few["position"]) == {animals.tokens.shape[1]}
    assert few["windows_read"].between(25, 50).all()
    last = table[table["position"] == animals.tokens.shape[1]].reset_index(drop=True)
    assert (last["windows_read"] == len(animals)).all()
    # the error says what reading fewer windows costs: each of the numbers lies within five joint errors
    apart = np.hypot(few["ie_std_error"].to_numpy(float), last["ie_std_error"].to_numpy(float))
    assert (abs(few["ie_bits"].to_numpy(float) - last["ie_bits"].to_numpy(float)) < 5 * apart).all()
    assert (few["ie_std_error"] > last["ie_std_error"]).all()
    pd.testing.assert_frame_equal(read(options={"full": True}).drop(columns="seconds"), table.drop(columns="seconds"))


def test_the_stated_error_is_what_other_noise_changes(model: LanguageModel) -> None:
    """Lists have few tokens: windows share their micro values, and an error that takes them as independent is short."""
    lists = windows("country", model.tokenizer, count=200, seed=0, prefix=model.prefix)
    tables = [
        measure(model, lists, estimator="sample-propagation", propagation=Propagation(resolutions=(0.18,)), seed=seed)
        for seed in range(10)
    ]
    later = tables[0]["position"] > 1
    values = np.array([found.loc[later, "ie_bits"] for found in tables], dtype=float)
    errors = np.array([found.loc[later, "ie_std_error"] for found in tables], dtype=float)
    # 28 rows of 10 seeds; a mean square of 252 free deviations has an error of 0.09, or 0.4 if a block is one number.
    assert 0.3 < (values.var(axis=0, ddof=1) / (errors**2).mean(axis=0)).mean() < 1.8
    first = tables[0][~later]
    assert (first["ie_bits"] == 0).all()  # one token alone is its own context


def test_twin_is_marked_and_differs(table: pd.DataFrame, model: LanguageModel, animals: Windows) -> None:
    twin = measure(
        random_twin(model, seed=1),
        animals,
        estimator="sample-propagation",
        propagation=Propagation(resolutions=(0.25,)),
    )
    assert (twin["model"] == f"{NAME}~random").all()
    trained = emergence_by_block(table, resolution=0.25)["ie_bits"].to_numpy()
    assert not np.allclose(trained, emergence_by_block(twin, resolution=0.25)["ie_bits"])
    again = random_twin(model, seed=1).model.state_dict()
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.values(), random_twin(model, seed=1).model.state_dict().values(), strict=True)
    )


def test_peak_takes_the_highest_block_at_the_last_position(table: pd.DataFrame) -> None:
    peak = peak_emergence(table, resolution=0.25)
    last = table[(table["position"] == 10) & (table["resolution"] == 0.25)]
    assert len(peak) == 1
    assert peak["emergence_bits"].iloc[0] == last["ie_bits"].max()
    assert peak["corpus_hash"].tolist() == [table["corpus_hash"].iloc[0]]
    assert peak["peak_layer"].iloc[0] == last.loc[last["ie_bits"].idxmax(), "layer"]
    with pytest.raises(InputError, match=r"no resolution 0\.4; it holds 0\.12, 0\.25"):
        peak_emergence(table, resolution=0.4)


def test_peak_of_tables_put_together_is_one_row_a_model(table: pd.DataFrame) -> None:
    other = table.assign(model="other", ie_bits=table["ie_bits"] - 1)
    peaks = peak_emergence(pd.concat([table, other]), resolution=0.25).set_index("model")["emergence_bits"]
    assert list(peaks.index) == [NAME, "other"]
    assert peaks["other"] == pytest.approx(peaks[NAME] - 1)


def test_trained_estimator_gives_the_same_kind_of_table(model: LanguageModel) -> None:
    few = windows("color", model.tokenizer, count=60, tokens=2, prefix=model.prefix)
    found = measure(model, few, estimator="mine", options={"preset": "paper", "epochs": 20})
    assert len(found) == len(model.blocks) * 2
    assert found["resolution"].isna().all()
    np.testing.assert_allclose(found["ie_bits"], found["macro_bits"] - found["micro_bits"], atol=1e-9)
    assert len(peak_emergence(found)) == 1


def test_little_memory_trains_few_problems_at_a_time(model: LanguageModel, tmp_path: Path) -> None:
    few = windows("color", model.tokenizer, count=60, tokens=4, prefix=model.prefix)
    options = {"preset": "paper", "epochs": 5}
    whole = measure(model, few, estimator="mine", options=options)
    said: list[str] = []
    # 8 bytes x 60 windows x 32 features: each pair of states is larger than that.
    parts = measure(
        model,
        few,
        estimator="mine",
        options=options,
        budget=StateBudget(states_gb=1e-5, spill_dir=tmp_path),
        listeners=Listeners(notice=said.append),
    )
    assert len(said) == 1
    columns = ["layer", "position", "macro_ceiling_bits", "micro_ceiling_bits", "windows"]
    pd.testing.assert_frame_equal(parts[columns], whole[columns])
    assert np.isfinite(parts["ie_bits"]).all()


def test_command_says_what_it_spills_and_writes_likelihoods(emergence: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "likelihoods.csv"
    arguments = [
        "measure",
        NAME,
        "--estimator",
        "sample-propagation",
        "--corpus",
        "color",
        "--windows",
        60,
        "--states-gb",
        1e-4,
        "--spill-dir",
        tmp_path,
    ]
    done = emergence(*arguments, "--likelihoods", path)
    assert done.code == 0, done.err
    assert f"GB of states of {NAME} will be spilled to {tmp_path}" in done.err
    table = pd.read_csv(path)
    assert table["position"].tolist() == list(range(1, 11))
    assert table["shots"].dropna().tolist() == [1, 2, 3, 4, 5]
    assert table["nll_bits"].isna().tolist() == [True] + [False] * 9  # nothing is before the first token
    assert set(table["model"]) == {NAME}
    assert table["corpus_hash"].str.len().tolist() == [16] * 10
    refused = emergence(*arguments, "--spill-gb", 0)
    assert refused.code == 2
    assert "more than the 0 GB allowed" in refused.err


def test_command_writes_the_table(emergence: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "animal.parquet"
    done = emergence(
        "measure",
        NAME,
        "--estimator",
        "sample-propagation",
        "--corpus",
        "animal",
        "--windows",
        100,
        "--twin",
        "--shuffled",
        "--out",
        path,
    )
    assert done.code == 0, done.err
    assert pd.read_parquet(path).groupby(["model", "corpus"]).size().to_dict() == {
        (NAME, "animal"): 4 * 10 * 7,
        (f"{NAME}~random", "animal"): 4 * 10 * 7,
        (NAME, "animal, shuffled"): 4 * 10 * 7,
    }
    assert "E at the highest block, sample-propagation, bits" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2-30x", "--corpus", "animal"], "gpt2-30x"),
        ([NAME, "--corpus", "animal", "--option", "preset=paper"], "Options are for trained estimators"),
        (["no/such/folder", "--corpus", "animal"], "No model folder"),
        ([NAME, "--corpus", "animals"], "animal"),
        ([NAME, "--corpus", "EMPTY.txt"], "empty"),
        ([NAME, "--corpus", "SHORT.txt"], "a window needs 8"),
        ([NAME, "--corpus", "animal", "--out", "missing/folder/table.csv"], "does not exist"),
        ([NAME, "--corpus", "animal", "--out", "table.xls"], "ends in"),
        ([NAME, "--corpus", "animal", "--estimator", "mne"], "mine"),
        ([NAME, "--corpus", "animal", "--device", "tpu9"], "tpu9"),
        ([NAME, "--corpus", "animal", "--states-gb", "0"], "states_gb takes a number above 0"),
        ([NAME, "--corpus", "animal", "--likelihoods", "table.xls"], "ends in"),
    ],
)
def test_bad_input_is_one_sentence(
    emergence: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY.txt").write_text("")
    (tmp_path / "SHORT.txt").write_text("Too few.")
    before = sorted(tmp_path.iterdir())
    done = emergence("measure", *arguments)
    assert done.code == 2, done
    lines = [line for line in done.err.splitlines() if not line.endswith("so far)")]  # said where a machine is slow
    assert len(lines) == 1
    assert message in lines[0]
    assert done.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_single_windows_give_the_peak_and_its_error(
    model: LanguageModel, animals: Windows, table: pd.DataFrame
) -> None:
    kept: list[pd.DataFrame] = []
    measure(
        model,
        animals,
        estimator="sample-propagation",
        propagation=Propagation(resolutions=(0.12, 0.25)),
        seed=0,
        listeners=Listeners(windows=kept.append),
    )
    (values,) = kept
    for resolution, rows in values.groupby("resolution"):
        ends = table[(table["position"] == table["position"].max()) & (table["resolution"] == resolution)]
        peak = ends.loc[ends["ie_bits"].idxmax()]
        assert rows["layer"].unique().tolist() == [peak["layer"]]
        each, share = rows["ie_bits"].to_numpy(dtype=float), rows["share"].to_numpy(dtype=float)
        assert share.sum() == pytest.approx(1)
        # Every window is read, so the mean is the emergence itself, but for float32 of some ten bits.
        assert share @ each == pytest.approx(peak["ie_bits"], abs=1e-5)
        assert np.sqrt(share @ (each - share @ each) ** 2) == pytest.approx(peak["ie_sample_std"], abs=1e-5)
    trained: list[pd.DataFrame] = []
    measure(model, animals, estimator="infonce", options={"steps": 2}, listeners=Listeners(windows=trained.append))
    assert trained == []


def test_peaks_are_of_one_estimator(table: pd.DataFrame) -> None:
    both = pd.concat([table, table.assign(estimator="predictive", resolution=pd.NA, ie_bits=table["ie_bits"] + 1)])
    found = peak_emergence(both, resolution=0.25)
    assert found["emergence_bits"].tolist() == [table.loc[table["position"] == 10, "ie_bits"].max() + 1]
    states = peak_emergence(both, resolution=0.25, estimator="sample-propagation")
    pd.testing.assert_frame_equal(states, peak_emergence(table, resolution=0.25))
    with pytest.raises(InputError, match="holds mine, sample-propagation, not predictive; name one"):
        peak_emergence(pd.concat([table, table.assign(estimator="mine")]), resolution=0.25)


def test_the_peak_is_on_a_screen_of_80_columns(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = peak_emergence(table.assign(model="EleutherAI/pythia-410m-deduped", corpus="long.txt"), resolution=0.25)
    with pd.option_context("display.max_columns", 0, "display.width", 80):  # as in a terminal
        shown = repr(long)
    assert f"{long['emergence_bits'].iloc[0]:.4f}"[:5] in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_models_and_windows_are_shown_in_one_line(model: LanguageModel, animals: Windows) -> None:
    assert repr(model) == "<LanguageModel gpt2-30k: 33,632 parameters, 4 blocks of width 16, on cpu>"
    assert repr(animals) == "<Windows of animal: 150 of 10 tokens, 150 distinct>"
