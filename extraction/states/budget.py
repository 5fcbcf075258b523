"""How much of a model's states is held in memory, and what is spilled to disk: arithmetic, without any state."""

from __future__ import annotations

import os
from dataclasses import dataclass

from estimators.contracts.numbers import number

MOST_GB = 1_000_000_000  # an exabyte; sizes in bytes stay whole numbers of 64 bits
PILOT_WINDOWS = 1024  # windows the statistics come from when there are more; they are run twice if memory is short


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBudget:
    """How many states are held in memory, and where more are spilled.

    Attributes:
        states_gb: bound on the states held in memory at a time, in GB; results of more than half of it are spilled to
            disk.
        spill_dir: folder to spill to; None: the system's temporary folder.
        spill_gb: most that may be spilled, in GB.

    Raises:
        InputError: if a size is not above 0 (`spill_gb`: below 0), or beyond all disks.

    >>> StateBudget(states_gb=1).spilled(600_000_000), StateBudget(states_gb=2).spilled(600_000_000)
    (600000000, 0)
    """

    states_gb: float = 2.0
    spill_dir: str | os.PathLike[str] | None = None
    spill_gb: float = 50.0

    def __post_init__(self) -> None:
        """Refuse sizes out of range."""
        number(self.states_gb, "states_gb", above=0, most=MOST_GB)
        number(self.spill_gb, "spill_gb", least=0, most=MOST_GB)

    @property
    def bytes(self) -> int:
        """`states_gb` in bytes."""
        return int(self.states_gb * 1e9)

    def spilled(self, size: int) -> int:
        """Return how many of `size` bytes of states go to disk: all or none."""
        return 0 if size <= self.bytes // 2 else size


DEFAULT_BUDGET = StateBudget()


def state_bytes(points: int, features: int, windows: int, tokens: int, distinct: int) -> int:
    """Return the size of states in float32: of each point in the network, all windows' and the tokens' run alone."""
    return 4 * points * features * (windows * tokens + distinct)
