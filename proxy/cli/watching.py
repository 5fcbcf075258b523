"""What a person sees of a running sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.cli.console import screen

if TYPE_CHECKING:
    from proxy.sweep import Event


class Watch:
    """Shows the jobs at work, how many are over, the rate, the time left and what failed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        self.over = 0
        self.total = 0
        self.began = time.monotonic()
        self.first: int | None = None
        self._bars: Progress | None = None
        self._jobs: dict[str, object] = {}

    def __enter__(self) -> Watch:
        """Start drawing, on a terminal."""
        if screen.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[note]}", markup=False),
                console=screen,
            )
            self._bars.start()
            self._overall = self._bars.add_task(f"{self.name}: starting", total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self._bars is not None:
            self._bars.stop()

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` jobs are over."""
        if self.first is None:
            self.first, self.began = done, time.monotonic()
        self.over, self.total = done, total
        if self._bars is not None:
            self._bars.update(self._overall, description=self.name, completed=done, total=total, note=self._note())

    def event(self, event: Event) -> None:
        """Show one event."""
        job = event.job
        if event.kind == "fail":
            self.failures += 1
        text = {
            "redo": f"again: {job.label}: {event.detail}",
            "retry": f"again: {job.label}: {event.detail}",
            "fail": f"failed: {job.label} ({job.key}): {event.detail}",
        }.get(event.kind)
        if text is None and event.kind == "done" and not screen.is_terminal:
            text = f"{self.over + 1}/{self.total} {job.label}: {event.seconds:.1f} s; {self._note()}"
        if text is not None:
            screen.print(text, markup=False, highlight=False, soft_wrap=True)

    def _note(self) -> str:
        """Return rate and failures."""
        finished = self.over - (self.first or 0)
        minutes = (time.monotonic() - self.began) / 60
        rate = f"{finished / minutes:.1f} jobs/min" if finished and minutes > 0 else "starting"
        return rate + (f", {self.failures} failed" if self.failures else "")
