"""Ctrl-C and SIGTERM: what is kept and the command that goes on are said at once, whatever the command."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import typer

from proxy.cli.console import screen

STOPPED = 130  # exit code, as shells give it for Ctrl-C
Command = TypeVar("Command", bound=Callable[..., None])


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def stoppable(command: Command) -> Command:
    """The command, which says what is kept when it is stopped.

    Typer turns a KeyboardInterrupt into a silent exit before the caller of the application sees it, so it is met here.
    A command that knows what is kept raises the KeyboardInterrupt again with that sentence.
    """

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            with _terminating():
                command(*args, **options)
        except KeyboardInterrupt as stop:
            kept = str(stop) or "What was finished is kept"
            again = shlex.join(["emergence", *sys.argv[1:]])
            screen.print(
                f"Interrupted. {kept.rstrip('.')}. To go on: {again}",
                style="yellow", markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise typer.Exit(STOPPED) from None

    return run  # type: ignore[return-value]


@contextmanager
def _terminating() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does at that moment, which under asyncio is to cancel the calls in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != mine:  # a process forked off, such as a worker: end as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # ignored, as in what a shell starts with &
            raise _Terminated
        interrupt(number, frame)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)
