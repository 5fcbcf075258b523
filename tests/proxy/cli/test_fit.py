import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from extraction.tables import read_table
from proxy.features.provenance import Provenance, provenance_of

Run = Callable[..., Any]


@pytest.fixture
def tables(families: Callable[..., pd.DataFrame], tmp_path: Path) -> tuple[Path, Path]:
    table = families()
    table.iloc[:-1].to_parquet(tmp_path / "references.parquet")
    table.iloc[-1:].drop(columns=["bits", "family", "parameters"]).to_parquet(tmp_path / "closed.parquet")
    return tmp_path / "references.parquet", tmp_path / "closed.parquet"


@pytest.mark.filterwarnings("default")  # MLflow's own
def test_fit_register_and_estimate(emergence: Run, tables: tuple[Path, Path], tmp_path: Path) -> None:
    references, closed = tables
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = emergence(
        "fit", references, "--target", "bits", "--out", tmp_path / "proxy", "--register", "bits", "--tracking-uri", uri
    )
    assert done.code == 0, done.err
    assert "log_parameters" in done.out
    assert "Registered bits" in done.err
    from_folder = emergence("estimate", tmp_path / "proxy", closed, "--json")
    assert from_folder.code == 0, from_folder.err
    row = json.loads(from_folder.out)[0]
    assert row["model"] == "family1-4"
    assert row["lower"] <= row["estimate"] <= row["upper"]
    named = emergence(
        "estimate", "models:/bits@candidate", closed, "--tracking-uri", uri, "--out", tmp_path / "estimate.csv"
    )
    assert named.code == 0, named.err
    assert read_table(tmp_path / "estimate.csv")["estimate"].item() == pytest.approx(row["estimate"])
    run_id = MlflowClient(uri).get_model_version_by_alias("bits", "candidate").run_id
    by_run = emergence("estimate", run_id, closed, "--tracking-uri", uri, "--every-level", "--json")
    assert by_run.code == 0, by_run.err
    again = json.loads(by_run.out)[0]
    assert again["estimate"] == pytest.approx(row["estimate"])
    assert again["lower_90"] <= again["lower_80"] <= again["lower_50"]
    assert "No 95% interval: it takes 19 references, left out in turn; this proxy has 9." in by_run.err
    assert "interval: it takes" not in from_folder.err


def test_too_few_models_exit_with_two_and_leave_nothing(
    emergence: Run, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    pd.read_parquet(tables[0]).head(8).to_parquet(tmp_path / "few.parquet")
    done = emergence("fit", tmp_path / "few.parquet", "--target", "bits", "--out", tmp_path / "proxy")
    assert done.code == 2
    assert "at least 9 reference models, got 8" in done.err
    assert not (tmp_path / "proxy").exists()


@pytest.mark.parametrize(
    ("name", "uri", "said"),
    [("bits", "http://127.0.0.1:9", "did not answer"), ("a/b", "sqlite:///unused.db", "registered model's name")],
)
def test_a_proxy_that_cannot_be_registered_is_refused_before_any_work(
    emergence: Run, tables: tuple[Path, Path], tmp_path: Path, name: str, uri: str, said: str
) -> None:
    out = tmp_path / "proxy"
    done = emergence("fit", tables[0], "--target", "bits", "--out", out, "--register", name, "--tracking-uri", uri)
    assert done.code == 2
    assert said in done.err
    assert not out.exists()


@pytest.mark.parametrize("bounds", ["0;1", "a,b", "1", "0,1,2"])
def test_bad_bounds_exit_with_two(emergence: Run, tables: tuple[Path, Path], tmp_path: Path, bounds: str) -> None:
    done = emergence("fit", tables[0], "--target", "bits", "--out", tmp_path / "proxy", "--bounds", bounds)
    assert done.code == 2
    assert "--bounds takes" in done.err


def test_a_used_folder_is_refused_before_any_work(emergence: Run, tables: tuple[Path, Path], tmp_path: Path) -> None:
    done = emergence("fit", tables[0], "--target", "bits", "--out", tmp_path)
    assert done.code == 2
    assert "is not empty" in done.err


def test_models_to_estimate_that_were_asked_otherwise_leave_the_proxy_whole(
    emergence: Run, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    known = pd.read_parquet(tables[0]).assign(provenance=_made("a", "b").dumps())
    other = known.tail(1).assign(model="other", bits=float("nan"), provenance=_made("c", "d").dumps())
    pd.concat([known, other]).to_parquet(tmp_path / "both.parquet")
    done = emergence("fit", tmp_path / "both.parquet", "--target", "bits", "--out", tmp_path / "proxy")
    assert done.code == 1
    assert "No estimates of models without bits: other was not asked and read as this proxy's references" in done.err
    assert "other prompts (2, of which about 0% are among the references' 2)" in done.err
    assert "bits of left-out references" in done.out
    assert (tmp_path / "proxy" / "card.md").is_file()


def _made(*prompts: str) -> Provenance:
    answers = pd.DataFrame({"model": "m", "prompt_id": prompts, "prompt": prompts, "text": "a few words"})
    return provenance_of(answers, {})
