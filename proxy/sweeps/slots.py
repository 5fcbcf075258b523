"""What the driver of a sweep keeps track of: groups of jobs, the workers they go to, and what happens to them."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import Demand

STARTS = 4  # times in a row that workers may die before one has started
PAUSE = 5.0  # seconds after the first such time; twice as many after each further one


@dataclass(frozen=True)
class Event:
    """Something a person watching may want to see.

    Attributes:
        kind: what happened to the job; `elsewhere`: another driver works on it, `steps`: it goes on, `waiting`: the
            cluster has to grow for it, `note`: something to know of the sweep.
        job: the job.
        detail: why it failed, waits or is done again, or what to know of its result; else empty.
        seconds: how long the job took, once it is over.
        steps: steps done and in all of a job that goes on.
    """

    kind: Literal["redo", "start", "steps", "done", "retry", "fail", "elsewhere", "waiting", "note"]
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


class Due:
    """Says when it is time again for what need not be done at every turn of a loop."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, what: str, pause: float) -> bool:
        """Whether `pause` seconds have passed since it was last time for `what`."""
        now = time.monotonic()
        if now - self._last.get(what, -math.inf) < pause:
            return False
        self._last[what] = now
        return True


class Starts:
    """Counts how often in a row workers died before they took a job, so that they are not replaced for ever.

    Those that were started together count once: a node that goes takes all its workers with it.

    Attributes:
        reason: what the last one died of.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._in_a_row = 0
        self._resume = -math.inf

    def died(self, started: float, reason: str) -> None:
        """Note that a worker asked for at `started` (monotonic) died."""
        self.reason = reason
        if started >= self._resume:
            self._resume = time.monotonic() + PAUSE * 2**self._in_a_row
            self._in_a_row += 1

    def lived(self) -> None:
        """Note that a worker has started."""
        self._in_a_row, self._resume = 0, -math.inf

    @property
    def paused(self) -> bool:
        """Whether to wait before asking for another worker."""
        return time.monotonic() < self._resume

    @property
    def hopeless(self) -> bool:
        """Whether it has happened too often."""
        return self._in_a_row >= STARTS
