"""Folds: of one size, documents whole where there are enough of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import InputError
from estimators.folds import assign_folds


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 400), st.integers(1, 90), st.integers(2, 5), st.integers(0, 99))
def test_documents_are_whole_and_folds_even(count: int, documents: int, folds: int, seed: int) -> None:
    owner = np.sort(np.random.default_rng(seed).integers(0, documents, count))
    fold, clusters = assign_folds(count, owner, seed, folds=folds)
    sizes = np.bincount(fold, minlength=folds)
    assert len(fold) == count
    assert sizes.min() > 0
    assert sizes.max() <= 2 * count / folds
    if clusters is None:
        assert sizes.max() - sizes.min() <= 1
    else:
        assert all(len(np.unique(fold[owner == name])) == 1 for name in np.unique(owner))
        assert len(np.unique(clusters)) == len(np.unique(owner))


def test_one_long_document_leaves_windows_to_themselves() -> None:
    owner = np.concatenate([np.zeros(900, int), np.arange(1, 101)])
    assert assign_folds(1000, owner, 0)[1] is None
    with pytest.raises(InputError, match="at least 10 windows"):
        assign_folds(9, None, 0)
