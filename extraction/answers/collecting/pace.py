"""How fast to ask, and for how much: concurrency that follows the server's headers, and the bill."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.api import seconds

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_WAIT_S = 120.0  # what asks for more is told to the user, who can come back later


class ServerBusyError(EmergenceError):
    """The server asks for a longer pause than a run should sit through."""


class Pace:
    """Calls in flight and pauses between them: halved when the server complains, raised as it answers.

    Args:
        concurrency: most calls in flight.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.limit = float(concurrency)
        self._resume = 0.0
        self._flying = 0
        self._halted = False

    def halt(self) -> None:
        """Let nobody wait any longer: the run is over."""
        self._halted = True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more call may be made, and count it as in flight."""
        while not self._halted:
            now = time.monotonic()
            if now < self._resume:
                await asyncio.sleep(min(self._resume - now, 1.0))
            elif self._flying >= max(1, int(self.limit)):
                await asyncio.sleep(0.05)
            else:
                break
        self._flying += 1
        try:
            yield
        finally:
            self._flying -= 1

    def answered(self, headers: Mapping[str, str], tokens: int = 0) -> None:
        """Go a little faster; pause when the headers say that the allowance is all but used up.

        Args:
            headers: of the reply.
            tokens: most that a call like this one takes from the server's allowance.
        """
        if self.limit < self.concurrency:
            self.limit = min(float(self.concurrency), self.limit + 1 / self.limit)
        for kind, one in (("requests", 1), ("tokens", tokens)):
            left = _number(headers.get(f"x-ratelimit-remaining-{kind}"))
            # What is in flight beside this call may not be counted yet, and is answered from the same allowance.
            if left is None or left > one * max(0, self._flying - 1):
                continue
            pause = seconds(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if pause is None:
                continue
            if pause <= LONGEST_WAIT_S:
                self._resume = max(self._resume, time.monotonic() + pause)
            else:  # until all of it is back; some is back before: go on, one call at a time
                self.limit = 1.0

    def complained(self, wait_s: float | None, attempt: int) -> None:
        """Go at half the pace, after the pause the server asks for.

        Raises:
            ServerBusyError: if that pause is longer than two minutes.
        """
        if wait_s is not None and wait_s > LONGEST_WAIT_S:
            raise ServerBusyError(
                f"The server asks for a pause of {wait_s:.0f} s; run the same command again after that."
            )
        now = time.monotonic()
        if now >= self._resume:  # many calls in flight complain of one and the same moment
            self.limit = max(1.0, self.limit / 2)
        self._resume = max(self._resume, now + (delay(attempt) if wait_s is None else wait_s))


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def delay(attempt: int) -> float:
    """Seconds before attempt `attempt` + 1: doubled each time, jittered so that workers don't come back together."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)


class BudgetSpentError(EmergenceError):
    """The next answer could cost more than is left."""


@dataclass(slots=True)
class Budget:
    """What answers cost and how much they may; also the running bill.

    Attributes:
        input_price: of a million prompt tokens, in the user's currency; None where unknown.
        output_price: of a million answer tokens.
        max_cost: most that may be spent.
        max_total_tokens: most prompt and answer tokens together.
        prompt_tokens: billed in this run.
        completion_tokens: billed in this run.
        earlier: prompt and answer tokens billed by earlier runs into the same log, or due for batches on their way;
            they count against the limits.
    """

    input_price: float | None = None
    output_price: float | None = None
    max_cost: float | None = None
    max_total_tokens: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    earlier: tuple[int, int] = (0, 0)
    _held: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuse a limit in money without prices."""
        if self.max_cost is not None and (self.input_price is None or self.output_price is None):
            raise InputError("A limit on cost needs prices; give a price table that names the model (--prices).")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Price of that many tokens, None without prices."""
        if self.input_price is None or self.output_price is None:
            return None
        return (self.input_price * prompt_tokens + self.output_price * completion_tokens) / 1e6

    @property
    def spent(self) -> float | None:
        """Cost of this run so far, None without prices."""
        return self.cost(self.prompt_tokens, self.completion_tokens)

    @property
    def idle(self) -> bool:
        """Whether nothing is set aside, so that no call is in flight."""
        return self._held == (0, 0)

    def hold(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Set the most that one call can cost aside, so that calls in flight cannot overrun the limit.

        Raises:
            BudgetSpentError: if it is more than is left.
        """
        most_in = self.earlier[0] + self.prompt_tokens + self._held[0] + prompt_tokens
        most_out = self.earlier[1] + self.completion_tokens + self._held[1] + completion_tokens
        cost = self.cost(most_in, most_out)
        if self.max_total_tokens is not None and most_in + most_out > self.max_total_tokens:
            raise BudgetSpentError(
                f"The next answer could pass the limit of {self.max_total_tokens} tokens{self._already()}."
            )
        if self.max_cost is not None and cost is not None and cost > self.max_cost:
            raise BudgetSpentError(
                f"The next answer could pass the limit of {self.max_cost:g} on the bill{self._already()}."
            )
        self._held = (self._held[0] + prompt_tokens, self._held[1] + completion_tokens)

    def _already(self) -> str:
        return f", of which earlier runs took {sum(self.earlier)} tokens" if any(self.earlier) else ""

    def settle(self, held: tuple[int, int], billed: tuple[int | None, int | None]) -> tuple[int, int]:
        """Replace what was set aside by what the call cost; where the server did not say, by what was set aside.

        Returns:
            The prompt and answer tokens that were put on the bill.
        """
        self._held = (self._held[0] - held[0], self._held[1] - held[1])
        cost = (held[0] if billed[0] is None else billed[0], held[1] if billed[1] is None else billed[1])
        self.prompt_tokens += cost[0]
        self.completion_tokens += cost[1]
        return cost


def prompt_tokens_upper(prompt: str) -> int:
    """More tokens than any common tokenizer makes of `prompt`, with a chat template's own: one per 2 bytes, plus 16.

    Example:
        >>> prompt_tokens_upper("Hello there")
        22
    """
    return (len(prompt.encode()) + 1) // 2 + 16


def read_prices(path: Path, model: str) -> tuple[float, float]:
    """Input and output price of a million tokens from a JSON file `{"model": {"input": 2.5, "output": 10}}`.

    Raises:
        InputError: if the file cannot be read or does not hold the model.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        entry = table[model]
        return float(entry["input"]), float(entry["output"])
    except FileNotFoundError as error:
        raise InputError(f"No price table at {path}; check the path.") from error
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]} for {model}; add it, or leave --prices out.") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f'{path} is no price table, such as {{"{model}": {{"input": 2.5, "output": 10}}}} per million tokens.'
        ) from error
