"""The driver's decisions, on a cluster of threads: retries, lost workers, other drivers, storage."""

from __future__ import annotations

import importlib
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estimators.base import EmergenceError, InputError
from proxy.sweeps import driver
from proxy.sweeps import jobs as jobs_module
from proxy.sweeps.cluster import WorkerLostError
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.placement import GIB, Demand, Node
from proxy.sweeps.run import sweep
from proxy.sweeps.store.claims import Claims
from proxy.sweeps.store.results import OTHER_VERSION, ResultsStore
from proxy.sweeps.store.storage import Folder, open_storage
from proxy.sweeps.worker import Outcome
from tests.proxy.sweeps.threads import Threads, broken, config, finished, run


def test_all_jobs_are_done_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    first = Threads(finished)
    result, _ = run(tmp_path, first)
    assert (len(result.done), result.failed, len(result.table)) == (4, (), 4)
    assert sorted(first.stopped) == list(range(len(first.demands)))
    again = Threads(finished)
    result, _ = run(tmp_path, again)
    assert (len(result.done), again.runs, again.demands) == (4, [], [])


def test_a_result_of_an_earlier_version_is_done_again_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, Threads(finished), models=["gpt2-30k"])
    monkeypatch.setattr(jobs_module, "RESULT_VERSION", jobs_module.RESULT_VERSION + 1)
    again = Threads(finished)
    result, events = run(tmp_path, again)
    said = [(event.job.label, event.detail) for event in events if event.kind == "redo"]
    assert said == [(f"gpt2-30k on {corpus}", OTHER_VERSION) for corpus in ("animal", "color")]
    assert len(again.runs) == len(result.done) == 4


def test_a_model_stays_with_one_worker(tmp_path: Path) -> None:
    cluster = Threads(finished, {"one": Node(Demand(0, 16 * GIB, 1))})
    run(tmp_path, cluster)
    assert cluster.runs == [f"gpt2-{size} on {corpus}" for size in ("30k", "90k") for corpus in ("animal", "color")]
    assert len(cluster.demands) == 1


def test_a_broken_job_is_recorded_and_the_rest_is_done(tmp_path: Path) -> None:
    cluster = Threads(lambda job: broken(job) if job.label == "gpt2-30k on color" else finished(job))
    result, events = run(tmp_path, cluster)
    assert len(result.done) == 3
    assert [record["error"] for record in result.failed] == ["broken"]
    assert cluster.runs.count("gpt2-30k on color") == 1
    assert [event.job.label for event in events if event.kind == "fail"] == ["gpt2-30k on color"]
    record = result.results.record(result.failed[0]["key"])
    assert record is not None
    assert (record["status"], record["traceback"]) == ("failed", "...")
    mended = Threads(finished)
    result, _ = run(tmp_path, mended)
    assert mended.runs == ["gpt2-30k on color"]
    assert len(result.done) == 4


def test_a_passing_failure_is_tried_again_with_a_bound(tmp_path: Path) -> None:
    cluster = Threads(lambda job: broken(job, "again"))
    result, events = run(tmp_path, cluster, models=["gpt2-30k"], corpora=["animal"], retries=3)
    assert len(cluster.runs) == 4
    assert len(result.failed) == 1
    assert [event.kind for event in events if event.kind in ("retry", "fail")] == ["retry"] * 3 + ["fail"]


def test_a_lost_worker_costs_its_running_job_one_try_and_the_others_none(tmp_path: Path) -> None:
    lock, deaths = threading.Lock(), []

    def act(job: Job) -> Outcome:
        with lock:
            if job.label == "gpt2-30k on animal":
                deaths.append(job.label)
                raise WorkerLostError("killed")
        return finished(job)

    result, _ = run(tmp_path, Threads(act), retries=2)
    assert len(deaths) == 3
    assert [record["error_type"] for record in result.failed] == ["WorkerLost"]
    assert len(result.done) == 3


def test_a_model_that_no_worker_here_can_load_is_refused_before_any_work(tmp_path: Path) -> None:
    cluster = Threads(finished)
    with pytest.raises(InputError, match="some/model-70m is neither bundled, nor a folder, nor in the hub's cache"):
        run(tmp_path, cluster, models=["gpt2-30k", "some/model-70m"])
    assert cluster.runs == []
    cluster.address = "other machines"
    result, _ = run(tmp_path, cluster, models=["gpt2-30k", "some/model-70m"])
    assert len(result.done) == 4


@pytest.mark.parametrize("cut", [True, False])
def test_a_table_cut_short_or_missing_is_done_again_and_said_so(tmp_path: Path, cut: bool) -> None:
    result, _ = run(tmp_path, Threads(finished))
    path = tmp_path / "jobs" / f"{result.done[0]}.parquet"
    whole = path.read_bytes()
    if cut:
        path.write_bytes(whole[:-10])
    else:
        path.unlink()
    again = Threads(finished)
    result, events = run(tmp_path, again)
    assert [(event.job.key, event.detail) for event in events if event.kind == "redo"] == [
        (result.done[0], "its table is cut short" if cut else "its table is missing")
    ]
    assert again.runs == ["gpt2-30k on animal"]
    assert path.read_bytes() == whole
    assert len(result.table) == 4


def test_jobs_of_another_driver_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ELSEWHERE", 0.05)
    jobs = make_jobs(config())
    store = ResultsStore(open_storage(tmp_path))
    other = Claims(store.storage)
    other.take([jobs[0].key, jobs[1].key, jobs[2].key])
    cluster = Threads(finished)

    def rival() -> None:
        time.sleep(0.5)
        store.write_done(jobs[0].key, finished(jobs[0]).table or b"", finished(jobs[0]).record)
        store.write_failed(jobs[1].key, broken(jobs[1]).record | {"started": "now"})
        other.release_all()  # and the third job it gives up

    thread = threading.Thread(target=rival)
    thread.start()
    result, events = run(tmp_path, cluster)
    thread.join()
    assert sorted(cluster.runs) == sorted([jobs[2].label, jobs[3].label])
    assert len(result.done) == 3
    assert [record["key"] for record in result.failed] == [jobs[1].key]
    assert len([event for event in events if event.kind == "elsewhere"]) == 3


def test_an_interrupt_stops_the_workers_and_frees_the_claims(tmp_path: Path) -> None:
    cluster = Threads(finished)

    def interrupted(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config(), tmp_path, cluster=cluster, progress=interrupted)
    assert sorted(cluster.stopped) == list(range(len(cluster.demands)))
    assert list((tmp_path / "claims").iterdir()) == []
    assert len(list((tmp_path / "jobs").glob("*.json"))) == 2


def test_storage_that_stays_away_ends_the_sweep_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def gone(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ResultsStore, "write_done", gone)
    with pytest.raises(EmergenceError, match=r"Results could not be kept in .*run the same command again"):
        run(tmp_path, Threads(finished))


def test_storage_that_fails_for_a_moment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.sweeps.store.storage.PAUSES", (0.0, 0.0))
    write, calls = Folder.write, itertools.count()

    def flaky(self: Folder, name: str, content: bytes) -> None:
        if next(calls) % 3:  # two of three writes fail
            raise OSError(116, "Stale file handle")
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", flaky)
    monkeypatch.setattr(importlib.import_module("proxy.sweeps.run"), "open_storage", lambda place: Folder(Path(place)))
    result, _ = run(tmp_path, Threads(finished))
    assert (len(result.done), result.failed, len(result.table)) == (4, (), 4)


def test_a_tracking_server_that_is_down_costs_no_result(tmp_path: Path, emergence: Callable[..., Any]) -> None:
    change = {"tracking": {"uri": "http://127.0.0.1:9"}}
    run(tmp_path / "results", Threads(finished), **change)  # all is done, so the command only has to track
    settings = tmp_path / "t.yaml"
    settings.write_text(config(**change).model_dump_json())
    outcome = emergence("sweep", settings, "--results", tmp_path / "results")
    assert outcome.code == 1
    assert "4 jobs done, 0 failed" in outcome.err
    assert "Not tracked: " in outcome.err
    assert "http://127.0.0.1:9" in outcome.err
    assert f"emergence track {tmp_path / 'results'}" in outcome.err
