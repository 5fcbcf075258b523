"""Ctrl-C and SIGTERM: every command at once says what is kept and which command continues."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import typer

from estimators.contracts.secrets import masked, printable
from proxy.cli import pulse
from proxy.cli.console import screen

STOPPED = 130  # exit code, as shells give it for Ctrl-C
Command = TypeVar("Command", bound=Callable[..., None])


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


_announced = threading.Event()  # that all has been said of the stop; what it interrupts may raise another exception


def stoppable(command: Command) -> Command:
    """The command, which says what is kept when it is stopped.

    Typer turns a KeyboardInterrupt into a silent exit before the caller of the application sees it, so it is met here.
    A command that knows what is kept says so at once (see `kept`), or, where asyncio has to cancel calls in flight
    first, raises the KeyboardInterrupt again with that sentence.
    """

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        _announced.clear()
        try:
            with pulse.beating(_line), _handling(signal.SIGINT, _interrupt), _handling(signal.SIGTERM, _as_interrupt):
                command(*args, **options)
        except KeyboardInterrupt as stop:
            if _announced.is_set():
                raise typer.Exit(STOPPED) from None
            what = str(stop) or "Finished work is kept"
            screen.print(
                f"Interrupted. {what.rstrip('.')}. To continue: {this_command()}",
                style="yellow", markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise typer.Exit(STOPPED) from None

    return run  # type: ignore[return-value]


@contextmanager
def kept(say: Callable[[], str] | str) -> Iterator[None]:
    """While inside, a stop says this at the very moment, before anything is cleared up; a second stop says nothing.

    Args:
        say: a sentence or two, what is kept so far and the command that continues, or a function that returns them; it
            must be quick and must not wait for what the main thread may hold.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not _announced.is_set():
            _announced.set()
            _write(f"Stopping. {say() if callable(say) else say}")
        raise KeyboardInterrupt

    with _handling(signal.SIGINT, stop):
        yield


def this_command(*, without: Sequence[str] = ()) -> str:
    """Return the running command as it would be typed, secrets of URLs masked.

    Args:
        without: arguments to leave out, each where it stands first.

    Example:
        >>> this_command().startswith("emergence")
        True
    """
    words = sys.argv[1:]
    for word in without:
        if word in words:
            words.remove(word)
    return shlex.join(["emergence", *map(masked, words)])


def _line(text: str) -> None:
    screen.print(text, markup=False, highlight=False, soft_wrap=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Say at once that the stop was heard and what it interrupts; what is kept is known once that has ended."""
    _write(f"Stopping: {pulse.now()}")
    raise KeyboardInterrupt


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does at that moment, which under asyncio is to cancel the calls in flight."""
    interrupt = signal.getsignal(signal.SIGINT)
    if not callable(interrupt):  # ignored, as in what a shell starts with &
        raise _Terminated
    interrupt(number, frame)


@contextmanager
def _handling(sign: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle a signal in this process and its main thread, unless it is ignored."""
    before = signal.getsignal(sign)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield
        return
    mine = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == mine:
            handler(number, frame)
        else:  # a process forked off, such as a worker: end as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(sign, stop)
    try:
        yield
    finally:
        if signal.getsignal(sign) is stop:
            signal.signal(sign, before)


def _write(text: str) -> None:
    """Write past Python's buffers, which the interrupted code may be using."""
    start = "\r\x1b[K" if os.isatty(2) else ""
    try:
        os.write(2, f"{start}{printable(text)}\n".encode("utf-8", "replace"))
    except OSError:
        return  # there is no reader
