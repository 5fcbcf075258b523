"""Proxies in the registry of a real MLflow server, and back."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from estimators.base import InputError
from proxy.regression.load import load_proxy
from proxy.regression.proxy import fit_proxy
from tracking import download_proxy, track_estimates, track_features, track_proxy

SERVED = Path(__file__).parents[3] / "proxy" / "regression" / "served.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, reference_table) -> Path:
    """A proxy, fitted and saved."""
    folder = tmp_path_factory.mktemp("fit") / "proxy"
    fit_proxy(reference_table(), target="emergence_bits", candidate="mean").save(folder)
    return folder


@pytest.mark.parametrize("kind", ["server", "sqlite"])
def test_proxy_is_registered_and_comes_back_the_same(
    saved: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = request.getfixturevalue("server").uri
    if kind == "sqlite":
        uri = request.getfixturevalue("fresh_sqlite")(tmp_path)
    example = load_proxy(saved).references[list(load_proxy(saved).features)].head(2)
    known = {"model_code": SERVED, "input_example": example, "tracking_uri": uri, "anyway": True}
    tracked = track_proxy(saved, register="emergence", **known)
    assert tracked.version == "1"

    client = MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version_by_alias("emergence", "candidate")
    assert (str(version.version), version.run_id) == ("1", tracked.run_id)
    model = client.get_logged_model(tracked.model_uri.removeprefix("models:/"))
    scores = {m.key: m for m in model.metrics}
    assert {"mae", "rmse", "spearman", "coverage"} <= set(scores)
    assert scores["mae"].dataset_name == "references"
    validation = pd.read_parquet(saved / "validation.parquet")
    assert scores["mae"].value == pytest.approx((validation["estimate"] - validation["truth"]).abs().mean())
    run = client.get_run(tracked.run_id)
    assert run.data.tags["target"] == "emergence_bits"
    assert "left out in turn" in run.data.tags["mlflow.note.content"]
    assert {"figures/parity.png"} <= {f.path for f in client.list_artifacts(tracked.run_id, "figures")}

    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    for name in ("models:/emergence@candidate", f"runs:/{tracked.run_id}", tracked.model_uri):
        back = download_proxy(name, uri)
        assert {p.name: p.read_bytes() for p in back.glob("*.*")} == {p.name: p.read_bytes() for p in saved.glob("*.*")}
    pd.testing.assert_frame_equal(load_proxy(back).predict(example), load_proxy(saved).predict(example))
    assert os.environ.get("MLFLOW_TRACKING_URI") == before

    mlflow.set_tracking_uri(uri)  # as someone else would call it
    try:
        loaded = mlflow.pyfunc.load_model(tracked.model_uri)
        assert loaded.metadata.signature.inputs.input_names() == list(example.columns)
        assert "estimate" in loaded.metadata.signature.outputs.input_names()
        shown = loaded.metadata.load_input_example(str(back.parents[1]))
        assert loaded.predict(shown)["estimate"].tolist() == loaded.predict(example)["estimate"].tolist()
        requirements = (back.parents[1] / "requirements.txt").read_text()
        assert all("==" in line for line in requirements.split())
        assert loaded.predict(example)["estimate"].tolist() == load_proxy(saved).predict(example)["estimate"].tolist()
    finally:
        mlflow.set_tracking_uri(None)

    again = track_proxy(saved, register="emergence", **known)
    assert again == tracked


def test_interrupted_proxy_keeps_its_model(
    saved: Path, fresh_sqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracking.mlflow.adapter import MlflowTracker

    uri = fresh_sqlite(tmp_path)
    example = load_proxy(saved).references[list(load_proxy(saved).features)].head(2)
    known = {"model_code": SERVED, "input_example": example, "tracking_uri": uri, "anyway": True}
    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracker, "upload", lambda tracker, run_id, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            track_proxy(saved, **known)
    tracked = track_proxy(saved, **known)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("emergence").experiment_id
    assert [m.model_id for m in client.search_logged_models([experiment])] == [
        tracked.model_uri.removeprefix("models:/")
    ]
    assert len(client.search_runs([experiment])) == 1


def test_estimates_beside_truth(fresh_sqlite, tmp_path: Path) -> None:
    uri = fresh_sqlite(tmp_path)
    frame = pd.DataFrame({"model": ["a/b", "é"], "estimate": [1.0, 2.0], "lower": [0.5, 1.5], "upper": [1.5, np.nan]})
    frame["truth"] = [1.1, 2.1]
    run_id = track_estimates(frame, tracking_uri=uri)
    assert track_estimates(frame, tracking_uri=uri) == run_id
    run = MlflowClient(uri).get_run(run_id)
    assert run.data.metrics["a/b/truth"] == 1.1
    assert sorted(f.path for f in MlflowClient(uri).list_artifacts(run_id)) == [
        "parity.png",
        "table.csv",
        "table.parquet",
    ]


def test_features_show_people_among_models(fresh_sqlite, tmp_path: Path, emergence) -> None:
    uri = fresh_sqlite(tmp_path)
    table = tmp_path / "features.parquet"
    frame = pd.DataFrame(
        {"model": ["human", "a/b"], "small.gpt2-2m.ie_0.18": [1.0, 2.0], "behaviour.length": [3.0, 4.0]}
    )
    frame.to_parquet(table)
    done = emergence("track", table, "--tracking-uri", uri, "--json")
    assert done.code == 0
    run_id = json.loads(done.out)["run_id"]
    client = MlflowClient(uri)
    assert client.get_run(run_id).data.metrics["human/small.gpt2-2m.ie_0.18"] == 1.0
    assert [f.path for f in client.list_artifacts(run_id, "texts")] == ["texts/small.gpt2-2m.ie_0.18.png"]
    assert track_features(frame, tracking_uri=uri) == run_id


def test_bad_proxies_names_and_aliases_are_refused(saved: Path, fresh_sqlite, tmp_path: Path) -> None:
    uri = fresh_sqlite(tmp_path)
    known = {"model_code": SERVED, "input_example": pd.DataFrame({"small.a": [1.0]}), "tracking_uri": uri}
    with pytest.raises(InputError, match="not a saved proxy"):
        track_proxy(tmp_path, **known)
    with pytest.raises(InputError, match="emergence promote"):
        track_proxy(saved, alias="champion", **known)
    with pytest.raises(InputError, match="registered model's name"):
        track_proxy(saved, register="a/b", **known)
    with pytest.raises(InputError, match="models:/NAME@ALIAS"):
        download_proxy("emergence", uri)
    with pytest.raises(InputError, match="nothing"):
        download_proxy("models:/nothing@candidate", uri)
    with pytest.raises(InputError, match="columns model"):
        track_estimates(pd.DataFrame({"model": ["a"]}), tracking_uri=uri)
