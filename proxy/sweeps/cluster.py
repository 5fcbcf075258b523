"""The only module that calls Ray: a cluster to join or start, and workers on it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from estimators.base import EmergenceError, InputError
from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import GPU_MEMORY_GB, UNKNOWN_GPU_GB, Demand, Node
from proxy.sweeps.worker import Worker

OBJECT_STORE_BYTES = 128 * 2**20  # only jobs and their small tables pass through it
ANSWER_SECONDS = 5.0
RAY_SHARE = 0.9  # of the available memory that Ray lends to workers, the rest is for objects and itself
KIND = "accelerator_type:"  # begins the resource by which a node names its kind of GPU
WATCH = "watch"  # concurrency group in which a worker answers while it is at a job
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs keep the user's variables
    "RAY_DEDUP_LOGS": "0",
    "RAY_SCHEDULER_EVENTS": "0",
}


def this_machine() -> Node:
    """Return what a cluster started here would have."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count()
    gpu_gb = torch.cuda.get_device_properties(0).total_memory / 2**30 if gpus else UNKNOWN_GPU_GB
    return Node(Demand(float(gpus), int(psutil.virtual_memory().available * RAY_SHARE), cores), gpu_gb)


class Cluster:
    """A running Ray cluster; a local one starts and ends with this context.

    Args:
        address: of a cluster to join (`auto`: one that runs on this machine); None starts one here.
        worker: the class whose instances do the jobs.
        on_dashboard: called with the address of the dashboard, if there is one.
    """

    def __init__(
        self,
        address: str | None = None,
        worker: type[Worker] = Worker,
        on_dashboard: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self.worker = worker
        self.on_dashboard = on_dashboard

    def __enter__(self) -> Cluster:
        """Join or start the cluster.

        Raises:
            InputError: if the address does not answer.
            EmergenceError: if Ray cannot start here.
        """
        if self.address is not None:
            _check_address(self.address)
        os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
        import ray

        self._ray = ray
        on_main_thread = threading.current_thread() is threading.main_thread()
        terminate = signal.getsignal(signal.SIGTERM)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = self._start() if self.address is None else self._join(self.address)
        if on_main_thread:
            signal.signal(signal.SIGTERM, terminate)  # Ray put one there that aborts with a stack trace
        if self.on_dashboard is not None and context.dashboard_url:
            self.on_dashboard(context.dashboard_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; a local one ends with all its processes."""
        self._ray.shutdown()

    def _join(self, address: str) -> Any:
        try:
            return self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise InputError(
                f"No Ray cluster answers at {address}: {reason}; start one with `ray start --head`, "
                "or leave --address out to run on this machine."
            ) from error

    def _start(self) -> Any:
        """Start a cluster here; on a busy machine Ray's own 15 s for its agents can be too few (ray#65983)."""
        tries = 3
        while True:
            tries -= 1
            try:
                return self._ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as error:  # Ray raises a bare one here
                self._ray.shutdown()
                if not tries:
                    reason = str(error).split("\n")[0]
                    raise EmergenceError(f"Ray could not start on this machine: {reason}") from error

    def nodes(self) -> dict[str, Node]:
        """Return the living nodes by id."""
        found = {}
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                kinds = [name.removeprefix(KIND) for name in has if name.startswith(KIND)]
                gpu_gb = max((GPU_MEMORY_GB.get(kind, UNKNOWN_GPU_GB) for kind in kinds), default=UNKNOWN_GPU_GB)
                total = Demand(has.get("GPU", 0.0), int(has.get("memory", 0)), int(has.get("CPU", 0)))
                found[node["NodeID"]] = Node(total, gpu_gb)
        return found

    def start_worker(self, demand: Demand) -> Any:
        """Ask for a worker that holds `demand`; Ray places it when there is room."""
        remote = self._ray.remote(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            memory=demand.memory,
            max_restarts=0,  # the driver starts another and decides what it does
            max_task_retries=0,
            concurrency_groups={WATCH: 1},
        )
        return remote(self.worker).remote(threads=demand.cpus, gpus=demand.gpus)

    def where(self, handle: Any) -> Any:
        """Ask a worker where it runs; the answer comes when it has started."""
        return handle.where.remote()

    def run(self, handle: Any, job: Job) -> Any:
        """Give a worker a job."""
        return handle.run.remote(job)

    def steps(self, handle: Any) -> Any:
        """Ask a worker how far it is, beside its job."""
        return handle.steps.options(concurrency_group=WATCH).remote()

    def stop_worker(self, handle: Any) -> None:
        """End a worker now."""
        self._ray.kill(handle)

    def wait(self, references: Sequence[Any], timeout: float) -> list[Any]:
        """Return those of `references` that are ready, waiting at most `timeout` seconds for the first."""
        return list(self._ray.wait(list(references), num_returns=1, timeout=timeout)[0])

    def get(self, reference: Any) -> Any:
        """Return the value of a ready reference.

        Raises:
            WorkerLostError: if the worker that should have made it is gone.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip()
            memory = isinstance(error, self._ray.exceptions.OutOfMemoryError) or "OOM" in reason
            raise WorkerLostError(reason, memory=memory) from error


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would try for minutes.

    Raises:
        InputError: if it is no host:port, or does not answer.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError(
            f"--address is `auto` or HOST:PORT of a Ray cluster, got {address}; from outside the cluster, "
            "use `ray job submit`."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"No Ray cluster answers at {address}: {error}; start one with `ray start --head`, "
            "or leave --address out to run on this machine."
        ) from error


class WorkerLostError(Exception):
    """A worker died, was killed for memory, or its node went.

    Attributes:
        memory: whether it was killed for taking too much memory.
    """

    def __init__(self, reason: str, *, memory: bool = False) -> None:
        super().__init__(reason)
        self.memory = memory
