"""What a sweep costs its driver, in time and memory, on a cluster whose jobs are over at once. Part of sweep.py."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from proxy.sweeps import cluster as on_ray
from proxy.sweeps.config import SweepConfig, parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.placement import GIB, Demand, Node
from proxy.sweeps.run import sweep
from proxy.sweeps.slots import Event
from proxy.sweeps.store.results import ResultsStore, to_parquet
from proxy.sweeps.store.storage import open_storage
from proxy.sweeps.worker import Outcome, record_of

MODELS = [f"{family}-{size}" for family in ("gpt2", "gemma") for size in ("30k", "90k", "280k", "750k", "2m")]


def many(jobs: int, folder: Path) -> SweepConfig:
    """A config of `jobs` jobs: the bundled models on as many small texts, written to `folder`, as it takes."""
    corpora = [folder / f"text-{number:05d}.txt" for number in range(jobs // len(MODELS))]
    for number, path in enumerate(corpora):
        path.write_text(f"Text number {number}. " * 20)
    return parse_config({"name": "many", "models": MODELS, "corpora": [str(path) for path in corpora]})


def finished(job: Job) -> Outcome:
    """What a worker would hand back, with a table of usual size."""
    return Outcome(
        to_parquet(_rows().assign(model=job.model_name, corpus=job.corpus_name)), record_of(job) | {"seconds": 1.0}
    )


@cache
def _rows() -> pd.DataFrame:
    rows = [
        {"layer": layer, "position": position, "resolution": level / 10, "ie_bits": layer + position / level}
        for layer in range(8)
        for position in range(1, 11)
        for level in range(1, 8)
    ]
    return pd.DataFrame(rows)


class Instant(on_ray.Cluster):
    """A cluster whose jobs are over as soon as they are given: what is left is the driver's own work."""

    def __enter__(self) -> Instant:
        """Start nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """End nothing."""

    def nodes(self) -> dict[str, Node]:
        """Two cores."""
        return {"one": Node(Demand(0, 64 * GIB, 2))}

    def start_worker(self, demand: Demand) -> Any:
        """A worker that is nothing."""
        return object()

    def stop_worker(self, handle: Any) -> None:
        """Nothing to stop."""

    def where(self, handle: Any) -> Any:
        """At once."""
        return _Answer({"node": "one"})

    def run(self, handle: Any, job: Job) -> Any:
        """Over at once."""
        return _Answer(job)

    def steps(self, handle: Any) -> Any:
        """Always at the end."""
        return _Answer((1, 1))

    def wait(self, references: Sequence[Any], timeout: float) -> list[Any]:
        """All are ready."""
        return list(references)

    def get(self, reference: Any) -> Any:
        """The answer; of a job, its outcome."""
        return finished(reference.value) if isinstance(reference.value, Job) else reference.value


@dataclass(eq=False)
class _Answer:
    value: Any


def resume() -> None:
    """Time a second run that finds 9,900 of 10,000 jobs done."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as texts:
        config = many(10_000, Path(texts))
        results = ResultsStore(open_storage(folder))
        jobs = make_jobs(config)
        for job in jobs[:9_900]:
            done = finished(job)
            results.write_done(job.key, done.table or b"", done.record)
        began, cpu = time.perf_counter(), time.process_time()
        first: list[float] = []

        def watch(event: Event) -> None:
            if event.kind == "start" and not first:
                first.extend((time.perf_counter() - began, time.process_time() - cpu))

        outcome = sweep(config, folder, cluster=Instant(), on_event=watch)
        whole, whole_cpu = time.perf_counter() - began, time.process_time() - cpu
        print(f"10,000 jobs, 9,900 done: the first missing one starts after {first[0]:.1f} s ({first[1]:.1f} s CPU);")
        print(f"all {len(outcome.done)} done and merged after {whole:.1f} s ({whole_cpu:.1f} s CPU)")


def memory() -> None:
    """Compare the driver's memory for few and for many jobs, each in a fresh process: at its first job, at its end."""
    peaks = {}
    for jobs in (200, 500, 5_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            first, last, peaks[jobs], seconds = pool.apply(_drive, (jobs,))
            pool.close()
            pool.join()
        print(
            f"{jobs} jobs: {first:.0f} MB at the first job, {last:.0f} MB at the end, peak {peaks[jobs]:.0f} MB, "
            f"{jobs / seconds:.0f} jobs per second through the driver"
        )
    few, *_, more = peaks.values()
    print(f"growth per 1,000 jobs: {(more - few) / 4.8:.1f} MB")


def _drive(jobs: int) -> tuple[float, float, float, float]:
    """Memory when the first job starts, at the end and at most (MB), and the seconds that the sweep took."""
    first: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "start" and not first:
            first.append(_resident())

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as texts:
        config = many(jobs, Path(texts))
        began = time.perf_counter()
        result = sweep(config, folder, cluster=Instant(), on_event=watch)
        assert len(result.done) == jobs  # noqa: S101
        took = time.perf_counter() - began
        return first[0], _resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, took


def _resident() -> float:
    """What this process holds in memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
