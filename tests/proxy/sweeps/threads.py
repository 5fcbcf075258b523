"""A cluster whose workers are threads, for tests of what the driver decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd

from proxy.sweeps.cluster import Cluster
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import GIB, Demand, Node
from proxy.sweeps.run import SweepResult, sweep
from proxy.sweeps.slots import Event
from proxy.sweeps.store.results import to_parquet
from proxy.sweeps.worker import Outcome, Trouble, record_of

TWO_CORES = {"one": Node(Demand(0, 16 * GIB, 2))}


def finished(job: Job) -> Outcome:
    row = {"model": job.model_name, "corpus": job.corpus_name, "layer": 0, "position": 1, "resolution": 0.18}
    return Outcome(to_parquet(pd.DataFrame([{**row, "ie_bits": 1.0}])), record_of(job) | {"seconds": 0.1})


def broken(job: Job, trouble: Trouble = None) -> Outcome:
    record = record_of(job) | {"error_type": "ValueError", "error": "broken", "traceback": "...", "seconds": 0.1}
    return Outcome(None, record, trouble)


class Threads(Cluster):
    """Workers that are threads of this process and do what `act` says; the rest is the real driver's."""

    def __init__(self, act: Callable[[Job], Outcome], nodes: dict[str, Node] | None = None) -> None:
        super().__init__()
        self.act = act
        self.rooms = TWO_CORES if nodes is None else nodes
        self.pool = ThreadPoolExecutor(16)
        self.demands: list[Demand] = []
        self.stopped: list[int] = []
        self.runs: list[str] = []
        self._numbers = itertools.count()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def nodes(self) -> dict[str, Node]:
        return self.rooms

    def start_worker(self, demand: Demand) -> int:
        self.demands.append(demand)
        return next(self._numbers)

    def where(self, handle: Any) -> Future[Any]:
        return self.pool.submit(lambda: {"node": "one"})

    def run(self, handle: Any, job: Job) -> Future[Any]:
        self.runs.append(job.label)
        return self.pool.submit(self.act, job)

    def steps(self, handle: Any) -> Future[Any]:
        return self.pool.submit(lambda: (1, 2))

    def stop_worker(self, handle: Any) -> None:
        self.stopped.append(handle)

    def wait(self, references: Sequence[Any], timeout: float) -> list[Any]:
        return list(wait(references, timeout, return_when=FIRST_COMPLETED).done)

    def get(self, reference: Any) -> Any:
        return reference.result()


def config(**change: Any) -> Any:
    return parse_config({"name": "t", "models": ["gpt2-30k", "gpt2-90k"], "corpora": ["animal", "color"], **change})


def run(folder: Path, cluster: Threads, **change: Any) -> tuple[SweepResult, list[Event]]:
    events: list[Event] = []
    result = sweep(config(**change), folder, cluster=cluster, on_event=events.append)
    return result, events
