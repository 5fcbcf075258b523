"""What models say next as features beside answers, and in banks of one's own: by the commands a user types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from proxy.banks.bank import load_bank
from proxy.banks.targets import reference_table
from proxy.cli import app
from proxy.measurement.continuations import table_beside

Run = Callable[..., Any]
READINGS = "predictive-20,output-20,output-2-of-20,output-2"
MODELS = ("gpt2-30k", "gpt2-90k", "gemma-30k", "gemma-90k")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks and output of four bundled models on 300 windows, single windows beside them."""
    out = tmp_path_factory.mktemp("measured") / "outputs.parquet"
    names = ["--estimator", f"predictive,{READINGS}", "--out", str(out)]
    assert not app(["measure", *MODELS, "--corpus", "python-docs", "--windows", "300", *names], standalone_mode=False)
    assert table_beside(out).is_file()
    return out


def test_output_features_need_no_answers(emergence: Run, measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "references.parquet"
    done = emergence("features", "--output", measured, "--emergence", measured, "--out", out)
    assert done.code == 0, done.err
    table = pd.read_parquet(out).set_index("model")
    rows = pd.read_parquet(measured).query("estimator == 'predictive-20'").set_index("model")
    assert set(table.index) == set(MODELS)
    assert table["output.accuracy"].to_dict() == pytest.approx(rows["accuracy"].to_dict())
    assert table["noise.output.accuracy"].to_dict() == pytest.approx(rows["accuracy_std_error"].to_dict())
    cost = (rows["macro_ceiling_bits"] - rows["macro_bits"]) / rows["bytes_per_token"]
    assert table["output.nll"].to_dict() == pytest.approx(cost.to_dict())
    assert table["emergence_bits"].notna().all()
    assert set(table["output_asked"]) == {"python-docs, windows of 8 tokens, as text, 20 tokens shown"}
    assert table["output.log_rank"].between(0, 4.4).all()  # log2 of 21 at most


def test_output_stands_beside_answers_and_is_null_where_it_was_not_read(
    emergence: Run, measured: Path, tmp_path: Path
) -> None:
    answers = pd.DataFrame({"model": ["gpt2-30k", "other"], "text": "a dog and a cat ran to the house"})
    answers = answers.loc[answers.index.repeat(12)].assign(prompt_id=[str(i) for i in range(12)] * 2)
    answers.to_parquet(tmp_path / "answers.parquet")
    out = tmp_path / "features.parquet"
    done = emergence(
        "features", tmp_path / "answers.parquet", "--readers", "gpt2-30k", "--output", measured, "--out", out
    )
    assert done.code == 0, done.err
    table = pd.read_parquet(out).set_index("model")
    assert table.loc["gpt2-30k", "output.nll"] > 0
    assert pd.isna(table.loc["other", "output.nll"])
    assert table.filter(like="behaviour.").notna().any(axis=1).all()


def test_a_bank_of_ones_own_keeps_single_windows_and_places_models_by_them(
    emergence: Run, measured: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    done = emergence("bank", "build", measured, "--out", bank)
    assert done.code == 0, done.err
    table = reference_table(load_bank(bank), "python-docs", shown=20).set_index("model")
    assert table["output.ability"].notna().all()
    assert (table["noise.output.ability"] > 0).all()
    out = tmp_path / "features.parquet"
    done = emergence("features", "--output", measured, "--bank", bank, "--out", out)
    assert done.code == 0, done.err
    placed = pd.read_parquet(out).set_index("model")
    # each model of the bank is placed by the other runs, as the bank places its own references
    assert placed["output.ability"].to_dict() == pytest.approx(table["output.ability"].to_dict(), abs=0.01)


def test_nothing_given_and_nothing_read_is_said(emergence: Run, measured: Path, tmp_path: Path) -> None:
    done = emergence("features", "--out", tmp_path / "a.parquet")
    assert done.code == 2
    assert "Give tables of answers, or by --output what models say next" in done.err
    blocks = pd.read_parquet(measured).query("layer >= 0")
    blocks.to_parquet(tmp_path / "blocks.parquet")
    done = emergence("features", "--output", tmp_path / "blocks.parquet", "--out", tmp_path / "a.parquet")
    assert done.code == 2
    assert "The table has no output rows" in done.err
    rows = pd.read_parquet(measured).query("layer < 0")
    rows.loc[rows["model"] == "gpt2-30k", "asked"] = "chat-logprobs-20"
    rows.to_parquet(tmp_path / "mixed.parquet")
    done = emergence("features", "--output", tmp_path / "mixed.parquet", "--out", tmp_path / "a.parquet")
    assert done.code == 2
    assert "gpt2-30k was asked as a chat and" in done.err
