"""What a person sees of a running sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from proxy.cli.console import screen
from proxy.cli.pulse import doing

if TYPE_CHECKING:
    from proxy.sweeps.slots import Event

SHOWN = 4  # running jobs that a line names
SPEED_OVER = 7 * 86_400.0  # seconds: Rich forgets after 30 by default, before a second job is over


class Watch:
    """Shows the jobs at work, how many are over, the rate, the time left and what failed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._over = self._total = self._failures = 0
        self._first: int | None = None
        self._began = time.monotonic()
        self._jobs: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        self._running: dict[str, str] = {}  # by key of a job, how far it is
        self._shares: dict[str, float] = {}  # of running jobs that are done
        self._measuring = False
        self._stopping = False
        self._open = ExitStack()

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
                speed_estimate_period=SPEED_OVER,
            )
            self._bars.start()
            self._overall = self._bars.add_task(self.name, total=None, note="starting")
        else:
            self._say(f"{self.name}: looking up models and corpora, then starting workers")
        self._open.enter_context(doing(self._now, animated=self._bars is not None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._open.close()
        if self._bars is not None:
            for task in self._jobs.values():
                self._bars.remove_task(task)
            self._bars.stop()

    def stop(self, where: str, again: str) -> str:
        """Say what a stop leaves: what is finished, what is not, and the command that continues."""
        self._stopping = True
        running = ", ".join(list(self._running.values())[:SHOWN])
        unfinished = f" Not finished: {running}." if running else ""
        if not self._total:
            return f"Nothing is measured yet; start again with: {again}"
        done = f"{self._over} of {self._total} jobs are finished and kept in {where}"
        return f"{done}.{unfinished} Continue with: {again}"

    def dashboard(self, address: str) -> None:
        """Show where Ray's dashboard is."""
        self._say(f"Ray dashboard: http://{address}")

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` jobs are over."""
        if self._first is None:
            self._first, self._began = done, time.monotonic()
            if done:
                self._say(f"{done} of {total} jobs are done already")
        self._over, self._total = done, total
        if self._bars is not None:
            self._bars.update(self._overall, completed=done, total=total, note=self._note())

    def event(self, event: Event) -> None:
        """Show one event."""
        job = event.job
        if event.kind == "fail":
            self._failures += 1
        if event.kind in ("redo", "retry"):
            self._say(f"Again: {job.label}: {event.detail}")
        elif event.kind == "fail":
            self._say(f"Failed: {job.label} ({job.key}): {event.detail}")
        elif event.kind == "note":
            self._say(f"Note: {event.detail}")
        elif event.kind == "elsewhere":
            self._say(f"Another driver works on {job.label}")
        elif event.kind == "waiting":
            self._say(f"Waiting: {job.label}: {event.detail}")
        elif event.kind == "done" and self._bars is None:
            count = f"{self._over + 1}/{self._total}"
            self._say(f"{count} {job.label}: {event.seconds:.1f} s{self._left()}")
        if event.kind == "done" and event.detail:
            self._say(f"Note: {job.label}: {event.detail}")
        if event.kind == "start":
            self._running[job.key] = f"{job.label}: loading"
            if not self._measuring:  # what workers took to start says nothing of how long jobs take
                self._measuring, self._began = True, time.monotonic()
        elif event.kind == "steps" and event.steps[1] and job.key in self._running:
            self._shares[job.key] = event.steps[0] / event.steps[1]
            self._running[job.key] = f"{job.label}: {self._shares[job.key]:.0%}"
        elif event.kind in ("done", "retry", "fail"):
            self._running.pop(job.key, None)
            self._shares.pop(job.key, None)
        if self._bars is not None:
            self._draw(self._bars, event)

    def _now(self) -> str:
        """Report progress."""
        if self._stopping:
            return "Stopping the workers"
        running = "; ".join(list(self._running.values())[:SHOWN])
        if self._over and self._over == self._total:
            return f"{self.name}: merging the results"
        return f"{self.name}: {self._over} of {self._total or 'all'} jobs finished; {running or 'starting workers'}"

    def _draw(self, bars: Progress, event: Event) -> None:
        key = event.job.key
        if event.kind == "start":
            self._jobs[key] = bars.add_task(f"  {event.job.label}", total=None, note="")
        elif event.kind == "steps" and key in self._jobs and event.steps[1]:
            bars.update(self._jobs[key], completed=event.steps[0], total=event.steps[1])
        elif event.kind in ("done", "retry", "fail") and key in self._jobs:
            bars.remove_task(self._jobs.pop(key))

    def _say(self, line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    def _rate(self) -> float:
        """Return jobs per minute since the first began, with the shares that are done of running ones."""
        minutes = (time.monotonic() - self._began) / 60
        done = self._over - (self._first or 0)
        return (done + sum(self._shares.values())) / minutes if done and minutes > 0 else 0.0

    def _note(self) -> str:
        rate = self._rate()
        failures = f", {self._failures} failed" if self._failures else ""
        return (f"{rate:.1f} jobs/min" if rate else "starting") + failures

    def _left(self) -> str:
        """Return the rate and the time left in words, once a job has shown it."""
        rate = self._rate()
        left = self._total - self._over - 1 - sum(self._shares.values())
        return f"; {rate:.1f} jobs/min, about {duration(60 * left / rate)} left" if rate and left > 0 else ""


def duration(seconds: float) -> str:
    """Return a time span in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
