"""Emergence arithmetic: paired errors, weights, no clipping."""

import math

import pytest
import torch

from estimators import InputError, emergence


def test_known_numbers():
    found = emergence(torch.tensor([3.0, 5.0]), torch.tensor([[1.0, 3.0], [4.0, 4.0]]))
    assert (found.macro_bits, found.micro_bits, found.ie_bits) == (4.0, 3.0, 1.0)
    assert (found.std_error, found.sample_std) == (0.0, 0.0)


def test_pairing_removes_what_macro_and_micro_share():
    generator = torch.Generator().manual_seed(0)
    shared = 5 * torch.randn(2000, generator=generator)
    own = torch.randn(2000, generator=generator)
    found = emergence(shared + own, torch.stack((shared, shared), dim=1))
    # Unpaired, the error would be about 5 sqrt(2)/sqrt(2000) = 0.16; the spread's own error is 1/sqrt(2*2000) = 1.6 %.
    assert found.std_error == pytest.approx(1 / math.sqrt(2000), rel=0.08)
    assert found.sample_std == pytest.approx(1, rel=0.08)


def test_standard_error_covers_the_truth():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(300, generator=generator) + 0.1
    inside = 0
    for _ in range(300):
        macro = 2 + torch.randn(300, generator=generator)
        found = emergence(macro, torch.zeros(300, 3), weights)
        inside += abs(found.ie_bits - 2) <= 1.96 * found.std_error
    assert 270 <= inside <= 298  # binomial(300, 0.95): mean 285, four deviations are 15


def test_what_windows_share_adds_to_the_error():
    macro, micro = torch.tensor([1.0, 2.0, 7.0]), torch.zeros(3, 1)
    alone = emergence(macro, micro)
    assert emergence(macro, micro, shared_variance=0.25).std_error == pytest.approx(math.hypot(alone.std_error, 0.5))


def test_negative_emergence_stays_negative():
    found = emergence(torch.tensor([-1.0, 0.0]), torch.tensor([[2.0], [3.0]]))
    assert found.ie_bits == -3.0


def test_weights_have_no_unit():
    macro, micro = torch.tensor([1.0, 2.0, 7.0]), torch.tensor([[0.5], [0.25], [1.0]])
    weights = torch.tensor([1.0, 2.0, 3.0])
    assert emergence(macro, micro, weights) == emergence(macro, micro, weights * 4)
    assert emergence(macro, micro, weights).ie_bits == pytest.approx((0.5 + 3.5 + 18) / 6)


def test_single_window_has_no_error():
    assert emergence(torch.tensor([1.0]), torch.tensor([[0.5]])).std_error is None


@pytest.mark.parametrize(
    ("macro", "micro", "weights", "match"),
    [
        (torch.zeros(0), torch.zeros(0, 1), None, "macro_pointwise must have shape"),
        (torch.zeros(3), torch.zeros(3), None, "windows, positions"),
        (torch.zeros(3), torch.zeros(2, 4), None, "3 windows"),
        (torch.tensor([0.0, math.nan]), torch.zeros(2, 1), None, "1 of 2 windows are not, first in row 1"),
        (torch.zeros(2), torch.zeros(2, 1), torch.tensor([1.0, -1.0]), "row 1 has -1.0"),
    ],
)
def test_bad_input_is_refused(macro, micro, weights, match):
    with pytest.raises(InputError, match=match):
        emergence(macro, micro, weights)
