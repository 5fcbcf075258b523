"""Plug-in entropies and the flags that follow from them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from estimators import InputError, estimate, plug_in_entropy
from estimators.entropy import ceiling_flags, distinct_rows


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
def test_entropy_is_its_definition(counts):
    p = [count / sum(counts) for count in counts if count]
    found = plug_in_entropy(torch.tensor(counts))
    assert found == pytest.approx(-sum(q * math.log2(q) for q in p), abs=1e-9)
    assert 0 <= found <= math.log2(len(counts)) + 1e-9


def test_distinct_rows_finds_the_first_of_each():
    first, inverse = distinct_rows(torch.tensor([[3, 1], [0, 1], [3, 1], [0, 2], [0, 1]]))
    assert first.tolist() == [0, 1, 3]
    assert first[inverse].tolist() == [0, 1, 0, 3, 1]


def test_entropy_of_a_pair_is_the_smaller_one():
    x = torch.arange(8) % 2
    y = torch.arange(8.0)
    found = estimate(x, y, "entropy")
    assert (found.bits, found.ceiling_bits, found.samples) == (1.0, 1.0, 8)


@pytest.mark.parametrize(
    ("bits", "error", "flags"),
    [(3.0, None, ()), (3.99, None, ("saturated",)), (4.1, None, ("above-ceiling",)), (4.1, 0.1, ("saturated",))],
)
def test_flags(bits, error, flags):
    assert ceiling_flags(bits, 4.0, error) == flags


def test_nothing_to_tell_apart_still_has_a_ceiling():
    assert ceiling_flags(0.5, 0.0) == ("above-ceiling",)
    assert ceiling_flags(0.5, 0.0, 0.4) == ()
    assert ceiling_flags(0.0, 0.0) == ()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (torch.tensor([1.0, math.nan, 2.0]), "x has NaN or infinite values in 1 of 3 samples, first in row 1"),
        (torch.zeros(3, dtype=torch.complex64), "x must be real; got torch.complex64"),
        (torch.zeros(1), "x needs at least 2 samples; got 1"),
        (torch.zeros(1, dtype=torch.int64), "x needs at least 2 samples; got 1"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(values, match):
    with pytest.raises(InputError, match=match):
        estimate(values, values, "entropy")


def test_bad_weights_are_refused():
    with pytest.raises(InputError, match=r"not negative; row 1 has -1\.0"):
        plug_in_entropy(torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="got 3 and 4 rows"):
        estimate(torch.zeros(3, 1), torch.zeros(4, 1), "entropy")
