"""Measuring many models on many corpora with workers on a Ray cluster; what is done is never done again."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from estimators.base import InputError, Progress
from proxy.cluster import Cluster, WorkerLostError
from proxy.config import SweepConfig
from proxy.jobs import Job, make_jobs
from proxy.placement import Demand, demand, fits_somewhere, place
from proxy.provenance import header
from proxy.results import Results
from proxy.storage import open_storage
from proxy.worker import Outcome

if TYPE_CHECKING:
    import pandas as pd

TICK = 1.0  # seconds between looks at the cluster
HOMELESS = 60.0  # seconds that models wait for a node with room before they are given up


@dataclass(frozen=True)
class Event:
    """Something a person watching may want to see.

    Attributes:
        kind: what happened to the job.
        job: the job.
        detail: the reason of a failure or of doing it again; empty otherwise.
        seconds: how long the job took, once it is over.
    """

    kind: Literal["redo", "start", "done", "retry", "fail"]
    job: Job
    detail: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left behind.

    Attributes:
        done: keys of all jobs with a result, earlier ones included.
        failed: records of the jobs without one.
        results: the results folder.
    """

    done: tuple[str, ...]
    failed: tuple[dict[str, Any], ...]
    results: Results

    @property
    def table(self) -> pd.DataFrame:
        """The emergence table of all done jobs, read from the results folder."""
        return self.results.emergence()


def sweep(
    config: SweepConfig,
    results: Path | str,
    *,
    address: str | None = None,
    progress: Progress | None = None,
    watch: Callable[[Event], None] | None = None,
    cluster: Cluster | None = None,
) -> SweepResult:
    """Measure all models of `config` on all its corpora, and write what is done as it is done.

    Args:
        config: see `proxy.config.load_config`.
        results: folder or fsspec URL; jobs it already holds are not done again.
        address: Ray cluster to join; None starts one on this machine for the time of the call.
        progress: told how many jobs are over.
        watch: told of every event.
        cluster: instead of `address`, a cluster object of your own.

    Returns:
        Which jobs have a result, and the records of those that failed.

    Raises:
        InputError: if a model or corpus does not exist, results cannot be written, the address does not answer, or
            a model needs more than any node has.
    """
    jobs = make_jobs(config)
    store = Results(open_storage(results))
    found = store.find(job.key for job in jobs)
    tell = watch or (lambda event: None)
    for job in jobs:
        if job.key in found.rejected:
            tell(Event("redo", job, found.rejected[job.key]))
    store.write_header(header(config, jobs))
    missing = [job for job in jobs if job.key not in found.done]
    failed: list[dict[str, Any]] = []
    if missing:
        with cluster or Cluster(address) as running:
            driver = Driver(config, missing, running, store, tell)
            driver.refuse_what_cannot_fit()
            over = len(jobs) - len(missing)
            if progress is not None:
                progress(over, len(jobs))
            for _ in driver.run():
                over += 1
                if progress is not None:
                    progress(over, len(jobs))
            failed = driver.failed
    lost = {record["key"] for record in failed}
    done = [job for job in jobs if job.key not in lost]
    store.merge(done)
    return SweepResult(tuple(job.key for job in done), tuple(failed), store)


@dataclass
class Group:
    """Jobs that one loading of a model serves, and what a worker for them needs."""

    jobs: deque[Job]
    demand: Demand


@dataclass
class Slot:
    """One worker, from asking the cluster for it until it ends."""

    handle: Any
    demand: Demand
    node: str
    waiting_on: Any
    group: Group | None = None
    job: Job | None = None
    started: float = field(default_factory=time.monotonic)


class Driver:
    """Keeps as many workers as fit busy until no job is left.

    Large demands come first; a worker takes one group after another and ends when no group fits it.
    """

    def __init__(
        self,
        config: SweepConfig,
        jobs: Sequence[Job],
        cluster: Cluster,
        results: Results,
        tell: Callable[[Event], None],
    ) -> None:
        self.config = config
        self.cluster = cluster
        self.results = results
        self.tell = tell
        self.failed: list[dict[str, Any]] = []
        self.attempts: dict[str, int] = {}
        self.slots: list[Slot] = []
        self.homeless_since: float | None = None
        self.looked = -TICK
        groups = [
            Group(deque(members), demand(members[0].model, config.resources))
            for _, run in itertools.groupby(jobs, key=lambda job: job.load_key)
            for members in [list(run)]
        ]
        self.queue = sorted(groups, key=lambda group: group.demand, reverse=True)  # stable: config order within

    def refuse_what_cannot_fit(self) -> None:
        """Say before starting which models no node has room for.

        Raises:
            InputError: naming the largest of them.
        """
        nodes = list(self.cluster.nodes().values())
        large = [group for group in self.queue if not fits_somewhere(group.demand, nodes)]
        if large and self.config.workers is None:
            names = ", ".join(dict.fromkeys(group.jobs[0].model.id for group in large))
            room = max(nodes, default=Demand(0, 0, 0))
            raise InputError(
                f"No node has room for {names}: {large[0].demand} needed, the largest node has {room}; leave the "
                "model out, set its resources, or join a larger cluster (with 'workers' set, one that grows)."
            )

    def run(self) -> Any:
        """Work until every job is done or failed; yields each job that is over."""
        try:
            while self.queue or any(slot.group for slot in self.slots):
                yield from self._give_up_the_homeless()
                self._grow()
                ready = set(self.cluster.wait([slot.waiting_on for slot in self.slots], TICK)) if self.slots else set()
                if not self.slots:
                    time.sleep(TICK)
                for slot in [slot for slot in self.slots if slot.waiting_on in ready]:
                    yield from self._advance(slot)
        finally:
            for slot in self.slots:
                self.cluster.stop_worker(slot.handle)
            self.slots.clear()

    def _grow(self) -> None:
        """Start workers for waiting groups while there is room, the largest demand first."""
        if not self.queue or time.monotonic() - self.looked < TICK:
            return
        self.looked = time.monotonic()
        rooms = self.cluster.nodes()
        for slot in self.slots:
            if slot.node in rooms:
                rooms[slot.node] = rooms[slot.node].without(slot.demand)
        names = list(rooms)
        starting = sum(slot.group is None for slot in self.slots)
        limit = self.config.workers or len(self.queue) + len(self.slots)
        for group in self.queue[starting:]:
            if len(self.slots) >= limit:
                break
            index = place(group.demand, [rooms[name] for name in names])
            if index is None:
                if self.config.workers is None:
                    continue
                node = ""  # asked for all the same, so that a cluster that can grow does
            else:
                node = names[index]
                rooms[node] = rooms[node].without(group.demand)
            handle = self.cluster.start_worker(group.demand)
            self.slots.append(Slot(handle, group.demand, node, handle.where.remote()))

    def _give_up_the_homeless(self) -> Any:
        """Fail what has waited too long while nothing runs and no node has room."""
        nodes = list(self.cluster.nodes().values()) if not self.slots and self.queue else []
        if not nodes or any(fits_somewhere(group.demand, nodes) for group in self.queue):
            self.homeless_since = None
            return
        self.homeless_since = self.homeless_since or time.monotonic()
        if time.monotonic() - self.homeless_since > HOMELESS:
            for group in self.queue:
                for job in group.jobs:
                    yield self._fail(job, _record(job, "NoRoom", f"no living node has room for {group.demand}"))
            self.queue.clear()

    def _advance(self, slot: Slot) -> Any:
        """Take what a worker has ready and give it the next job."""
        try:
            answer = self.cluster.get(slot.waiting_on)
        except WorkerLostError as error:
            self.slots.remove(slot)
            yield from self._lost(slot, str(error))
            return
        if slot.job is not None:
            yield from self._over(slot, slot.job, answer)
        if slot.group is None or not slot.group.jobs:
            slot.group = next((group for group in self.queue if group.demand.fits(slot.demand)), None)
            if slot.group is None:
                self.slots.remove(slot)
                self.cluster.stop_worker(slot.handle)
                return
            self.queue.remove(slot.group)
        slot.job = slot.group.jobs.popleft()
        slot.started = time.monotonic()
        slot.waiting_on = slot.handle.run.remote(slot.job)
        self.tell(Event("start", slot.job))

    def _over(self, slot: Slot, job: Job, outcome: Outcome) -> Any:
        """Keep a job's result, or try it again, or keep why it failed."""
        slot.job = None
        if outcome.table is not None:
            self.results.write_done(job, outcome.table, outcome.record)
            self.tell(Event("done", job, seconds=outcome.record["seconds"]))
            yield job
        elif outcome.passing and self._again(job, outcome.record["error"]):
            assert slot.group is not None  # noqa: S101  a running job has one
            slot.group.jobs.append(job)
        else:
            yield self._fail(job, outcome.record)

    def _lost(self, slot: Slot, reason: str) -> Any:
        """Give a lost worker's jobs back; the one it was at may have been the cause."""
        group = slot.group
        if group is None:
            return
        job = slot.job
        if job is not None:
            if self._again(job, reason):
                group.jobs.append(job)
            else:
                seconds = round(time.monotonic() - slot.started, 3)
                yield self._fail(job, {**_record(job, "WorkerLost", reason), "seconds": seconds})
        if group.jobs:
            self.queue.insert(0, group)

    def _again(self, job: Job, reason: str) -> bool:
        """Whether `job` may be tried once more."""
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        if self.attempts[job.key] > self.config.retries:
            return False
        self.tell(Event("retry", job, reason.split("\n")[0]))
        return True

    def _fail(self, job: Job, record: dict[str, Any]) -> Job:
        self.results.write_failed(job, record)
        self.failed.append({"key": job.key, **record})
        self.tell(Event("fail", job, record["error"], record.get("seconds")))
        return job


def _record(job: Job, kind: str, reason: str) -> dict[str, Any]:
    """Return the record of a job whose worker could not write one."""
    return {
        "model": job.model_name,
        "revision": job.model.revision,
        "family": None,
        "parameters": job.model.parameters,
        "corpus": job.corpus_name,
        "corpus_hash": None,
        "config": job.settings,
        "windows": None,
        "seconds": None,
        "started": None,
        "host": None,
        "error_type": kind,
        "error": reason.split("\n")[0],
        "traceback": reason,
    }
