"""No command is silent for long: after seconds without output, a line on stderr says what is being done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SILENCE_S = 4.0  # without output, at most


@dataclass(frozen=True, eq=False)
class Doing:
    """One thing that is being done.

    Attributes:
        say: returns how far it is, in words.
        animated: whether the screen moves by itself meanwhile, as a bar or a spinner does.
        since: when it began, as `time.monotonic` gives it.
    """

    say: Callable[[], str]
    animated: bool = False
    since: float = field(default_factory=time.monotonic)


_doing: list[Doing] = []  # the innermost last
_said = _ended = time.monotonic()  # when something was said, and when the last thing that was named ended


def spoken() -> None:
    """Note that something was said just now."""
    global _said
    _said = time.monotonic()


@contextmanager
def doing(say: str | Callable[[], str], *, animated: bool = False) -> Iterator[None]:
    """Name what is done inside, for a line when nothing is said for long, and for Ctrl-C."""
    global _ended
    one = Doing(say if callable(say) else lambda: say, animated)
    _doing.append(one)
    try:
        yield
    finally:
        _doing.remove(one)
        _ended = time.monotonic()


def now() -> str:
    """Return what is being done, in words.

    >>> with doing("Loading gpt2"):
    ...     now()
    'Loading gpt2'
    >>> now()
    'Working'
    """
    return _doing[-1].say() if _doing else "Loading libraries" if _importing() else "Working"


def _importing() -> bool:
    """Whether the main thread is at an import, which takes seconds before the first step of a command is named."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def beating(print_line: Callable[[str], None]) -> Iterator[None]:
    """While inside, print what is being done and for how long whenever nothing was said for `SILENCE_S`."""
    spoken()
    began, over = time.monotonic(), threading.Event()

    def beat() -> None:
        while not over.wait(SILENCE_S / 8):
            current = _doing[-1] if _doing else Doing(now, since=max(began, _ended))
            if current.animated or time.monotonic() - _said < SILENCE_S:
                continue
            spoken()
            print_line(f"{current.say()} ({time.monotonic() - current.since:.0f} s so far)")

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
