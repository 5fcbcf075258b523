"""Attention sinks: positions whose states are far larger than the others', and say little about their token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FACTOR = 5.0  # of the model's other positions; in 12 models without a sink the largest was 1.5, with one 7 to 165


@dataclass(frozen=True, eq=False)
class Sinks:
    """How large states are, beside those of a position as they mostly are.

    The median norm of a position's states over the windows is compared with the (lower) median of these over all
    positions; that of the tokens run alone too. A position whose ratio is above `FACTOR` is a sink.

    Attributes:
        positions: (blocks, T) ratio at each position.
        alone: (blocks,) ratio of the tokens run alone.

    >>> norms = torch.tensor([[[90.0, 110.0], [1.0, 3.0], [2.0, 2.0]]])  # of a block: 3 positions, 2 windows
    >>> sinks = sinks_of(norms, torch.tensor([[150.0]]))
    >>> sinks.positions.tolist(), sinks.alone.tolist()
    ([[45.0, 0.5, 1.0]], [75.0])
    >>> sinks.at(0, 1), sinks.at(0, 2)  # a row at any position holds tokens run alone
    (True, True)
    """

    positions: Tensor
    alone: Tensor

    def at(self, block: int, position: int) -> bool:
        """Whether the row of a block and position (from 1) is computed from sinks: there, or among lone tokens."""
        return bool(self.positions[block, position - 1] > FACTOR) or bool(self.alone[block] > FACTOR)


def sinks_of(macro: Tensor, alone: Tensor) -> Sinks:
    """Compare norms.

    Args:
        macro: (blocks, T, n) norms of states along n windows.
        alone: (blocks, m) norms of the states of m tokens run alone.
    """
    medians = macro.median(dim=2).values  # (blocks, T)
    usual = medians.median(dim=1).values.clamp_min(1e-30)  # (blocks,); of two positions the smaller
    return Sinks(medians / usual[:, None], alone.median(dim=1).values / usual)


class Norms:
    """Norms of states, taken down batch by batch.

    Args:
        first: the point that leaves block 0.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._found: tuple[list[Tensor], list[Tensor]] = [], []

    def add(self, states: list[Tensor], *, alone: bool) -> None:
        """Take down those of `states`, (rows, T, width) at each point."""
        norms = [state.float().norm(dim=-1).cpu() for state in states[self._first :]]  # (rows, T) of each block
        self._found[int(alone)].append(torch.stack(norms))

    def sinks(self) -> Sinks | None:
        """Compare them; None if there are none of windows or of tokens run alone."""
        macro, alone = (torch.cat(found, dim=1) if found else None for found in self._found)  # (blocks, n, T)
        if macro is None or alone is None:
            return None
        return sinks_of(macro.transpose(1, 2), alone[..., 0])
