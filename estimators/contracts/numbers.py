"""Numbers given by people, in options and files: finite, in range, and refused by the name they were given under."""

from __future__ import annotations

import math
from typing import Any

from estimators.base import InputError

LARGEST = 2**63 - 1  # what tables and random generators hold
LARGEST_SEED = 2**32 - 1  # what every library's random generator takes


def number(
    value: Any,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> float:
    """Return `value` as a number.

    Args:
        value: a number, or a text that holds one. True and False are no numbers.
        name: what the user calls it, e.g. ``--timeout`` or ``prices.json: input``.
        least: smallest that is taken.
        most: largest that is taken.
        above: like `least`, itself excluded.
        below: like `most`, itself excluded.
        whole: take whole numbers alone.

    Returns:
        The number, an int if `whole`.

    Raises:
        InputError: naming `name`, what is taken and what was given.

    >>> number("2.5", "--timeout", above=0)
    2.5
    >>> number("nan", "--timeout", above=0)
    Traceback (most recent call last):
    estimators.base.InputError: --timeout takes a number above 0, got nan.
    """
    refused = InputError(f"{name} takes {_asked(least, most, above, below, whole)}, got {_shown(value)}.")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused
    try:
        read: float = int(value) if whole and isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        raise refused from None
    inside = (
        math.isfinite(read)
        and (least is None or read >= least)
        and (most is None or read <= most)
        and (above is None or read > above)
        and (below is None or read < below)
    )
    if not inside or (whole and read != int(read)):
        raise refused
    return int(value) if whole else read


def _asked(least: float | None, most: float | None, above: float | None, below: float | None, whole: bool) -> str:
    kind = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        return f"{kind} from {_plain(least)} to {_plain(most)}"
    if above is not None and below is not None:
        return f"{kind} between {_plain(above)} and {_plain(below)}"
    words = [
        f"{word} {_plain(bound)}"
        for word, bound in (("of at least", least), ("above", above), ("up to", most), ("below", below))
        if bound is not None
    ]
    return " ".join([kind if words or whole else "a finite number", " and ".join(words)]).strip()


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) and not value.strip() else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
