"""What answers cost and how much they may: the running bill, its limits, and the prices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.base import EmergenceError, InputError
from estimators.contracts.files import check_file
from estimators.contracts.numbers import number

LARGEST_TABLE = 10_000_000  # bytes of a price table


class BudgetSpentError(EmergenceError):
    """The next answer could cost more than is left."""


@dataclass(slots=True)
class Budget:
    """Prices, limits and the running bill of answers.

    Attributes:
        input_price: of a million prompt tokens, in the user's currency; None where unknown.
        output_price: of a million answer tokens.
        max_cost: spending limit.
        max_total_tokens: limit on prompt and answer tokens together.
        prompt_tokens: billed in this run.
        completion_tokens: billed in this run.
        calls: made in this run, or submitted in a batch.
        earlier: prompt and answer tokens billed by earlier runs into the same log, or reserved for pending batches;
            they count against the limits.

    Raises:
        InputError: if a number is negative or not finite, or a limit on cost has no prices.

    Example:
        >>> Budget(input_price=2.5, output_price=10.0, max_cost=1.0).cost(1_000_000, 100_000)
        3.5
    """

    input_price: float | None = None
    output_price: float | None = None
    max_cost: float | None = None
    max_total_tokens: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    earlier: tuple[int, int] = (0, 0)
    _held: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuse prices and limits that are no numbers from 0 up, and a limit in money without prices."""
        for name in ("input_price", "output_price", "max_cost", "max_total_tokens"):
            value = getattr(self, name)
            if value is not None:  # NaN would switch a limit off
                number(value, name, least=0)
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
        """Whether nothing is reserved, so that no call is in flight."""
        return self._held == (0, 0)

    def hold(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Reserve the most that one call can cost, so that calls in flight cannot exceed the limit.

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
        self.calls += 1

    def _already(self) -> str:
        return f", of which earlier runs took {sum(self.earlier)} tokens" if any(self.earlier) else ""

    def settle(self, held: tuple[int, int], billed: tuple[int | None, int | None]) -> tuple[int, int]:
        """Replace the reservation by what the call cost, or keep it as the cost if the server does not say.

        Returns:
            The prompt and answer tokens billed.
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


class TwiceError(Exception):
    """A name that one object of JSON gives twice."""


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def read_prices(path: Path, model: str) -> tuple[float, float]:
    """Input and output price of a million tokens from a JSON file `{"model": {"input": 2.5, "output": 10}}`.

    Raises:
        InputError: if the file cannot be read or does not hold the model, or a price is no number from 0 up.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "prices.json"
        >>> path.write_text('{"m": {"input": 2.5, "output": 10}}') > 0
        True
        >>> read_prices(path, "m")
        (2.5, 10.0)
    """
    check_file(path, most_bytes=LARGEST_TABLE)
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_named_once)
        entry = table[model]
        found = entry["input"], entry["output"]
    except FileNotFoundError as error:
        raise InputError(f"No price table at {path}; check the path.") from error
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]} for {model}; add it, or leave --prices out.") from error
    except TwiceError as error:
        raise InputError(f"{path} gives {error.args[0]} twice, so that its price is unclear; remove one.") from None
    except (OSError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise InputError(
            f'{path} is not a price table, such as {{"{model}": {{"input": 2.5, "output": 10}}}} per million tokens.'
        ) from error
    return number(found[0], f"{path}: input", least=0), number(found[1], f"{path}: output", least=0)
