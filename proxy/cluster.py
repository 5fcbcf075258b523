"""The one place that speaks to Ray: a cluster to join or start, and workers on it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from estimators.base import InputError
from proxy.placement import Demand
from proxy.worker import Worker

OBJECT_STORE_BYTES = 128 * 2**20  # only jobs and their small tables pass through it
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs keep the user's variables
    "RAY_DEDUP_LOGS": "0",
    "RAY_SCHEDULER_EVENTS": "0",
}


class Cluster:
    """A running Ray cluster; a local one starts and ends with this context.

    Args:
        address: of a cluster to join (`auto`: one that runs on this machine); None starts one here.
        worker: the class whose instances do the jobs.
    """

    def __init__(self, address: str | None = None, worker: type[Worker] = Worker) -> None:
        self.address = address
        self.worker = worker
        self.dashboard: str | None = None

    def __enter__(self) -> Cluster:
        """Join or start the cluster.

        Raises:
            InputError: if the address does not answer.
        """
        os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
        import ray

        self._ray = ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self.address is None:
                    context = ray.init(
                        address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options
                    )
                else:
                    context = ray.init(address=self.address, **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            if self.address is None:
                raise
            reason = str(error).split("\n")[0].rstrip(".")
            raise InputError(
                f"No Ray cluster answers at {self.address}: {reason}; start one with `ray start --head`, "
                "or leave --address out to run on this machine."
            ) from error
        self.dashboard = context.dashboard_url or None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; a local one ends with all its processes."""
        self._ray.shutdown()

    def nodes(self) -> dict[str, Demand]:
        """Return what each living node has in all, by node id."""
        rooms = {}
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                rooms[node["NodeID"]] = Demand(has.get("GPU", 0), int(has.get("memory", 0)), int(has.get("CPU", 0)))
        return rooms

    def start_worker(self, demand: Demand) -> Any:
        """Ask for a worker that holds `demand`; Ray places it when there is room."""
        remote = self._ray.remote(
            num_cpus=demand.cpus, num_gpus=demand.gpus, memory=demand.memory, max_restarts=0, max_task_retries=0
        )
        return remote(self.worker).remote(threads=demand.cpus, gpus=demand.gpus)

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
            raise WorkerLostError(str(error).strip()) from error


class WorkerLostError(Exception):
    """A worker died, was killed for memory, or its node went."""
