"""How sweeps scale: workers, overhead, resuming, memory, and a cluster of 64 GPUs that are only declared.

    python benchmarks/sweep.py resume            10,000 planned jobs, 9,900 of them done
    python benchmarks/sweep.py memory            the driver's memory for 500 and for 5,000 jobs
    python benchmarks/sweep.py workers           two workers against one, and one against no Ray at all
    python benchmarks/sweep.py cluster           200 models x 20 corpora on 64 declared GPUs, jobs shortened to 5 s
    python benchmarks/sweep.py fleet             1,000 models x 20 corpora on 64 GPUs, on paper
    python benchmarks/sweep.py calibrate RESULTS speeds of this machine, for proxy/sweeps/plan.py, from a finished sweep

Ratios are of runs side by side on this machine; `workers` wants two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd
from sweep_driver import memory, resume

from proxy.sweeps import cluster as on_ray
from proxy.sweeps import plan
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.placement import GIB, Demand, Node, demand
from proxy.sweeps.run import sweep
from proxy.sweeps.slots import Event
from proxy.sweeps.store.results import to_parquet
from proxy.sweeps.worker import Worker


def workers() -> None:
    """Time the same jobs with two workers, with one, and one after another without Ray."""
    config = parse_config(
        {
            "name": "workers",
            "models": ["gpt2-2m", "gemma-2m"],
            "corpora": [
                {"source": source, "windows": windows}
                for source, windows in (("animal", 5000), ("color", 5000), ("country", 5000), ("python-docs", 5000))
            ],
        }
    )
    jobs = make_jobs(config)
    worker = Worker()
    worker.run(jobs[0])  # imports and caches, for all alike
    began = time.perf_counter()
    lengths = [worker.run(job).record["seconds"] for job in jobs]
    plain = time.perf_counter() - began
    print(f"{len(jobs)} jobs of {min(lengths):.0f} to {max(lengths):.0f} s, one after another: {plain:.1f} s")
    spans = {}
    for count in (1, 2):
        times: list[float] = []

        def watch(event: Event, times: list[float] = times) -> None:
            if event.kind in ("start", "done"):
                times.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            sweep(config.model_copy(update={"workers": count}), folder, on_event=watch)
            whole = time.perf_counter() - began
        spans[count] = times[-1] - times[0]
        start = times[0] - began
        print(f"{count} workers: first job after {start:.1f} s, then {spans[count]:.1f} s, {whole:.1f} s in all")
    print(f"two workers against one: {spans[1] / spans[2]:.2f} times the jobs per minute")
    print(f"one worker on Ray against none: {100 * (spans[1] / plain - 1):+.1f} % (imports included, about 3 s)")


class Shortened(Worker):
    """Sleeps instead of measuring; `queries` is a job's length in thousandths of a second."""

    def _measure(self, job: Job, record: dict[str, Any]) -> tuple[bytes, None]:
        time.sleep(job.measurement.queries / 1000)
        # Nothing from the modules beside this script: Ray sends this class to workers that cannot import them.
        row = {"model": job.model_name, "corpus": job.corpus_name, "layer": 0, "position": 1, "resolution": 0.1}
        return to_parquet(pd.DataFrame([row | {"ie_bits": 1.0}])), None


def cluster(count: int = 200, length: float = 5.0) -> None:
    """Run 20 jobs of `length` seconds for each of `count` models on 8 declared nodes of 8 GPUs."""
    from ray.cluster_utils import Cluster as Machines

    models = [{"id": f"nobody/model-{number}-1b"} for number in range(count)]
    corpora = [{"source": "animal", "windows": 2 + number} for number in range(20)]
    options = {"measurement": {"queries": int(1000 * length)}, "resources": {"gpus": 1, "memory_gb": 0.1}}
    config = parse_config({"name": "cluster", "models": models, "corpora": corpora, **options})
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(8):
        machines.add_node(num_cpus=8, num_gpus=8, memory=8 * GIB, object_store_memory=80 * 2**20)
    starts: list[float] = []
    try:
        with tempfile.TemporaryDirectory() as folder:

            def watch(event: Event) -> None:
                if event.kind == "start":
                    starts.append(time.perf_counter())

            began = time.perf_counter()
            result = sweep(config, folder, cluster=on_ray.Cluster(machines.address, worker=Shortened), on_event=watch)
            whole = time.perf_counter() - began
    finally:
        machines.shutdown()
    ideal = len(result.done) * length / 64
    print(f"{len(result.done)} jobs of {length} s on 64 declared GPUs: {whole:.0f} s, ideal {ideal:.0f} s")
    print(f"first job after {starts[0] - began:.0f} s, 64 started after {starts[:64][-1] - began:.0f} s")


SIZES = {7e7: 250, 4.1e8: 250, 1.4e9: 200, 2.8e9: 150, 6.9e9: 120, 12e9: 30}  # parameters: models
PRICE = 0.80  # USD per hour of one L4 in a machine of its own, about the list price of several clouds


def fleet() -> None:
    """Plan 1,000 models of mixed size on 20 corpora of 20,000 windows each, on 8 machines of 8 L4s."""
    nodes = {f"node-{number}": Node(Demand(8.0, 512 * GIB, 64), gpu_gb=23) for number in range(8)}
    rows, loads = [], []
    for parameters, count in SIZES.items():
        config = parse_config(
            {
                "name": "fleet",
                "models": [{"id": "some/model", "parameters": int(parameters)}],
                "corpora": [{"source": "animal", "windows": 20_000}],
            }
        )
        job = make_jobs(config)[0]
        wanted = demand(job.model, config.resources, list(nodes.values()))
        seconds, load = plan.job_seconds(job, wanted), plan.load_seconds(job, wanted)
        loads += [(wanted, 20 * seconds + load)] * count
        rows.append(
            {
                "parameters": f"{parameters:.1e}",
                "models": count,
                "gpus each": wanted.gpus,
                "seconds per job": seconds,
                "seconds to load": load,
                "gpu hours": count * (20 * seconds + load) * wanted.gpus / 3600,
                "GB of weights": count * parameters * 2 / 1e9,
            }
        )
    table = pd.DataFrame(rows)
    most, whole = plan.simulate(loads, nodes)
    hours = table["gpu hours"].sum()
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    print(f"{hours:.0f} GPU hours; {whole / 3600:.2f} h on 64 GPUs (ideal {hours / 64:.2f} h), {most} workers at most")
    print(f"20,000 jobs: {20_000 / whole:.1f} per second; {table['GB of weights'].sum() / 1000:.1f} TB of weights")
    print(f"about {64 * whole / 3600 * PRICE:.0f} USD at {PRICE} USD per GPU hour")


def calibrate(results: Path) -> None:
    """Fit the speeds in proxy/sweeps/plan.py to the records of a sweep on CPU."""
    rows = []
    for path in sorted((results / "jobs").glob("*.json")):
        record = json.loads(path.read_text())
        if record["status"] == "done":
            config = record["config"]
            jobs = make_jobs(
                parse_config(
                    {"name": "t", "models": [config["model"]], "corpora": [config["corpus"]]}
                    | {"measurement": config["measurement"], "seed": config["seed"]}
                )
            )
            estimate = plan.job_seconds(jobs[0], Demand(0, 0, 1))
            rows.append({"job": jobs[0].label, "seconds": record["seconds"], "estimate": estimate})
    frame = pd.DataFrame(rows)
    frame["ratio"] = frame["seconds"] / frame["estimate"]
    print(frame.to_string(index=False))
    print(f"all: {frame['seconds'].sum() / frame['estimate'].sum():.2f} times the estimate")


def main() -> None:
    """Run the benchmark that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices: dict[str, Callable[..., None]] = {
        "resume": resume,
        "memory": memory,
        "workers": workers,
        "cluster": cluster,
        "fleet": fleet,
        "calibrate": calibrate,
    }
    parser.add_argument("what", choices=choices)
    parser.add_argument("results", nargs="?", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "calibrate":
        calibrate(arguments.results)
    else:
        choices[arguments.what]()


if __name__ == "__main__":
    main()
