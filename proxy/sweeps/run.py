"""Measuring many models on many corpora with workers on a Ray cluster; what is done is never done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from estimators.base import EmergenceError, Progress
from proxy.sweeps.cluster import Cluster
from proxy.sweeps.config import SweepConfig
from proxy.sweeps.driver import Driver
from proxy.sweeps.jobs import make_jobs, out_of_reach, require_reachable
from proxy.sweeps.slots import Event
from proxy.sweeps.store.claims import Claims
from proxy.sweeps.store.provenance import header
from proxy.sweeps.store.results import OTHER_VERSION, ResultsStore
from proxy.sweeps.store.storage import open_storage

if TYPE_CHECKING:
    import pandas as pd

UNSEALED_RESULTS = (
    "{count} results in {results} were written by an earlier version, without a hash, and are taken as they are: "
    "damage to them would not be seen. To have them measured again, delete their records, jobs/*.json."
)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left behind.

    Attributes:
        done: keys of all jobs with a result, earlier ones included.
        failed: records of the jobs without one.
        results: the results folder.
        rows: of the merged table.
    """

    done: tuple[str, ...]
    failed: tuple[dict[str, Any], ...]
    results: ResultsStore
    rows: int

    @property
    def table(self) -> pd.DataFrame:
        """The emergence table of all done jobs, read from the results folder."""
        return self.results.emergence()


def sweep(
    config: SweepConfig,
    results: str | PathLike[str],
    *,
    address: str | None = None,
    progress: Progress | None = None,
    on_event: Callable[[Event], None] | None = None,
    cluster: Cluster | None = None,
) -> SweepResult:
    """Measure all models of `config` on all its corpora, and write results as they arrive.

    Args:
        config: see `proxy.sweeps.config.load_config`.
        results: folder or fsspec URL; jobs it already holds are not done again.
        address: Ray cluster to join; None starts one on this machine for the time of the call.
        progress: called with the number of jobs that are over.
        on_event: called with every event.
        cluster: instead of `address`, your own cluster object.

    Returns:
        Which jobs have a result, and the records of those that failed.

    Raises:
        InputError: if a model or corpus does not exist, results cannot be written, the address does not answer, or
            a model needs more than any node has.
        EmergenceError: if storage or cluster fail for longer than retries last; what is done is kept.

    >>> from proxy.sweeps.config import parse_config
    >>> text = {"name": "small", "models": ["gpt2-30k"], "corpora": [{"source": "animal", "windows": 200}]}
    >>> found = sweep(parse_config(text, "small"), scratch / "small")  # starts Ray on this machine, and ends it
    >>> len(found.done), found.failed, len(found.table) == found.rows
    (1, (), True)
    """
    remarks: list[str] = []
    jobs = make_jobs(config, remarks.append)
    running = cluster or Cluster(address)
    if running.address is None:  # workers elsewhere may have in their cache what this machine lacks
        require_reachable(out_of_reach(jobs))
    store = ResultsStore(open_storage(results))
    notify = on_event or (lambda event: None)
    failed: list[dict[str, Any]] = []
    try:
        for remark in remarks:
            notify(Event("note", jobs[0], remark))
        found = store.find(job.key for job in jobs)
        for job in jobs:
            if job.key in found.rejected:
                notify(Event("redo", job, found.rejected[job.key]))
        unsealed = [job for job in jobs if job.key in found.unsealed]
        if unsealed:
            notify(Event("note", unsealed[0], UNSEALED_RESULTS.format(count=len(unsealed), results=results)))
        store.write_header(header(config.name, config.model_dump(mode="json"), [job.key for job in jobs], config.seed))
        missing = [job for job in jobs if job.key not in found.done]
        recorded = store.recorded() if missing else set()
        for job in missing:
            if job.key not in found.rejected and not recorded.isdisjoint(job.earlier_keys):
                notify(Event("redo", job, OTHER_VERSION))
        over = len(jobs) - len(missing)
        if progress is not None:
            progress(over, len(jobs))
        if missing:
            claims = Claims(store.storage)
            with running:
                driver = Driver(config, missing, running, store, claims, found, notify)
                driver.refuse_what_cannot_fit()
                for _ in driver.run():
                    over += 1
                    if progress is not None:
                        progress(over, len(jobs))
                failed = driver.failed
            claims.clear_dead()
            store.storage.tidy()
        lost = {record["key"] for record in failed}
        done = [job for job in jobs if job.key not in lost]
        rows = store.merge(done)
    except OSError as error:
        raise EmergenceError(
            f"Results could not be kept in {results}: {error}; what was written is whole, run the same command again."
        ) from error
    return SweepResult(tuple(job.key for job in done), tuple(failed), store, rows)
