"""What reading the states of a model costs, and how much of them is read by it; loads no torch."""

from __future__ import annotations

from collections.abc import Callable

DEFAULT_FLOPS = 1.2e13  # of reading by default, beside running the model: of one of 135 M 3 minutes on 2 cores
FULL_FLOPS = 1e14  # of reading in full, at most
LEAST = 600  # windows read at the last position, where there are as many, however expensive each is
# Floating-point operations of a matrix product that take as long as
LOGIT = 600  # a logit, from the exponential on
PAIR = 800  # two states in the mixture of sample propagation, beside their products
LEVEL = 100  # the same at one resolution, from the noise on

Cost = Callable[[tuple[int, ...], int], float]


def plan_reading(cost: Cost, length: int, most: int, *, full: bool = False) -> tuple[tuple[int, ...], int, float]:
    """Choose positions and how many windows are read at the last one: all, unless that costs more than is allowed.

    `DEFAULT_FLOPS` are allowed: else three positions are read, or the last alone, and where that is still too much,
    fewer windows, down to `LEAST`. In full `FULL_FLOPS` are, and every position is read.

    Args:
        cost: of reading positions (ascending, from 1), and so many windows at the last of them.
        length: positions there are, T.
        most: windows there are to read.
        full: read every position.

    Returns:
        The positions, the number of windows, and what they cost.

    >>> def cost(positions, windows):
    ...     return 1e9 * len(positions) * windows
    >>> plan_reading(cost, 8, 1500)[:2], plan_reading(cost, 8, 4000)[:2]
    (((1, 2, 3, 4, 5, 6, 7, 8), 1500), ((1, 4, 8), 4000))
    >>> plan_reading(cost, 8, 10_000)[:2], plan_reading(cost, 8, 14_000)[:2]
    (((8,), 10000), ((8,), 11200))
    >>> plan_reading(cost, 8, 10_000, full=True)[:2]
    ((1, 2, 3, 4, 5, 6, 7, 8), 10000)
    """
    every = tuple(range(1, length + 1))
    three = tuple(sorted({1, (length + 1) // 2, length}))
    allowed = FULL_FLOPS if full else DEFAULT_FLOPS
    for positions in (every,) if full else (every, three, (length,)):
        if (flops := cost(positions, most)) <= allowed:
            return positions, most, flops
    read = most
    while cost(positions, read) > allowed and read > LEAST:
        read = max(LEAST, int(0.8 * read))
    return positions, read, cost(positions, read)
