"""A tracker that keeps everything in memory, for tests of what is tracked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracking.mlflow.tracker import DataSource, Known, Point


@dataclass
class MemoryRun:
    """A run of `MemoryTracker`."""

    name: str
    sweep: str
    parent: str | None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    sources: set[DataSource] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    digest: str | None = None
    failed: bool | None = None


class MemoryTracker:
    """A `Tracker` that keeps everything in `runs`, by run id."""

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
        sources: Sequence[DataSource] = (),
        at: int = 0,
    ) -> None:
        """Add to a run."""
        run = self.runs[run_id]
        run.params = {**(params or {}), **run.params}
        run.tags |= tags or {}
        run.points |= set(points)
        run.sources |= set(sources)

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
