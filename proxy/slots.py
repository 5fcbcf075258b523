"""What the driver of a sweep keeps track of: groups of jobs, the workers they go to, and what happens to them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.jobs import Job
from proxy.placement import Demand


@dataclass(frozen=True)
class Event:
    """Something a person watching may want to see.

    Attributes:
        kind: what happened to the job; `elsewhere`: another driver works on it, `steps`: it goes on.
        job: the job.
        detail: why it failed or is done again; empty otherwise.
        seconds: how long the job took, once it is over.
        steps: steps done and in all of a job that goes on.
    """

    kind: Literal["redo", "start", "steps", "done", "retry", "fail", "elsewhere"]
    job: Job
    detail: str = ""
    seconds: float | None = None
    steps: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class Group:
    """Jobs that one loading of a model serves, and what a worker for them needs."""

    jobs: deque[Job]
    demand: Demand


@dataclass(eq=False)
class Slot:
    """One worker, from asking the cluster for it until it ends."""

    handle: Any
    demand: Demand
    node: str | None
    waiting_on: Any
    group: Group | None = None
    job: Job | None = None
    steps: Any = None
    started: float = field(default_factory=time.monotonic)


def suits(group: Group, slot: Slot) -> bool:
    """Whether a worker should take a group: it fits, and does not leave most of the worker's GPUs idle."""
    return group.demand.fits(slot.demand) and 2 * group.demand.gpus >= slot.demand.gpus
