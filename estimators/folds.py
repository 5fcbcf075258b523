"""Deal windows to folds, each of which is read by an observer fitted on the others."""

from __future__ import annotations

import numpy as np

from estimators.base import InputError

FOLDS = 5
DOCUMENTS_EACH = 4  # documents a fold needs, else windows are assigned one by one
LARGEST = 2.0  # times an even share that a fold may hold, else windows are assigned one by one


def assign_folds(
    count: int, documents: np.ndarray | None, seed: int, *, folds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray | None]:
    """Assign windows to folds of about one size, whole documents together where there are enough of them.

    Args:
        count: N windows.
        documents: (N,) document of each; None where there are none.
        seed: of the order in which they are assigned.
        folds: how many.

    Returns:
        (N,) fold of each window, 0 to `folds` - 1, and (N,) number of its document over which errors are clustered;
        None in its place where windows were assigned one by one.

    Raises:
        InputError: if there are fewer than two windows a fold.

    >>> fold, clusters = assign_folds(1000, np.arange(1000) // 10, seed=0)
    >>> np.bincount(fold).tolist(), len(np.unique(clusters))
    ([200, 200, 200, 200, 200], 100)
    """
    if count < 2 * folds:
        raise InputError(f"{folds} folds need at least {2 * folds} windows; got {count}. Ask for more windows.")
    rng = np.random.default_rng([seed, 5])
    if documents is not None:
        names, unit, sizes = np.unique(documents, return_inverse=True, return_counts=True)
        if len(names) >= DOCUMENTS_EACH * folds:
            order = rng.permutation(len(names))
            order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first, each to the emptiest fold
            of_document, held = np.zeros(len(names), np.int64), np.zeros(folds, np.int64)
            for document in order:
                of_document[document] = emptiest = int(held.argmin())
                held[emptiest] += sizes[document]
            if held.max() <= LARGEST * count / folds:
                return of_document[unit], unit
    fold = np.empty(count, np.int64)
    fold[rng.permutation(count)] = np.arange(count) % folds
    return fold, None
