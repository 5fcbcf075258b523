"""The seam between results and where they are tracked: one Protocol, and a tracker that keeps all in memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from tracking.results import digest

NOTE = "mlflow.note.content"  # the tag the MLflow UI shows as description


class Point(NamedTuple):
    """One value of a curve: `step` is a block, a position or a size in parameters."""

    key: str
    value: float
    step: int = 0


class Corpus(NamedTuple):
    """A dataset as a tracker names it: what was measured on, and the hash that identifies it."""

    name: str
    digest: str
    source: str
    context: str


class Known(NamedTuple):
    """A run that is already there; `digest` is None while it is incomplete."""

    run_id: str
    digest: str | None


class Tracker(Protocol):
    """Where runs are written to. Only the driver of a sweep holds one.

    Attributes:
        writers: how many threads may write at once, each to runs of its own.
    """

    writers: int

    def known(self, sweep: str) -> dict[str, Known]:
        """Return the runs of the sweep with key `sweep`, by their own key."""

    def start(self, key: str, name: str, *, sweep: str, parent: str | None, started: int) -> str:
        """Open a run called `name` under `parent`, begun at `started` (ms), and return its id."""

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        corpora: Sequence[Corpus] = (),
        at: int = 0,
    ) -> None:
        """Add to a run; `at` (ms) is the time of the points. Parameters it has already keep their values."""

    def drop(self, run_id: str) -> None:
        """Take a run away that another one replaces."""

    def upload(self, run_id: str, folder: Path) -> None:
        """Keep all files of `folder` with the run, in the same layout."""

    def end(self, run_id: str, *, digest: str, failed: bool, ended: int) -> None:
        """Mark the run as complete, last of all: from now on it counts as tracked with `digest`."""


@dataclass
class MemoryRun:
    """A run of `MemoryTracker`."""

    name: str
    sweep: str
    parent: str | None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    corpora: set[Corpus] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    digest: str | None = None
    failed: bool | None = None


class MemoryTracker:
    """A `Tracker` that keeps everything in `runs`, by run id; for tests and dry runs."""

    writers = 1

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}

    def known(self, sweep: str) -> dict[str, Known]:
        """Return the runs of a sweep, by key."""
        prefix = f"{sweep}:"
        return {
            run_id.removeprefix(prefix): Known(run_id, run.digest)
            for run_id, run in self.runs.items()
            if run_id.startswith(prefix)
        }

    def start(self, key: str, name: str, *, sweep: str, parent: str | None, started: int) -> str:
        """Open a run."""
        run_id = f"{sweep}:{key}"
        if run_id in self.runs:
            raise ValueError(f"{run_id} is open already")
        self.runs[run_id] = MemoryRun(name, sweep, parent)
        return run_id

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        corpora: Sequence[Corpus] = (),
        at: int = 0,
    ) -> None:
        """Add to a run."""
        run = self.runs[run_id]
        run.params = {**(params or {}), **run.params}
        run.tags |= tags or {}
        run.points |= set(points)
        run.corpora |= set(corpora)

    def drop(self, run_id: str) -> None:
        """Forget a run."""
        del self.runs[run_id]

    def upload(self, run_id: str, folder: Path) -> None:
        """Note the names of the files."""
        self.runs[run_id].files |= {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}

    def end(self, run_id: str, *, digest: str, failed: bool, ended: int) -> None:
        """Mark the run as complete."""
        self.runs[run_id].digest = digest
        self.runs[run_id].failed = failed


def metric_name(text: str) -> str:
    """Turn any text into a name every tracker takes, different texts into different names.

    >>> metric_name("by_layer/ie_bits"), metric_name("café")
    ('by_layer/ie_bits', 'caf_-850f7dc4')
    """
    # Beyond the characters, MLflow refuses names that are no clean relative path.
    safe = re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)
    safe = "/".join(re.sub(r"^\.+", "_", part) or "_" for part in safe.split("/"))[:200]
    return safe if safe == text else f"{safe}-{digest(text.encode())[:8]}"


def number(value: object) -> float:
    """Turn a table's value into a float, a missing one into NaN."""
    return float("nan") if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]


def finite(points: Iterable[Point]) -> tuple[list[Point], list[str]]:
    """Part the points into those with a finite value and flags that name the others.

    >>> finite([Point("ie", 1.0, 0), Point("ie", float("nan"), 1)])
    ([Point(key='ie', value=1.0, step=0)], ['ie at 1: nan'])
    """
    kept: list[Point] = []
    flags: list[str] = []
    for point in points:
        if math.isfinite(point.value):
            kept.append(point)
        else:
            flags.append(f"{point.key} at {point.step}: {point.value}")
    return kept, flags
