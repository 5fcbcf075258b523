"""Sweeps out of the ordinary: runs that went or failed before, odd names and values, tables from elsewhere."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.tracking.mlflow.memory import MemoryTracker
from tracking import replay, track
from tracking.results import read_results

pytestmark = pytest.mark.usefixtures("without_figures")


def test_deleted_run_is_written_again(small, server, tmp_path: Path) -> None:
    experiment = f"deleted run {tmp_path.name}"
    first = track(small.folder, tracking_uri=server.uri, experiment=experiment)
    MlflowClient(server.uri).delete_run(next(iter(first.children.values())))
    second = track(small.folder, tracking_uri=server.uri, experiment=experiment)
    assert (second.new, second.run_id) == (1, first.run_id)


def test_job_done_after_failing_replaces_its_run(results, server, tmp_path: Path, job_rows) -> None:
    experiment = f"resumed {tmp_path.name}"
    first = track(results.folder, tracking_uri=server.uri, experiment=experiment)
    key = results.key("gemma-2m", "python-docs")
    results.done("gemma-2m", "python-docs", job_rows("gemma-2m", "python-docs", parameters=2_000_000, blocks=3))
    second = track(results.folder, tracking_uri=server.uri, experiment=experiment)
    assert (second.new, second.run_id) == (1, first.run_id)
    assert second.children[key] != first.children[key]
    client = MlflowClient(server.uri)
    parent = client.get_run(second.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["jobs_failed"] == 0
    assert "Failures" not in parent.data.tags["mlflow.note.content"]
    assert client.get_run(first.children[key]).info.lifecycle_stage == "deleted"


def test_slashes_unicode_and_markup_in_names(small, server, tmp_path: Path, job_rows) -> None:
    model, corpus = "openai-community/模型 <b>é</b> $x$ | ../..", "/data/ünï code/text.txt"
    small.done(model, corpus, job_rows(model, corpus, parameters=1000, blocks=2))
    experiment = f"名前/experiment {tmp_path.name}"
    tracked = track(small.folder, tracking_uri=server.uri, experiment=experiment)
    client = MlflowClient(server.uri)
    run = client.get_run(tracked.children[small.key(model, corpus)])
    assert run.info.run_name == f"{model} on {corpus}"
    assert run.data.tags["model"] == model
    assert run.inputs.dataset_inputs[0].dataset.name == corpus
    note = client.get_run(tracked.run_id).data.tags["mlflow.note.content"]
    assert "\\<b\\>" in note
    assert "<b>" not in note
    assert track(small.folder, tracking_uri=server.uri, experiment=experiment).new == 0


def test_controls_are_tags_and_metrics_of_the_models_they_belong_to(small, job_rows) -> None:
    """Both kinds: columns beside the trained rows, and jobs of their own as earlier versions measured them."""
    rows = job_rows("m", "animal", parameters=1000, blocks=2)
    both = rows.assign(twin_ie_bits=0.1, twin_ie_std_error=0.01, shuffled_ie_bits=-0.02, shuffled_ie_std_error=0.01)
    small.done("m", "animal", both)
    small.done("gpt2-30k~random", "animal", job_rows("gpt2-30k~random", "animal", parameters=30_000, blocks=2))
    tracker = MemoryTracker()
    tracked = replay(read_results(small.folder), tracker)

    def run(model: str) -> tuple[dict[str, str], dict[str, float]]:
        found = tracker.runs[tracked.children[small.key(model, "animal")]]
        return found.tags, {p.key: p.value for p in found.points}

    tags, metrics = run("m")
    assert tags["verdict"] == "learned"
    assert (metrics["E_twin"], metrics["E_shuffled"]) == (0.1, -0.02)
    assert "by_layer/twin_ie_bits" in metrics
    tags, metrics = run("gpt2-30k")
    assert tags["verdict"] == "control failed"  # its twin has the same numbers
    assert metrics["E_twin"] == metrics["E"]
    tags, _ = run("gpt2-30k~random")
    assert tags["control"] == "random weights"
    sweep = tracker.runs[tracked.run_id].tags
    assert sweep["models"] == "gpt2-30k, m"
    assert sweep["verdict"] == "1 learned, 1 control failed"
    assert "2 models on 1 corpus" in sweep["mlflow.note.content"]
    assert "random |" not in sweep["mlflow.note.content"]


def test_several_estimators_have_curves_of_their_own(small, job_rows) -> None:
    rows = job_rows("m", "animal", parameters=1000, blocks=2)
    predictive = rows[rows["resolution"] == 0.18].assign(estimator="predictive", resolution=pd.NA, ie_bits=3.0)
    output = predictive[(predictive["layer"] == 0) & (predictive["position"] == 8)]
    output = output.assign(layer=-1, estimator="output-20", ie_bits=4.0)
    small.done("m", "animal", pd.concat([rows, predictive, output], ignore_index=True))
    tracker = MemoryTracker()
    tracked = replay(read_results(small.folder), tracker)
    points = tracker.runs[tracked.children[small.key("m", "animal")]].points
    values = {(p.key, p.step): p.value for p in points}
    assert values["E", 0] == 3.0
    assert values["output-20/E", 0] == 4.0
    assert values["by_layer/ie_bits", 1] == 3.0
    assert values["sample-propagation/by_layer/ie_bits", 1] < 3.0
    assert len(values) == len(points)  # no point has two values


def test_values_that_are_no_numbers_become_flags(small, server, tmp_path: Path, job_rows) -> None:
    rows = job_rows("m", "animal", parameters=1000, blocks=3)
    last = rows["position"] == rows["position"].max()
    rows.loc[last & (rows["layer"] == 0), "ie_bits"] = float("nan")
    rows.loc[last & (rows["layer"] == 1), "macro_bits"] = float("inf")
    small.done("m", "animal", rows)
    tracked = track(small.folder, tracking_uri=server.uri, experiment=f"nan {tmp_path.name}")
    client = MlflowClient(server.uri)
    run = client.get_run(tracked.children[small.key("m", "animal")])
    assert "by_layer/ie_bits at 0: nan" in run.data.tags["flags"]
    assert "by_layer/macro_bits at 1: inf" in run.data.tags["flags"]
    assert {m.step for m in client.get_metric_history(run.info.run_id, "by_layer/ie_bits")} == {1, 2}
    assert {m.step for m in client.get_metric_history(run.info.run_id, "by_layer/macro_bits")} == {0, 2}


def test_sweep_in_which_everything_failed(tmp_path: Path, small) -> None:
    folder = type(small)(tmp_path / "bad", "bad")
    folder.failed("m", "animal")
    tracker = MemoryTracker()
    tracked = replay(read_results(folder.folder), tracker)
    assert tracker.runs[tracked.run_id].failed
    assert "out of memory" in tracker.runs[tracked.run_id].tags["mlflow.note.content"]


def test_models_that_were_not_measured_alike_are_told_apart_in_words(small, job_rows) -> None:
    small.done("m", "animal", job_rows("m", "animal", parameters=1000, blocks=2).assign(windows=600))
    tracker = MemoryTracker()
    tracked = replay(read_results(small.folder), tracker)
    note = tracker.runs[tracked.run_id].tags["mlflow.note.content"]
    assert "Not measured in the same way on animal: numbers of windows differ (600 to 2,000)." in note


def test_two_jobs_of_one_name_are_distinguished(small, job_rows) -> None:
    small.done("gpt2-30k", "animal", job_rows("gpt2-30k", "animal", parameters=30_000, blocks=2), tokens=12)
    tracker = MemoryTracker()
    replay(read_results(small.folder), tracker)
    assert {run.name for run in tracker.runs.values()} == {
        "small",
        "gpt2-30k on animal tokens=8",
        "gpt2-30k on animal tokens=12",
    }


def test_columns_from_elsewhere_are_enough(small) -> None:
    """A table with the required columns alone, as another tool may write it."""
    rows = pd.DataFrame(
        {"model": "m", "corpus": "animal", "layer": [0, 1], "position": 1, "resolution": 0.2, "ie_bits": [0.1, 0.2]}
    )
    small.done("m", "animal", rows.assign(parameters=None))
    tracker = MemoryTracker()
    tracked = replay(read_results(small.folder), tracker)
    points = {(p.key, p.step, p.value) for p in tracker.runs[tracked.children[small.key("m", "animal")]].points}
    assert {("by_layer/ie_bits", 0, 0.1), ("by_layer/ie_bits", 1, 0.2)} <= points


def test_a_table_of_closed_and_open_models_is_one_run_with_a_figure(job_rows, tmp_path: Path, emergence) -> None:
    rows = job_rows("open", "animal", parameters=1000, blocks=1, positions=1, resolutions=(0.18,))
    rows = rows.assign(layer=-1, resolution=pd.NA, estimator="predictive-20", asked="weights", shuffled_ie_bits=0.0)
    rows = pd.concat([rows, rows.assign(model="gpt-4o-mini", parameters=pd.NA, asked="chat")], ignore_index=True)
    rows.assign(shuffled_ie_std_error=0.01).to_parquet(tmp_path / "closed.parquet")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):  # the same table is logged once
        done = emergence("track", tmp_path / "closed.parquet", "--tracking-uri", store)
        assert done.code == 0, done.err
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("emergence").experiment_id])
    assert run.data.metrics["gpt-4o-mini/animal/E"] == rows["ie_bits"].iloc[0]
    assert run.data.metrics["gpt-4o-mini/animal/E_shuffled"] == 0.0
    figure = "figures/emergence_of_the_output.png"
    assert figure in {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert "emergence_of_the_output.png" in run.data.tags["mlflow.note.content"]
