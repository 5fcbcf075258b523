"""What a sweep would do, what it needs and how long it takes, worked out without starting anything."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from estimators.contracts.cells import counted
from extraction.corpora.spec import Workload, resolve_corpus
from extraction.states.budget import PILOT_WINDOWS, state_bytes
from proxy.measurement.costs import DEFAULT_FLOPS, LOGIT
from proxy.measurement.names import PREDICTIVE_WINDOWS, estimator_names, is_output
from proxy.sweeps.cluster import Cluster, this_machine
from proxy.sweeps.config import SweepConfig
from proxy.sweeps.jobs import Job, make_jobs, out_of_reach
from proxy.sweeps.placement import Demand, Node, demand, misfits, place, weights_gb
from proxy.sweeps.sizes import Shape, count_parameters, shape
from proxy.sweeps.store.results import Found, ResultsStore
from proxy.sweeps.store.storage import open_storage

if TYPE_CHECKING:
    import pandas as pd

# Speeds of one core, measured on the bundled models (`python benchmarks/sweep.py calibrate`). Those of a GPU are
# assumptions for one like an L4 until a sweep on GPUs has left records, which then take their place.
START_SECONDS = 6.0  # of a worker, with the import of torch and transformers
LOAD_SECONDS = 1.0
LOAD_GB_PER_SECOND = 0.5
CORE_FLOPS = 4e10
VOCABULARY = 50_000  # of a model of which only the size is known
GPU_FLOPS = 5e13
CORE_SCORES = 7e8  # of query x reference x resolution per second, with the matrix products they need
GPU_SCORES = 1e10


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    Attributes:
        models: one row per model: model, version, parameters, jobs, done, gpus, memory_gb, minutes (of all its missing
            jobs), fits.
        jobs: number of jobs.
        done: of them, those that have a result.
        rejected: those with a result that cannot be used.
        workers: workers that run at once at most.
        seconds: estimate of the time until the end.
        measured: whether the estimate is scaled by jobs done before.
        remarks: what a person should know before starting.
        absent: hub models that this machine cannot load, for which a sweep on it would refuse to start.
    """

    models: pd.DataFrame
    jobs: int
    done: int
    rejected: int
    workers: int
    seconds: float
    measured: bool
    remarks: tuple[str, ...]
    absent: tuple[str, ...] = ()


def plan(config: SweepConfig, results: str | PathLike[str], *, address: str | None = None) -> Plan:
    """Plan a sweep on the cluster at `address`, or on this machine; nothing is written.

    Raises:
        InputError: if a model or corpus does not exist, or the address does not answer.
    """
    import pandas as pd

    remarks: list[str] = []
    jobs = make_jobs(config, remarks.append)
    found = ResultsStore(open_storage(results, writable=False)).find(job.key for job in jobs)
    if address is None:
        nodes = {"this machine": this_machine()}
    else:
        with Cluster(address) as cluster:
            nodes = cluster.nodes()
    factor = _measured_factor(config, jobs, list(nodes.values()), found)
    rows, loads = [], []
    for _, run in itertools.groupby(jobs, key=lambda job: job.load_key):
        members = list(run)
        first = members[0]
        peaks = found.peaks.get(first.model_name)
        wanted = demand(first.model, config.resources, list(nodes.values()), peaks, twin=first.controls)
        missing = [job for job in members if job.key not in found.done]
        seconds = factor * sum(job_seconds(job, wanted) for job in missing) + load_seconds(first, wanted)
        fits = not misfits(wanted, list(nodes.values()))
        if missing and fits:
            loads.append((wanted, seconds))
        rows.append(
            {
                "model": first.model_name,
                "version": (first.model_version or "not reachable")[:13],
                "parameters": count_parameters(first.model),
                "jobs": len(members),
                "done": len(members) - len(missing),
                "cpus": wanted.cpus,
                "gpus": wanted.gpus,
                "memory_gb": wanted.memory / 2**30,
                "minutes": seconds / 60 if missing else 0.0,
                "fits": "yes" if fits else "NO",
            }
        )
    workers, makespan = simulate(loads, nodes, config.workers)
    models = pd.DataFrame(rows).astype({"parameters": "Int64"})
    return Plan(
        models=models,
        jobs=len(jobs),
        done=len(found.done),
        rejected=len(found.rejected),
        workers=workers,
        seconds=makespan,
        measured=bool(found.seconds),
        remarks=(*remarks, *_remarks(models), *_spills([job for job in jobs if job.key not in found.done])),
        absent=tuple(out_of_reach(jobs)) if address is None else (),
    )


def _remarks(models: pd.DataFrame) -> list[str]:
    remarks = []
    large = models.loc[models["fits"] == "NO", "model"]
    if len(large):
        remarks.append(f"No node has room for {', '.join(large)}: the sweep will refuse to start.")
    unknown = models.loc[models["parameters"].isna(), "model"]
    if len(unknown):
        remarks.append(f"Size unknown, memory is a guess: {', '.join(unknown)}; set 'parameters'.")
    away = models.loc[models["version"] == "not reachable", "model"]
    if len(away):
        remarks.append(
            f"{counted(len(away), 'model')} could not be looked up on the hub; what changed there is not in this plan."
        )
    return remarks


def _spills(jobs: Sequence[Job]) -> list[str]:
    """Say what the largest job will spill to disk, and which jobs would need more than they may."""
    spilled = [(size, job) for job in jobs if (size := spilled_gb(job))]
    if not spilled:
        return []
    largest, most = max(spilled, key=lambda found: found[0])
    remarks = [
        f"{len(spilled)} of {len(jobs)} jobs spill states to {most.resources.spill_dir or 'the temporary folder'} of "
        f"their node while they run, at most about {largest:.1f} GB each ({most.label})."
    ]
    over = [(size, job) for size, job in spilled if size > job.resources.budget.spill_gb]
    if over:
        needed, first = max(over, key=lambda found: found[0])
        remarks.append(
            f"{len(over)} of them may need more than the spill_gb they are allowed and would fail, such as "
            f"{first.label}; set spill_gb: {math.ceil(needed)} under resources, or raise states_gb."
        )
    return remarks


def spilled_gb(job: Job) -> float:
    """Estimate the states in GB that a job spills to disk, as `extraction.spilled_bytes`; 0 where memory holds them."""
    size, settings = shape(job.model), job.measurement
    work = workload(job)
    narrow = min(settings.project or size.width, size.width)
    names, budget = estimator_names(settings.estimator), job.resources.budget
    sizes = [
        state_bytes(size.blocks, size.width, min(work.windows, PREDICTIVE_WINDOWS), work.tokens, work.distinct)
        if name == "predictive"
        else state_bytes(size.blocks + (name != "sample-propagation"), narrow, *work)  # others see what enters block 0
        for name in names
        if not is_output(name)  # keeps no states of its own
    ]
    together = "sample-propagation" in names and any(map(is_output, names))
    if together and "predictive" not in names:  # one pass for both, if what it keeps has room
        whole = state_bytes(size.blocks, size.width, *work)
        sizes += [whole] if budget.spilled(whole) <= budget.spill_gb * 1e9 else []
    return max(map(budget.spilled, sizes), default=0) / 1e9


def load_seconds(job: Job, wanted: Demand) -> float:
    """Estimate how long a worker takes to load a job's model."""
    return LOAD_SECONDS + weights_gb(job.model, on_gpu=bool(wanted.gpus)) / LOAD_GB_PER_SECOND


def workload(job: Job) -> Workload:
    """Return windows, tokens of a window and distinct tokens: of lists as they are, of text at most."""
    corpus = job.corpus
    return resolve_corpus(corpus.source).workload(corpus.windows, corpus.tokens, corpus.demonstration)


def job_seconds(job: Job, wanted: Demand) -> float:
    """Estimate how long a job takes once its model is loaded: running the model, then comparing all states.

    With controls it does so three times: for the model, for shuffled windows and for the twin.
    """
    size = shape(job.model)
    parameters = count_parameters(job.model) or 12 * size.blocks * size.width**2
    work = workload(job)
    names = estimator_names(job.measurement.estimator)
    resolutions = len(job.measurement.resolutions) or int(names != ["predictive"])
    flops, scores = (
        (GPU_FLOPS * wanted.gpus, GPU_SCORES * wanted.gpus)
        if wanted.gpus
        else (CORE_FLOPS * wanted.cpus, CORE_SCORES * wanted.cpus)
    )
    lenses = 0.0
    if "predictive" in names:
        lenses = _lens_flops(size, parameters, work)
        names = [name for name in names if name != "sample-propagation" and not is_output(name)]  # of the same pass
    passes = len(names) * work.windows + min(work.windows, PILOT_WINDOWS) * (names != ["predictive"])
    run_tokens = passes * work.tokens + len(names) * work.distinct
    pairs = size.blocks * work.tokens * work.windows * min(work.windows, job.measurement.queries)
    once = (2 * parameters * run_tokens + lenses) / flops + pairs * resolutions / scores
    return (3 if job.controls else 1) * once


def _lens_flops(size: Shape, parameters: int, work: Workload) -> float:
    """Estimate what the predictive observer costs beside running the model; its heads read most of it."""
    vocabulary = min(VOCABULARY, parameters // (2 * size.width))
    windows = min(work.windows, PREDICTIVE_WINDOWS)
    rows = windows + 500 * (work.tokens - 1) + 2 * work.distinct
    sums = 6 * size.width**2 * windows * work.tokens
    return float(min(DEFAULT_FLOPS, size.blocks * (rows * vocabulary * (2 * size.width + LOGIT) + sums)))


def _measured_factor(config: SweepConfig, jobs: Sequence[Job], nodes: Sequence[Node], found: Found) -> float:
    """Return how much longer the done jobs took than estimated; 1 without any."""
    done = [job for job in jobs if job.key in found.seconds]
    estimated = sum(
        job_seconds(job, demand(job.model, config.resources, nodes, found.peaks.get(job.model_name), twin=job.controls))
        for job in done
    )
    return sum(found.seconds[job.key] for job in done) / estimated if estimated else 1.0


def simulate(
    loads: Sequence[tuple[Demand, float]], nodes: Mapping[str, Node], limit: int | None = None
) -> tuple[int, float]:
    """Place loads (demand, seconds) on nodes as the driver does, the largest first.

    Returns:
        How many workers ran at once at most, and the seconds until the last one ended.
    """
    rooms = {name: node.total for name, node in nodes.items()}
    waiting = sorted(loads, key=lambda load: load[0], reverse=True)
    running: list[tuple[float, int, str, Demand]] = []
    now, most, count = 0.0, 0, itertools.count()
    while waiting or running:
        left = []
        for wanted, seconds in waiting:
            node = None if limit is not None and len(running) >= limit else place(wanted, rooms)
            if node is None:
                left.append((wanted, seconds))
                continue
            rooms[node] = rooms[node].without(wanted)
            start = START_SECONDS if now == 0 else 0.0
            heapq.heappush(running, (now + start + seconds, next(count), node, wanted))
        most = max(most, len(running))
        if not running:  # what is left fits nowhere
            break
        now, _, node, freed = heapq.heappop(running)
        rooms[node] = Demand(
            rooms[node].gpus + freed.gpus, rooms[node].memory + freed.memory, rooms[node].cpus + freed.cpus
        )
        waiting = left
    return most, now
