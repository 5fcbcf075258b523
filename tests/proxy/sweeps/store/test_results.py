"""A results folder: what counts as done, and the merged table."""

import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from estimators.base import EmergenceError
from estimators.contracts import controls
from estimators.contracts.seals import sealed
from extraction.tables import read_table
from proxy.schemas import EMERGENCE
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.store.results import ResultsStore, to_parquet
from proxy.sweeps.store.storage import open_storage
from proxy.sweeps.store.summary import end_rows
from proxy.sweeps.worker import record_of


@pytest.fixture
def results(tmp_path: Path) -> ResultsStore:
    return ResultsStore(open_storage(tmp_path))


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return make_jobs(parse_config({"name": "t", "models": ["gpt2-90k", "gpt2-30k"], "corpora": ["color", "animal"]}))


def table(job: Job) -> bytes:
    rows = [
        {
            "model": job.model_name,
            "corpus": job.corpus_name,
            "layer": layer,
            "position": t,
            "resolution": r,
            "ie_bits": 1.0,
        }
        for r in (0.2, 0.1)
        for layer in (1, 0)
        for t in (2, 1)
    ]
    return to_parquet(pd.DataFrame(rows))


def finish(results: ResultsStore, job: Job) -> None:
    results.write_done(job.key, table(job), record_of(job) | {"seconds": 2.0, "peak_memory_gb": 1.5})


def test_what_is_written_is_found(results: ResultsStore, jobs: list[Job]) -> None:
    finish(results, jobs[0])
    results.write_failed(jobs[1].key, record_of(jobs[1]) | {"error": "no", "started": "today"})
    found = results.find(job.key for job in jobs)
    assert found.done == {jobs[0].key}
    assert found.failed == {jobs[1].key: "today"}
    assert found.rejected == {}
    assert found.seconds == {jobs[0].key: 2.0}
    assert found.peaks["gpt2-90k"].main_gb == 1.5


def test_a_table_cut_short_is_done_again(results: ResultsStore, jobs: list[Job], tmp_path: Path) -> None:
    finish(results, jobs[0])
    path = tmp_path / "jobs" / f"{jobs[0].key}.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    found = results.find([jobs[0].key])
    assert found.done == set()
    assert found.rejected == {jobs[0].key: "its table is cut short"}
    path.unlink()
    assert results.find([jobs[0].key]).rejected == {jobs[0].key: "its table is missing"}


@pytest.mark.parametrize("content", [b"", b'{"status": "do', b"[]"])
def test_a_record_cut_short_is_done_again(results: ResultsStore, jobs: list[Job], content: bytes) -> None:
    finish(results, jobs[0])
    results.storage.write(f"jobs/{jobs[0].key}.json", content)
    assert results.find([jobs[0].key]).rejected == {
        jobs[0].key: f"jobs/{jobs[0].key}.json was damaged after it was written"
    }


def test_the_result_of_another_job_under_a_job_s_name_is_done_again(results: ResultsStore, jobs: list[Job]) -> None:
    """All its files were copied, each of them whole."""
    finish(results, jobs[0])
    for ending in ("json", "parquet"):
        results.storage.write(f"jobs/{jobs[1].key}.{ending}", results.storage.read(f"jobs/{jobs[0].key}.{ending}"))
    found = results.find(job.key for job in jobs[:2])
    assert found.done == {jobs[0].key}
    assert [*found.rejected] == [jobs[1].key]


def test_a_result_of_another_version_is_done_again(results: ResultsStore, jobs: list[Job]) -> None:
    finish(results, jobs[0])
    name = f"jobs/{jobs[0].key}.json"
    record = json.loads(results.storage.read(name))
    results.storage.write(name, json.dumps(sealed({**record, "table_version": EMERGENCE.version + 1})).encode())
    assert "another version" in results.find([jobs[0].key]).rejected[jobs[0].key]


def test_the_merged_table_is_sorted_whatever_came_first(results: ResultsStore, jobs: list[Job], tmp_path: Path) -> None:
    for job in jobs:
        finish(results, job)
    assert results.merge(jobs) == 4 * 8
    first = (tmp_path / "emergence.parquet").read_bytes()
    frame = read_table(tmp_path / "emergence.parquet", EMERGENCE)
    order = ["model", "corpus", "layer", "position", "resolution"]
    pd.testing.assert_frame_equal(frame, frame.sort_values(order, ignore_index=True))
    assert pq.read_schema(tmp_path / "emergence.parquet").metadata[b"emergence.schema"] == b"emergence/1"
    results.merge(jobs[::-1])
    assert (tmp_path / "emergence.parquet").read_bytes() == first
    pd.testing.assert_frame_equal(results.emergence(), frame)


def test_without_results_the_table_has_no_rows(results: ResultsStore) -> None:
    assert results.merge([]) == 0
    assert list(results.emergence().columns) == list(EMERGENCE.columns)
    assert len(results.emergence()) == 0


def test_results_at_a_url_are_copied_where_a_folder_is_needed(jobs: list[Job], tmp_path: Path) -> None:
    results = ResultsStore(open_storage("memory://copied"))
    finish(results, jobs[0])
    results.merge(jobs[:1])
    results.copy_to(tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == ["emergence.parquet", f"jobs/{jobs[0].key}.json", f"jobs/{jobs[0].key}.parquet"]
    assert ResultsStore(open_storage(tmp_path)).find([jobs[0].key]).done == {jobs[0].key}


def test_the_summary_is_that_of_the_whole_table(
    results: ResultsStore, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.sweeps.store.summary.BATCH", 3)  # a model's rows come in several parts
    for job in jobs:
        finish(results, job)
    results.merge(jobs)
    monkeypatch.setattr(results, "emergence", None)  # not read whole
    shown = controls.summary(end_rows(results, resolution=0.2), 0.2)
    whole = controls.summary(pd.read_parquet(io.BytesIO(results.storage.read("emergence.parquet"))), 0.2)
    assert shown[["corpus", "model"]].to_numpy().tolist() == sorted(shown[["corpus", "model"]].to_numpy().tolist())
    by = ["model", "corpus"]
    pd.testing.assert_frame_equal(*(one.sort_values(by, ignore_index=True) for one in (shown, whole)))
    assert len(shown) == 4


def test_two_corpora_of_one_name_are_distinguished_in_the_summary(results: ResultsStore) -> None:
    corpora = [{"source": "animal", "windows": windows} for windows in (50, 60)]
    jobs = make_jobs(parse_config({"name": "t", "models": ["gpt2-30k"], "corpora": corpora}))
    for job, content in zip(jobs, ("aaaaaaaaaa", "bbbbbbbbbb"), strict=True):
        frame = pq.read_table(pa.BufferReader(table(job))).to_pandas().assign(corpus_hash=content)
        results.write_done(job.key, to_parquet(frame), record_of(job))
    results.merge(jobs)
    assert sorted(set(end_rows(results, resolution=0.1)["corpus"])) == ["animal@aaaaaaa", "animal@bbbbbbb"]


@pytest.mark.parametrize("name", ["jobs/{}.json", "jobs/{}.parquet", "windows/{}.parquet"])
def test_damage_is_found_named_and_done_again(
    results: ResultsStore, jobs: list[Job], tmp_path: Path, name: str
) -> None:
    """A bit in every byte of the record, in every 97th of the tables; a zeroed page, which keeps the size, too."""
    job = jobs[0]
    windows = table(job)
    results.write_done(job.key, table(job), record_of(job) | {"seconds": 2.0}, windows)
    path = tmp_path / name.format(job.key)
    content = path.read_bytes()
    flips = [(place, bytes([content[place] ^ 1 << place % 8])) for place in range(0, len(content), 97)]
    for place, changed in [*flips, (len(content) // 2, bytes(64))]:
        path.write_bytes(content[:place] + changed + content[place + len(changed) :])
        found = results.find([job.key])
        assert found.done == set()
        assert name.format(job.key) in found.rejected[job.key] or "another version" in found.rejected[job.key]
    path.write_bytes(content)
    assert results.find([job.key]).done == {job.key}


def test_damage_before_the_merge_is_named(results: ResultsStore, jobs: list[Job], tmp_path: Path) -> None:
    finish(results, jobs[0])
    path = tmp_path / "jobs" / f"{jobs[0].key}.parquet"
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    with pytest.raises(EmergenceError, match=r"jobs/.*parquet was damaged .*run the same command again"):
        results.merge(jobs[:1])


def test_results_without_a_hash_are_taken_and_said(results: ResultsStore, jobs: list[Job], tmp_path: Path) -> None:
    finish(results, jobs[0])
    path = tmp_path / "jobs" / f"{jobs[0].key}.json"
    record = json.loads(path.read_text())
    old = {name: value for name, value in record.items() if "sha256" not in name} | {"schema": 1}
    path.write_text(json.dumps(old))
    found = ResultsStore(open_storage(tmp_path)).find([jobs[0].key])
    assert found.done == found.unsealed == {jobs[0].key}
    (tmp_path / "jobs" / f"{jobs[0].key}.parquet").write_bytes(b"PAR1" + bytes(record["bytes"] - 8) + b"PAR1")
    with pytest.raises(EmergenceError, match=r"is damaged; delete it with its record"):
        ResultsStore(open_storage(tmp_path)).merge(jobs[:1])
