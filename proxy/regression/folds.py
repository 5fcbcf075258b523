"""How rows are left out together: by family where there are enough, else by model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

FAMILIES_NEEDED = 9  # for intervals of a new family
MOST_FOLDS = 10  # up to so many groups are left out one at a time, more of them in so many parts of like size


def fold_of(groups: NDArray[np.str_], most: int = MOST_FOLDS) -> NDArray[np.int64]:
    """Return the fold (n,) of each row; rows of one group share a fold, and the order of rows does not matter."""
    labels, codes = np.unique(groups, return_inverse=True)
    if len(labels) <= most:
        return np.asarray(codes, dtype=np.int64)
    folds = np.zeros(len(groups), dtype=np.int64)
    for fold, (_, left) in enumerate(GroupKFold(n_splits=most).split(codes, groups=codes)):
        folds[left] = fold
    return folds


def rows_needed(level: float) -> int:
    """Return the fewest rows from which jackknife+ gives a bounded interval at `level`: ceil((n + 1) level) <= n.

    >>> [rows_needed(level) for level in (0.5, 0.8, 0.9, 0.95)]
    [1, 4, 9, 19]
    """
    return math.ceil(round(level / (1 - level), 9))


def families_needed(level: float) -> int:
    """Return the fewest families from which intervals at `level` hold for a new one."""
    return max(FAMILIES_NEEDED, rows_needed(level))


def unit_left_out(families: int, level: float, alone: str) -> str:
    """Return what is left out together: the ``family`` where there are enough for `level`, else `alone`.

    >>> unit_left_out(10, 0.9, "run"), unit_left_out(8, 0.9, "run"), unit_left_out(10, 0.95, "run")
    ('family', 'run', 'run')
    """
    return "family" if families >= families_needed(level) else alone
