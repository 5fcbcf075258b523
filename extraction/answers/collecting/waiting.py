"""How long a server asks a client to wait, in any header and form in use."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

RETRY_AFTER = (
    ("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0), ("x-retry-after", 1.0),
    ("x-ratelimit-retry-after", 1.0), ("x-rate-limit-retry-after", 1.0),
)  # fmt: skip
# Of allowances, whatever they are of: x-ratelimit-reset-requests, anthropic-ratelimit-tokens-reset, ratelimit-reset,
# x-ratelimit-reset-tokens-minute, x-rate-limit-reset-after, ratelimitbysize-reset, ...
RESET = re.compile(r"(?=.*(?:rate-?limit|quota|throttl)).*\bresets?(?:-?(?:at|in|on))?\b", re.IGNORECASE)
MILLISECONDS = re.compile(r"-(?:ms|milli(?:second)?s)$", re.IGNORECASE)  # at the end of such a name
# ``RateLimit: limit=10, remaining=0, reset=2`` and ``RateLimit: "burst";r=0;t=2, "day";r=9;t=80000`` of IETF's drafts
DRAFT = re.compile(r"\b(remaining|reset|r|t)=(\d+)")
# A number this large is a moment since 1970, not a pause: a billion seconds are 32 years.
MOMENTS = ((1e18, 1e-9), (1e15, 1e-6), (1e12, 1e-3), (1e9, 1.0))
UNITS = {
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **{"us": 1e-6, "µs": 1e-6, "ns": 1e-9},
}


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refusal asks for by ``retry-after`` or by the reset of an allowance, None if none can be read.

    Example:
        >>> seconds_to_wait({"retry-after": "20"})
        20.0
        >>> seconds_to_wait({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"})
        360.0
    """
    now = _clock(headers)
    for name, unit in RETRY_AFTER:
        wait = seconds(headers.get(name, ""), now, unit)
        if wait is not None:
            return wait
    # Without it, the allowance that is used up says when it is back.
    resets = [(left, wait) for _, left, wait in _resets(headers, now)]
    empty = [wait for left, wait in resets if left == 0 and wait is not None]
    return max(empty or [wait for _, wait in resets if wait is not None], default=None)


def allowances(headers: Mapping[str, str]) -> dict[str, tuple[float | None, float | None]]:
    """What is left of the server's allowances of requests and of tokens, and the seconds until they are back.

    Of several of a kind, such as those of a minute and of a day, the one of which least is left.

    Example:
        >>> allowances({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "2s"})["requests"]
        (3.0, 2.0)
    """
    now = _clock(headers)
    found: dict[str, tuple[float | None, float | None]] = {"requests": (None, None), "tokens": (None, None)}
    for name, left, wait in _resets(headers, now):
        kind = "tokens" if "token" in name else "requests"
        known = found[kind][0]
        if left is not None and wait is not None and (known is None or left < known):
            found[kind] = left, wait
    return found


def _resets(headers: Mapping[str, str], now: float) -> Iterator[tuple[str, float | None, float | None]]:
    """The header of each allowance that says when it is back, what is left of it, and in how many seconds that is."""
    for name, text in headers.items():
        if RESET.match(name):
            left = re.sub(r"resets?(-after|-?at|-?in|-?on)?", "remaining", name, flags=re.IGNORECASE)
            unit = 1e-3 if MILLISECONDS.search(name) else 1.0
            yield name.lower(), number(headers.get(MILLISECONDS.sub("", left))), seconds(text, now, unit)
        elif name.lower() == "ratelimit":
            for policy in text.split(",") if ";" in text else [text]:
                said: dict[str, str] = dict(DRAFT.findall(policy))
                remaining, reset = said.get("remaining") or said.get("r"), said.get("reset") or said.get("t") or ""
                yield name.lower(), number(remaining), seconds(reset, now)


def seconds(text: str, now: float | None = None, unit: float = 1.0) -> float | None:
    """Seconds until what a header says: a number of `unit` seconds, a duration, a moment since 1970, or a date.

    Args:
        text: of the header.
        now: seconds since 1970 by the clock that the moment is held against; by default this machine's.
        unit: of a plain number, in seconds.

    Returns:
        Never less than 0; None if the text says nothing of the kind.

    Example:
        >>> seconds("6m0s"), seconds("20ms"), seconds("1.5"), seconds("soon")
        (360.0, 0.02, 1.5, None)
        >>> seconds("1700000002", now=1700000000.0), seconds("1700000002500", now=1700000000.0)
        (2.0, 2.5)
        >>> seconds("Tue, 14 Nov 2023 22:13:22 GMT", now=1700000000.0)
        2.0
        >>> seconds("2023-11-14T22:13:22Z", now=1700000000.0)
        2.0
    """
    now = time.time() if now is None else now
    text = re.split("[,;]", text)[0] if re.match(r"[\s\"]*[0-9.]+[\s\"]*[,;]", text) else text
    text = text.strip().strip('"')
    value = number(text)
    if value is not None:
        scale = next((scale for least, scale in MOMENTS if value >= least), None)
        return max(0.0, value * unit if scale is None else value * scale - now)
    if clock := re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d(?:\.\d+)?)", text):
        return float(clock[1] or 0) * 3600 + float(clock[2]) * 60 + float(clock[3])
    if re.match(r"P[0-9T]", text):  # ISO 8601's durations
        text = text[1:].replace("T", "").lower()
    found = re.findall(rf"([0-9]*\.?[0-9]+)\s*({'|'.join(sorted(UNITS, key=len, reverse=True))})", text)
    if found and "".join(amount + name for amount, name in found) == re.sub(r"\s", "", text):
        return sum(float(amount) * UNITS[name] for amount, name in found)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def number(text: str | None) -> float | None:
    """A finite number from 0 up, or None.

    Example:
        >>> number("0.5"), number("nan"), number(None)
        (0.5, None, None)
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _clock(headers: Mapping[str, str]) -> float:
    """Now by the server's own clock, where it says so: a moment is meant by that clock."""
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, IndexError):
        return time.time()
