"""How fast to ask: calls in flight that follow the server's headers and complaints, and the pauses between attempts."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from estimators.base import EmergenceError
from extraction.answers.collecting.waiting import allowances

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_WAIT_S = 120.0  # longer ones end the run with the time to run it again
REPLIES_REMEMBERED = 200
REPLIES_FOR_MEDIAN = 5  # before there are so many, a usual reply is unknown
REPLIES_FOR_SLOWEST = 20
LENT_MEDIANS = 4.0
LENT_LEAST_S = 1.0
LENT_UNKNOWN_S = 10.0
LATE_SLOWEST = 10.0
LATE_LEAST_S = 15.0


class ServerBusyError(EmergenceError):
    """The server asks for a longer pause than a run should sit through."""


class Pace:
    """How many calls may be in flight, and when the next may begin: less when the server complains, more as it answers.

    A call that no reply comes to would hold its place until its time limit, so that nothing else moves once complaints
    have brought the pace down to one call at a time. Therefore:

    - a place held for longer than 4 times the median of the last 200 replies, and at least 1 s (10 s before there are
      5 replies), is lent to another call; at most `concurrency` places are lent at a time, and the call that holds the
      place goes on, so that no answer is asked for twice;
    - once there are 20 replies, the time limit of a call is 10 times the slowest of the last 200, at least 15 s and at
      most the user's; calls in flight at that moment are held to it as well. It is doubled each time that the same
      call comes to it, and a call's last attempt has all of the user's limit, so that an answer that takes long is had
      in the end.

    Args:
        concurrency: most calls in flight, lent places aside.

    Attributes:
        limit: calls in flight allowed now, lent places aside.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.limit = float(concurrency)
        self._resume = 0.0  # when a pause is over
        self._began: dict[object, float] = {}  # of each call in flight, the oldest first
        self._took: deque[float] = deque(maxlen=REPLIES_REMEMBERED)
        self._usual: float | None = None  # median of those
        self._complaints = 0  # in a row: since the last answer
        self._unlimited: dict[asyncio.Timeout, tuple[float, float, int]] = {}  # begun before 20 replies were known
        self._line = asyncio.Lock()
        self._changed = asyncio.Condition()  # a place is free again, or the run is over
        self._halted = False

    async def halt(self) -> None:
        """Let no call wait any longer: the run is over."""
        self._halted = True
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more call may be made, and count it as in flight."""
        place = object()
        async with self._line, self._changed:  # first come, first served; the first alone looks at the clock
            while (wait_s := self._wait_s()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                        await self._changed.wait()
            self._began[place] = time.monotonic()
        try:
            yield
        finally:
            del self._began[place]
            async with self._changed:
                self._changed.notify()

    def _wait_s(self) -> float:
        """Seconds until the next call may begin, if nothing changes before: 0 for now, infinity for never."""
        if self._halted:
            return 0.0
        now = time.monotonic()
        if now < self._resume:
            return self._resume - now
        patience = self._patience_s()
        lent, next_lent = 0, math.inf
        for began in self._began.values():
            if began + patience > now:
                next_lent = began + patience - now
                break
            lent += 1
        if len(self._began) - min(lent, self.concurrency) < max(1, int(self.limit)):
            return 0.0
        return next_lent if lent < self.concurrency else math.inf

    def _patience_s(self) -> float:
        """How long a call may hold its place before that is lent."""
        return LENT_UNKNOWN_S if self._usual is None else max(LENT_LEAST_S, LENT_MEDIANS * self._usual)

    @asynccontextmanager
    async def deadline(self, timeout_s: float, late: int, *, last: bool) -> AsyncIterator[asyncio.Timeout]:
        """Hold what is inside to the time limit of a call.

        Args:
            timeout_s: the user's limit.
            late: how often this call has reached its limit.
            last: whether this is its last attempt.

        Raises:
            TimeoutError: at that time.
        """
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(self._limit_s(timeout_s, late, last=last)) as limit:
            if not last and len(self._took) < REPLIES_FOR_SLOWEST:
                self._unlimited[limit] = began, timeout_s, late
            try:
                yield limit
            finally:
                self._unlimited.pop(limit, None)

    def _limit_s(self, timeout_s: float, late: int, *, last: bool) -> float:
        """Time limit of one call, in seconds."""
        if last or len(self._took) < REPLIES_FOR_SLOWEST:
            return timeout_s
        return min(timeout_s, max(LATE_LEAST_S, LATE_SLOWEST * max(self._took)) * 2.0**late)

    def answered(self, headers: Mapping[str, str], tokens: int = 0, took_s: float | None = None) -> None:
        """Go a little faster; pause when the headers say that the allowance is all but used up.

        Args:
            headers: of the reply.
            tokens: most that a call like this one takes from the server's allowance.
            took_s: seconds from request to reply.
        """
        self._complaints = 0
        if took_s is not None:
            self._took.append(took_s)
            if len(self._took) >= REPLIES_FOR_MEDIAN:
                self._usual = statistics.median(self._took)
            if len(self._took) >= REPLIES_FOR_SLOWEST:
                while self._unlimited:
                    limit, (began, timeout_s, late) = self._unlimited.popitem()
                    limit.reschedule(began + self._limit_s(timeout_s, late, last=False))
        if self.limit < self.concurrency:
            self.limit = min(float(self.concurrency), self.limit + 1 / self.limit)
        for kind, (left, pause) in allowances(headers).items():
            one = 1 if kind == "requests" else tokens
            # What is in flight beside this call may not be counted yet, and is answered from the same allowance.
            if left is None or pause is None or left > one * max(0, len(self._began) - 1):
                continue
            if pause <= LONGEST_WAIT_S:
                self._resume = max(self._resume, time.monotonic() + pause)
            else:  # until all of it is back; some is back before: go on, one call at a time
                self.limit = 1.0

    def complained(self, wait_s: float | None) -> None:
        """Go at half the pace, after a pause of all calls: the one that the server asks for, if it asks for one.

        Else a server that answers others in between gets a short pause, however often this one call was refused, and
        one that only complains gets twice the last one.

        Raises:
            ServerBusyError: if that pause is longer than two minutes.
        """
        if wait_s is not None and wait_s > LONGEST_WAIT_S:
            raise ServerBusyError(
                f"The server asks for a pause of {min(wait_s, 9_999_999):.0f} s; run the same command again after that."
            )
        now = time.monotonic()
        if now >= self._resume:  # many calls in flight complain of one and the same moment
            self.limit = max(1.0, self.limit / 2)
            self._complaints += 1
        self._resume = max(self._resume, now + (delay(self._complaints - 1) if wait_s is None else wait_s))


def delay(attempt: int) -> float:
    """Seconds before attempt `attempt` + 1: doubled each time, jittered so that workers do not retry together.

    Example:
        >>> 1.0 <= delay(2) <= 2.0
        True
    """
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)
