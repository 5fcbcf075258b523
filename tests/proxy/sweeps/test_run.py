"""Sweeps on a real Ray cluster: workers, real kills, lost nodes, placement on GPUs that are only declared."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from proxy.sweeps.cluster import Cluster
from proxy.sweeps.config import SweepConfig, parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.run import sweep
from proxy.sweeps.slots import Event
from proxy.sweeps.store.results import to_parquet
from proxy.sweeps.worker import Worker

SMALL: dict[str, Any] = {
    "name": "small",
    "models": ["gpt2-30k", "gemma-30k"],
    "corpora": [{"source": "animal", "windows": 60}, {"source": "python-docs", "windows": 60}],
    "measurement": {"estimator": "sample-propagation", "resolutions": [0.2], "queries": 30},
}


class Dummy(Worker):
    """Writes down where it ran instead of measuring; a job's `queries` are its length in hundredths of a second."""

    def _measure(self, job: Job, record: dict[str, Any]) -> tuple[bytes, bytes | None]:
        time.sleep(job.measurement.queries / 100)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        record["device"] = visible
        row = {"model": job.model_name, "corpus": job.corpus_name, "layer": 0, "position": 1, "resolution": 0.1}
        return to_parquet(pd.DataFrame([{**row, "ie_bits": 1.0}])), None


class Dying(Worker):
    """Is killed, as by the system, the first time it is at a job on python-docs."""

    def _measure(self, job: Job, record: dict[str, Any]) -> tuple[bytes, bytes | None]:
        marker = Path(os.environ["DYING_MARKER"])
        if job.corpus.source == "python-docs" and not marker.exists():
            marker.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._measure(job, record)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of one node with two cores, which the tests join by address."""
    from ray import cloudpickle
    from ray.cluster_utils import Cluster as Machines

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules
    os.environ["DYING_MARKER"] = str(tmp_path_factory.mktemp("dying") / "marker")
    for last in (False, True):  # on a busy machine Ray's agents may miss their 15 s
        try:
            machines = Machines(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
            break
        except Exception:
            if last:
                raise
    yield machines
    machines.shutdown()
    del os.environ["DYING_MARKER"]


def bits(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds").reset_index(drop=True)


def by_hand(config: SweepConfig) -> pd.DataFrame:
    """The same jobs one after another in this process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from proxy.schemas import EMERGENCE

    worker = Worker()
    tables = [worker.run(job).table for job in make_jobs(config)]
    frame = pd.concat([pq.read_table(pa.BufferReader(table)).to_pandas() for table in tables if table is not None])
    return EMERGENCE.conform(frame.sort_values(["model", "corpus", "layer", "position", "resolution"]))


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    return by_hand(parse_config(SMALL))


def test_the_command_measures_all_and_then_nothing(
    ray_cluster: Any, truth: pd.DataFrame, tmp_path: Path, emergence: Callable[..., Any]
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(SMALL))  # JSON is YAML
    arguments = ("sweep", config, "--results", tmp_path / "results", "--address", ray_cluster.address)
    outcome = emergence(*arguments)
    assert outcome.code == 0, outcome.err
    assert "4 jobs done, 0 failed" in outcome.err
    assert "gpt2-30k" in outcome.out
    table = pd.read_parquet(tmp_path / "results" / "emergence.parquet")
    pd.testing.assert_frame_equal(bits(table), bits(truth), check_exact=True, check_dtype=False)
    header = json.loads((tmp_path / "results" / "sweep.json").read_text())
    assert header["name"] == "small"
    assert {path.stem for path in (tmp_path / "results" / "jobs").glob("*.parquet")} == set(header["jobs"])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "jobs").iterdir()}
    again = emergence(*arguments, "--json")
    assert again.code == 0, again.err
    assert "4 of 4 jobs are done already" in again.err
    assert {row["model"] for row in json.loads(again.out)} == {"gpt2-30k", "gemma-30k"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "jobs").iterdir()} == written


def test_a_killed_worker_costs_nothing(ray_cluster: Any, truth: pd.DataFrame, tmp_path: Path) -> None:
    events: list[Event] = []
    cluster = Cluster(ray_cluster.address, worker=Dying)
    result = sweep(parse_config(SMALL), tmp_path, cluster=cluster, on_event=events.append)
    assert result.failed == ()
    assert [event.job.corpus.source for event in events if event.kind == "retry"] == ["python-docs"]
    pd.testing.assert_frame_equal(bits(result.table), bits(truth), check_exact=True, check_dtype=False)


def test_a_failing_job_is_listed_and_its_log_can_be_read(
    ray_cluster: Any, tmp_path: Path, emergence: Callable[..., Any]
) -> None:
    config = tmp_path / "mixed.yaml"
    bad = {"source": "animal", "windows": 60, "tokens": 3}  # no whole demonstrations
    config.write_text(json.dumps({**SMALL, "models": ["gpt2-30k"], "corpora": [SMALL["corpora"][1], bad]}))
    place = ("--results", tmp_path / "results")
    outcome = emergence("sweep", config, *place, "--address", ray_cluster.address)
    assert outcome.code == 1
    assert "1 job done, 1 failed" in outcome.err
    assert "Failed: gpt2-30k on animal: InputError" in outcome.err
    key = outcome.err.split("--log ")[1].split(")")[0]
    log = emergence("sweep", config, *place, "--log", key)
    assert log.code == 0
    assert "Traceback" in log.out
    unknown = emergence("sweep", config, *place, "--log", "0" * 16)
    assert unknown.code == 2
    assert "No record of a job 0000000000000000" in unknown.err


def test_models_share_gpus_and_cpu_models_run_beside_them(ray_cluster: Any, tmp_path: Path) -> None:
    node = ray_cluster.add_node(num_cpus=8, num_gpus=2, memory=64 * 2**30)
    try:
        half, whole, none = ({"resources": {"gpus": gpus, "memory_gb": 1}} for gpus in (0.5, 1, 0))
        models = [
            {"id": "gpt2-30k", **half},
            {"id": "gpt2-90k", **half},
            {"id": "gemma-30k", **whole},
            {"id": "gemma-90k", **none},
        ]
        config = parse_config({**SMALL, "models": models, "measurement": {"queries": 400}})
        running: list[int] = []
        now: set[str] = set()

        def watch(event: Event) -> None:
            if event.kind == "start":
                now.add(event.job.key)
            elif event.kind == "done":
                now.discard(event.job.key)
            running.append(len(now))

        result = sweep(config, tmp_path, cluster=Cluster(ray_cluster.address, worker=Dummy), on_event=watch)
        assert result.failed == ()
        records = [result.results.record(key) or {} for key in result.done]
        device = {record["model"]: record["device"] for record in records}
        assert device["gpt2-30k"] == device["gpt2-90k"]  # two halves of one
        assert {device["gpt2-30k"], device["gemma-30k"]} == {"0", "1"}
        assert device["gemma-90k"] == ""
        assert max(running) == 4  # all at once
    finally:
        ray_cluster.remove_node(node)


def test_a_lost_node_costs_the_jobs_it_was_at(ray_cluster: Any, tmp_path: Path) -> None:
    node, other = ray_cluster.add_node(num_cpus=1), ray_cluster.add_node(num_cpus=1)
    config = parse_config(
        {**SMALL, "models": ["gpt2-30k", "gpt2-90k", "gemma-30k", "gemma-90k"], "measurement": {"queries": 400}}
    )
    lost = False
    events: list[Event] = []

    def watch(event: Event) -> None:
        nonlocal lost
        events.append(event)
        if not lost and len([seen for seen in events if seen.kind == "start"]) == 4:
            lost = True
            ray_cluster.remove_node(node, allow_graceful=False)

    result = sweep(config, tmp_path, cluster=Cluster(ray_cluster.address, worker=Dummy), on_event=watch)
    ray_cluster.remove_node(other)
    assert lost
    assert result.failed == ()
    assert len(result.done) == 8
    assert any(event.kind == "retry" for event in events)
    starts = [event.job.key for event in events if event.kind == "start"]
    retries = [event.job.key for event in events if event.kind == "retry"]
    assert sorted(starts) == sorted([*result.done, *retries])  # nothing else ran twice
