"""What the driver makes of its nodes: demands, clusters that grow or shrink, workers that never come."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from estimators.base import InputError
from proxy.sweeps import driver, slots
from proxy.sweeps.cluster import WorkerLostError
from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import GIB, Demand, Node
from proxy.sweeps.worker import Outcome
from tests.proxy.sweeps.threads import Threads, broken, finished, run


def test_what_no_node_can_hold_any_more_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "UNPLACED", 0.2)
    cluster = Threads(finished)

    def act(job: Job) -> Outcome:
        cluster.rooms = {}
        raise WorkerLostError("the node went away")

    cluster.act = act
    monkeypatch.setattr(cluster, "nodes", lambda: cluster.rooms or {"tiny": Node(Demand(0, 1, 1))})
    result, _ = run(tmp_path, cluster, models=["gpt2-30k"])
    assert {record["error_type"] for record in result.failed} == {"NoRoom"}
    assert len(result.failed) == 2


def test_workers_that_die_before_they_take_a_job_are_not_replaced_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "PAUSE", 0.02)
    monkeypatch.setattr(driver, "TICK", 0.01)
    cluster = Threads(finished)

    def dies() -> None:
        raise WorkerLostError("no module named torch")

    monkeypatch.setattr(cluster, "where", lambda handle: cluster.pool.submit(dies))
    result, _ = run(tmp_path, cluster)
    assert len(cluster.demands) <= 2 * slots.STARTS  # two fit at a time
    assert (len(result.done), len(result.failed)) == (0, 4)
    assert {record["error_type"] for record in result.failed} == {"WorkerLost"}
    assert "no module named torch" in result.failed[0]["error"]
    assert list((tmp_path / "claims").iterdir()) == []


def test_one_worker_that_dies_before_it_takes_a_job_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "PAUSE", 0.02)
    monkeypatch.setattr(driver, "TICK", 0.01)
    cluster = Threads(finished)

    def where(handle: int) -> Future[Any]:
        def answer() -> dict[str, str]:
            if handle % 3 < 2:
                raise WorkerLostError("its node went")
            return {"node": "one"}

        return cluster.pool.submit(answer)

    monkeypatch.setattr(cluster, "where", where)
    result, _ = run(tmp_path, cluster)
    assert (len(result.done), result.failed) == (4, ())


def test_what_a_growing_cluster_never_brings_is_said_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "FIRST_NODE", 0.3)
    monkeypatch.setattr(driver, "TICK", 0.01)
    cluster = Threads(finished, {"one": Node(Demand(1, 64 * GIB, 8), gpu_gb=80)})
    where = cluster.where
    monkeypatch.setattr(
        cluster, "where", lambda handle: Future() if cluster.demands[handle].gpus > 1 else where(handle)
    )
    big = {"id": "gpt2-90k", "resources": {"gpus": 2}}
    result, events = run(tmp_path, cluster, models=["gpt2-30k", big], workers=1)
    assert [event.job.label for event in events if event.kind == "waiting"] == ["gpt2-90k on animal"]
    assert "2 GPU" in next(event.detail for event in events if event.kind == "waiting")
    assert {(record["model"], record["error_type"]) for record in result.failed} == {("gpt2-90k", "NoRoom")}
    assert len(result.done) == len(result.failed) == 2
    assert sorted(cluster.stopped) == list(range(len(cluster.demands)))


def test_workers_that_are_asked_for_are_not_bounded_by_the_nodes_of_now(tmp_path: Path) -> None:
    cluster = Threads(finished, {"one": Node(Demand(0, 1, 1))})
    result, _ = run(tmp_path, cluster, workers=2)
    assert len(result.done) == 4
    assert len(cluster.demands) == 2


def test_a_growing_cluster_is_waited_for_and_then_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Threads(finished)
    looks = itertools.count()
    head, gpus = Node(Demand(0, 8 * GIB, 0)), Node(Demand(1, 64 * GIB, 8), gpu_gb=80)
    monkeypatch.setattr(driver, "TICK", 0.05)
    monkeypatch.setattr(cluster, "nodes", lambda: {"head": head, **({"gpus": gpus} if next(looks) > 2 else {})})
    result, _ = run(tmp_path, cluster, workers=1)
    assert len(result.done) == 4
    assert [demand.gpus for demand in cluster.demands] == [0.125]


def test_a_large_gpu_worker_leaves_small_models_to_small_ones(tmp_path: Path) -> None:
    cluster = Threads(finished, {"one": Node(Demand(2, 64 * GIB, 8), gpu_gb=80)})
    big = {"id": "gpt2-90k", "resources": {"gpus": 2}}
    run(tmp_path, cluster, models=["gpt2-30k", big])
    assert [demand.gpus for demand in cluster.demands] == [2, 0.125]


def test_a_model_larger_than_any_node_is_refused_before_any_work(tmp_path: Path) -> None:
    cluster = Threads(finished)
    cluster.address = "other machines"  # which may have the model that this one lacks
    with pytest.raises(InputError, match=r"No node has room for some/model-70b: .* needed, the largest node has 2 CPU"):
        run(tmp_path, cluster, models=["gpt2-30k", "some/model-70b"])
    assert cluster.runs == []


def test_a_worker_out_of_memory_is_given_more(tmp_path: Path) -> None:
    seen = []

    def act(job: Job) -> Outcome:
        seen.append(job.label)
        if len(seen) == 1:
            raise WorkerLostError("OOM", memory=True)
        return broken(job, "memory") if len(seen) == 2 else finished(job)

    cluster = Threads(act)
    result, _ = run(tmp_path, cluster, models=["gpt2-30k"], corpora=["animal"])
    assert not result.failed
    assert [demand.memory / GIB for demand in cluster.demands] == [1, 2, 4]
