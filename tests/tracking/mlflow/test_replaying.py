"""Sweeps into real MLflow stores: what is logged, and that repeating it changes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from estimators.base import InputError
from estimators.contracts.results_folder import SCHEMA
from tests.tracking.mlflow.memory import MemoryTracker
from tracking import replay, track
from tracking.mlflow import sweep_run as sweep_runs
from tracking.mlflow.notes import GAP
from tracking.results import read_results


@pytest.fixture(params=["server", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both kinds of store."""
    if request.param == "server":
        return request.getfixturevalue("server").uri
    return request.getfixturevalue("fresh_sqlite")(tmp_path)


def test_sweep_is_logged_with_curves_tables_and_figures(results, uri: str, tmp_path: Path) -> None:
    experiment = f"whole {tmp_path.name} {uri[:4]}"
    tracked = track(results.folder, tracking_uri=uri, experiment=experiment)
    assert tracked.new == 11  # ten jobs and the sweep itself
    client = MlflowClient(uri)
    parent = client.get_run(tracked.run_id)
    assert parent.info.run_name == "demo"
    assert parent.info.status == "FAILED"  # one job did
    assert parent.data.params["config.measurement.queries"] == "1000"
    assert parent.data.params["config.models.0.id"] == "gpt2-30k"
    assert parent.data.tags["estimator"] == "sample-propagation"
    assert parent.data.tags["versions.torch"] == "2.13.0"
    assert parent.data.tags["mlflow.source.git.commit"] == "0123abcd"
    assert "| gpt2-2m | animal |" in parent.data.tags["mlflow.note.content"].replace(GAP, "")
    assert "out of memory" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["jobs_failed"] == 1
    files = {f.path for f in client.list_artifacts(tracked.run_id)}
    note = parent.data.tags["mlflow.note.content"]
    assert (
        f"![Emergence by depth](get-artifact?path=figures%2Femergence_by_depth.png&run_uuid={tracked.run_id})" in note
    )
    assert "Not measured in the same way" not in note
    shown = client.download_artifacts(tracked.run_id, "summary.json", str(tmp_path))
    assert pd.read_json(shown, orient="split")["model"].nunique() == 5
    assert json.loads(parent.data.tags["mlflow.loggedArtifacts"]) == [{"path": "summary.json", "type": "table"}]
    assert {"sweep.json", "summary.csv", "summary.parquet", "emergence.parquet", "figures"} <= files
    figures = {f.path for f in client.list_artifacts(tracked.run_id, "figures")}
    assert {f"figures/emergence_by_{x}.png" for x in ("depth", "position", "resolution", "size")} <= figures
    assert {(d.dataset.name, len(d.dataset.digest)) for d in parent.inputs.dataset_inputs} == {
        ("animal", 16),
        ("python-docs", 16),
    }

    key = results.key("gpt2-2m", "animal")
    child = client.get_run(tracked.children[key])
    assert child.info.run_name == "gpt2-2m on animal"
    assert child.data.tags["mlflow.parentRunId"] == tracked.run_id
    assert child.data.tags["family"] == "gpt2"
    assert child.data.tags["estimator"] == "sample-propagation"
    rows = pd.read_parquet(results.folder / "jobs" / f"{key}.parquet")
    last = rows[(rows["position"] == 10) & (rows["resolution"] == 0.18)].sort_values("layer")
    for name in ("ie_bits", "macro_bits", "micro_bits"):
        curve = client.get_metric_history(child.info.run_id, f"by_layer/{name}")
        assert [(m.step, m.value) for m in sorted(curve, key=lambda m: m.step)] == list(
            zip(last["layer"], last[name], strict=True)
        )
    steps = [m.step for m in client.get_metric_history(child.info.run_id, "by_position/ie_bits")]
    assert sorted(steps) == list(range(1, 11))
    resolutions = [m.step for m in client.get_metric_history(child.info.run_id, "by_resolution/ie_bits")]
    assert sorted(resolutions) == [60, 180, 500]
    local = client.download_artifacts(child.info.run_id, "emergence.parquet", str(tmp_path))
    pd.testing.assert_frame_equal(pd.read_parquet(local), rows)

    failed = client.get_run(tracked.children[results.key("gemma-2m", "python-docs")])
    assert failed.info.status == "FAILED"
    assert "out of memory" in failed.data.tags["mlflow.note.content"]
    assert set(failed.data.metrics) == {"seconds"}


def test_repeating_logs_nothing_twice(small, uri: str, tmp_path: Path) -> None:
    experiment = f"again {tmp_path.name} {uri[:4]}"
    first = track(small.folder, tracking_uri=uri, experiment=experiment)
    second = track(small.folder, tracking_uri=uri, experiment=experiment)
    assert (first.new, second.new) == (2, 0)
    assert (first.run_id, first.children) == (second.run_id, second.children)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len(runs) == 2
    assert len(client.get_metric_history(next(iter(first.children.values())), "by_layer/ie_bits")) == 2


def test_command_tracks_into_the_working_folder_without_noise(small, tmp_path: Path) -> None:
    """A fresh store, in a process of its own: the migrations of MLflow must not reach the screen."""
    command = [str(Path(sys.executable).parent / "emergence")]
    done = subprocess.run([*command, "track", "small", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["new"] == 2
    assert not [line for line in done.stderr.splitlines() if "Tracking" not in line]
    assert (tmp_path / "mlflow.db").is_file()
    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(said["run_id"]).info.status == "FINISHED"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db", "small"]


def test_models_without_a_number_and_missing_jobs_are_named(results, job_rows) -> None:
    rows = job_rows("gemma-2m", "python-docs", parameters=2_000_000, blocks=3)
    results.done("gemma-2m", "python-docs", rows.assign(ie_bits=float("nan"), flags="unreliable"))
    path = results.folder / "sweep.json"
    keys = [job.stem for job in (results.folder / "jobs").glob("*.json")]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"jobs": [*keys, "f" * 16]}))
    tracker = MemoryTracker()
    run = tracker.runs[replay(read_results(results.folder), tracker).run_id]
    assert "unreliable" in run.tags["flags"]
    note = run.tags["mlflow.note.content"]
    assert "gemma-2m | python-docs | none of its 72 rows holds a finite number" in note.replace("\\", "").replace(
        "&nbsp;", ""
    )
    assert "1 job not ended yet." in note
    assert {(p.key, p.value) for p in run.points} >= {("jobs_done", 10.0), ("jobs_missing", 1.0)}


def test_description_shows_every_corpus(small, job_rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_runs, "write_sweep_files", lambda *_: None)
    for corpus in ("animal", "python-docs"):
        for index in range(50):
            small.done(f"m{index}", corpus, job_rows(f"m{index}", corpus, parameters=1000 + index, blocks=1))
    tracker = MemoryTracker()
    note = tracker.runs[replay(read_results(small.folder), tracker).run_id].tags["mlflow.note.content"]
    cells = note.replace("&nbsp;", "")
    assert cells.count("| animal |") == cells.count("| python-docs |") == 20
    assert "61 further rows are in summary.csv" in note.replace("\\", "")


def test_memory_tracker_holds_the_same(small) -> None:
    tracker = MemoryTracker()
    found = read_results(small.folder)
    first = replay(found, tracker)
    assert replay(found, tracker).new == 0
    run = tracker.runs[next(iter(first.children.values()))]
    assert run.params["model"] == "gpt2-30k"
    assert {p.key for p in run.points} >= {"by_layer/ie_bits", "by_position/macro_bits", "by_resolution/micro_bits"}
    assert run.files == {"emergence.parquet", "job.json"}


def test_unreachable_server_is_named(small) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9 did not answer"):
        track(small.folder, tracking_uri="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "No results folder at .*elsewhere; give the folder that `emergence sweep` wrote"),
        ("no sweep.json", "holds no sweep.json, so it is not a results folder"),
        ("bad json", r"jobs/\w+.json could not be read as JSON"),
        ("schema", f"has results schema 99, but this version reads {SCHEMA}"),
        ("no parquet", r"jobs/\w+.json says done but \w+.parquet is missing"),
        ("no jobs", "No job of .*small has finished yet"),
    ],
)
def test_damaged_results_are_refused(small, damage: str, message: str) -> None:
    folder: Path = small.folder
    job = next((folder / "jobs").glob("*.json"))
    if damage == "missing":
        folder = folder / "elsewhere"
    elif damage == "no sweep.json":
        (folder / "sweep.json").unlink()
    elif damage == "bad json":
        job.write_text("{")
    elif damage == "schema":
        (folder / "sweep.json").write_text('{"schema": 99}')
    elif damage == "no parquet":
        job.with_suffix(".parquet").unlink()
    else:
        job.unlink()
    with pytest.raises(InputError, match=message):
        replay(read_results(folder), MemoryTracker())
