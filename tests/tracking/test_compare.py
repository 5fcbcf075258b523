"""Runs side by side, from folders and from MLflow."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from tracking import track
from tracking.changes import changed as changes
from tracking.changes import settings_of
from tracking.comparison import compare


@pytest.fixture
def changed(results, tmp_path: Path, job_rows):
    """The same models with 0.3 bits more on animal, and one setting changed."""
    other = type(results)(tmp_path / "after", "after")
    for model, parameters in (("gpt2-30k", 30_000), ("gpt2-280k", 280_000), ("gpt2-2m", 2_000_000)):
        rows = job_rows(model, "animal", parameters=parameters, blocks=3, positions=10)
        rows["ie_bits"] += 0.3
        other.done(model, "animal", rows)
    path = other.folder / "sweep.json"
    record = json.loads(path.read_text())
    record["config"]["measurement"]["queries"] = 4000
    path.write_text(json.dumps(record))
    return other


def test_differences_errors_and_settings(results, changed) -> None:
    found = compare([str(results.folder), str(changed.folder)])
    table = found.table
    single = table[table["block"].notna()]
    assert set(single["model"]) == {"gpt2-30k", "gpt2-280k", "gpt2-2m"}
    assert np.allclose(single["difference"], 0.3)
    assert np.allclose(single["std_error"], np.hypot(0.05, 0.05))  # both sides independent
    assert set(single["errors"]) == {"unpaired"}
    assert set(single["text"]) == {"same"}
    mean = table[table["model"].str.startswith("mean of 3")].iloc[0]
    assert mean["errors"] == "unpaired"
    assert mean["difference"] == pytest.approx(0.3)
    # No windows were kept, so the models count as moving together: no surer than one of them, though all moved alike.
    assert mean["std_error"] == pytest.approx(np.hypot(0.05, 0.05))
    settings = found.settings.set_index("setting")
    assert settings.loc["config.measurement.queries"].tolist() == ["1000", "4000"]
    labels = [label.get_text() for label in found.figure.axes[0].get_yticklabels()]
    assert labels[::-1][:3] == single["model"].tolist()


def test_models_that_one_run_lacks_are_named_and_nothing_else_changed(results, tmp_path: Path, job_rows) -> None:
    models = [{"id": name, "dtype": "auto"} for name in ("gemma-30k", "gpt2-30k", "gpt2-2m")]
    folders = []
    for name, listed in (("all", models), ("fewer", models[1:])):
        made = type(results)(tmp_path / name, "same")
        made.done("gpt2-2m", "animal", job_rows("gpt2-2m", "animal", parameters=2_000_000, blocks=2))
        path = made.folder / "sweep.json"
        record = json.loads(path.read_text())
        record["config"]["models"] = listed
        path.write_text(json.dumps(record))
        folders.append(str(made.folder))
    changed = compare(folders).settings
    assert changed.to_numpy().tolist() == [["config.models", "only gemma-30k", ""]]


def test_another_seed_is_one_change(results, tmp_path: Path) -> None:
    """A record says its seed beside the settings, which hold it too."""
    records = []
    for seed in (0, 1):
        record = json.loads((results.folder / "sweep.json").read_text()) | {"seed": seed}
        record["config"] |= {"seed": seed}
        records.append(record)
    found = changes({str(place): settings_of(record) for place, record in enumerate(records)})
    assert found.to_numpy().tolist() == [["config.seed", "0", "1"]]


def test_controls_are_columns_and_never_models(results, tmp_path: Path, job_rows) -> None:
    folders = []
    for name in ("one", "two"):
        made = type(results)(tmp_path / name, name)
        for model in ("gpt2-30k", "gpt2-2m"):
            rows = job_rows(model, "animal", parameters=30_000, blocks=2)
            made.done(model, "animal", rows)
            made.done(f"{model}~random", "animal", rows.assign(model=f"{model}~random", ie_bits=0.0))
            made.done(model, "animal, shuffled", rows.assign(corpus="animal, shuffled", ie_bits=0.0))
        folders.append(str(made.folder))
    table = compare(folders).table
    assert table["model"].tolist() == ["gpt2-2m", "gpt2-30k", "mean of 2 models"]
    assert table["corpus"].unique().tolist() == ["animal"]
    assert table["verdict"].tolist()[:2] == table["against_verdict"].tolist()[:2] == ["learned", "learned"]


def test_differences_are_corrected_for_how_many_are_looked_at(results, tmp_path: Path, job_rows, emergence) -> None:
    """One of five models moves by 4 errors, the others by 2, which of five is nothing much."""
    folders = []
    for moved in (0, 1):
        made = type(results)(tmp_path / str(moved), "same")
        for place, model in enumerate("abcde"):
            rows = job_rows(model, "animal", parameters=30_000, blocks=2)
            rows["ie_bits"] += moved * np.hypot(0.05, 0.05) * (4 if place == 2 else 2)
            made.done(model, "animal", rows)
        folders.append(str(made.folder))
    found = compare(folders)
    single = found.table[found.table["block"].notna()].set_index("model")
    assert single["p_value"]["a"] == pytest.approx(0.0455, abs=1e-4)  # two-sided, of 2 standard errors
    assert single["p_corrected"]["c"] == pytest.approx(6 * 6.33e-5, rel=0.01)  # six with the mean
    assert (single["p_corrected"].drop("c") > 0.05).all()
    assert "6 differences were looked at" in found.words
    assert "1 stand out: c on animal." in found.words
    assert found.words in emergence("compare", *folders).err.replace("\n", " ")


def test_other_observers_are_refused(results, tmp_path: Path, job_rows, emergence) -> None:
    def run(name: str, **more: object) -> str:
        folder = type(results)(tmp_path / name, name)
        options = {"resolutions": more.pop("resolutions", (0.06, 0.18, 0.5))}
        rows = job_rows("gpt2-30k", "animal", parameters=30_000, blocks=3, positions=10, **options)
        folder.done("gpt2-30k", "animal", rows.assign(**more))
        return str(folder.folder)

    base, coarse, trained = run("base"), run("coarse", resolutions=(0.06, 0.25)), run("trained", estimator="infonce")
    with pytest.raises(InputError, match=r"resolution 0\.18 in base and at 0\.25 in coarse"):
        compare([base, coarse])
    done = emergence("compare", base, coarse, "--resolution", "0.06", "--json")
    assert done.code == 0
    assert json.loads(done.out)[0]["resolution"] == 0.06
    with pytest.raises(InputError, match="by sample-propagation, trained by infonce"):
        compare([base, trained])


def test_other_texts_are_distinguished(results, changed) -> None:
    path = changed.folder / "jobs" / f"{changed.key('gpt2-30k', 'animal')}.parquet"
    rows = pd.read_parquet(path)
    rows.assign(corpus_hash="f" * 16).to_parquet(path)
    table = compare([str(results.folder), str(changed.folder)]).table.set_index("model")
    assert table.loc["gpt2-30k", "text"].endswith(" → ffffffff")
    assert table.loc["gpt2-2m", "text"] == "same"
    assert [name for name in table.index if name.startswith("mean")] == ["mean of 2 models"]  # those of the same text


def test_two_models_by_their_runs_in_mlflow(results, fresh_sqlite, tmp_path: Path, emergence) -> None:
    uri = fresh_sqlite(tmp_path)
    tracked = track(results.folder, tracking_uri=uri)
    runs = [tracked.children[results.key(model, "animal")] for model in ("gpt2-30k", "gpt2-2m")]
    figure, out = tmp_path / "d.png", tmp_path / "d.csv"
    done = emergence("compare", *runs, "--tracking-uri", uri, "--figure", figure, "--out", out)
    assert done.code == 0
    row = pd.read_csv(out).iloc[0]
    assert row["model"] == "gpt2-30k → gpt2-2m"
    assert row["difference"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "config.model.id" in done.err
    whole = compare([tracked.run_id, str(results.folder)], tracking_uri=uri)
    assert np.allclose(whole.table["difference"], 0)
    assert whole.settings.empty


@pytest.mark.parametrize(("wanted", "nearest"), [("0.01", 0.06), ("0.2", 0.18), ("9", 0.5)])
def test_the_resolution_nearest_to_the_one_asked_for_is_taken(
    results, changed, tmp_path: Path, emergence, wanted: str, nearest: float
) -> None:
    out = tmp_path / "differences.csv"
    done = emergence("compare", results.folder, changed.folder, "--resolution", wanted, "--out", out)
    assert done.code == 0, done.err
    assert set(pd.read_csv(out)["resolution"]) == {nearest}


def test_a_resolution_of_nothing_is_refused_not_taken_as_the_default(results, changed, emergence) -> None:
    done = emergence("compare", results.folder, changed.folder, "--resolution", "0")
    assert done.code == 2
    assert "--resolution takes a number above 0, got 0" in done.err


def test_what_cannot_be_compared_is_refused(results, small, fresh_sqlite, tmp_path: Path, job_rows) -> None:
    with pytest.raises(InputError, match="two runs"):
        compare([str(results.folder)])
    with pytest.raises(InputError, match="neither a results folder, an emergence table nor"):
        compare([str(results.folder), "nothing"])
    other = type(small)(tmp_path / "other", "other")
    for model in ("a", "b"):
        other.done(model, "color", job_rows(model, "color", parameters=10, blocks=2))
    with pytest.raises(InputError, match="no model and corpus in common"):
        compare([str(results.folder), str(other.folder)])
    with pytest.raises(InputError, match="0" * 32):
        compare([str(results.folder), "0" * 32], tracking_uri=fresh_sqlite(tmp_path))
