"""What sample propagation takes and refuses, and that large input is not copied."""

import math

import pytest
import torch

from estimators import InputError, estimate, sample_propagation


@pytest.mark.parametrize(
    ("states", "options", "match"),
    [
        (torch.zeros(3, 2, 2), {}, r"shape \(samples, features\)"),
        (torch.zeros(4, 2, dtype=torch.int64), {}, "floating point"),
        (torch.tensor([[0.0], [math.nan], [math.inf]]), {}, "2 of 3 samples, first in row 1"),
        (torch.eye(4), {"resolutions": ()}, "resolutions must be positive"),
        (torch.eye(4), {"resolutions": (0.1, -1)}, "resolutions must be positive"),
        (torch.eye(4), {"weights": torch.ones(3)}, "one number per row"),
        (torch.eye(4), {"weights": torch.tensor([1.0, 0, 1, 1])}, "row 1 has 0.0"),
        (torch.eye(4), {"queries": torch.tensor([4])}, "rows 0 to 3"),
        (torch.eye(4), {"queries": torch.tensor([0.5])}, "int64"),
        (torch.eye(4), {"queries": 1}, "at least 2"),
        (torch.eye(4), {"draws": 0}, "draws"),
        (torch.eye(4), {"scale": 0.0}, "scale must be a positive"),
        (torch.eye(4) * 1e30, {}, "rescale"),
        ("states", {}, "got str"),
    ],
)
def test_bad_input_is_refused(states, options, match):
    with pytest.raises(InputError, match=match):
        sample_propagation(states, **options)


def test_refuses_continuous_input():
    with pytest.raises(InputError, match="discrete input"):
        estimate(torch.randn(50, 2), torch.randn(50, 2))


def test_refuses_what_is_no_function():
    tokens = torch.arange(50) % 10
    with pytest.raises(InputError, match="rows 4 and 34 have the same x"):
        estimate(tokens, torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))


def test_one_outlying_feature_hides_no_other():
    """Noise in small features stood out by less than 1 % of the largest, and passed for a function."""
    states = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    states[:, 0] = 3000
    with pytest.raises(InputError, match="have the same x but differ by"):
        estimate(torch.arange(50) % 10, states)


def test_rounding_in_another_batch_is_no_other_function(cloud):
    tokens = torch.arange(400) % 200
    states = cloud[:200].repeat(2, 1)
    states[:, 0] *= 1000
    states[200:] *= 1 + 2**-8  # bfloat16 rounds off as much
    states[200:, 1] = states[:200, 1] * 1e-3  # hardly used, and its rounding error that of the others
    states[:200, 1] = states[200:, 1] + 1e-3
    assert estimate(tokens, states).samples == 200


def test_queries_are_rows_of_the_input():
    tokens = torch.tensor([7, 7, 5, 7, 5, 9])
    states = torch.eye(10)[tokens]
    assert estimate(tokens, states).queries.tolist() == [0, 2, 5]
    assert set(estimate(tokens, states, queries=2).queries.tolist()) <= {0, 2, 5}


def test_few_queries_make_no_tile_of_all_rows(monkeypatch):
    """A last block of one query would copy every state at once: at the paper's size a gigabyte, twice."""
    widest = 0
    exp2 = torch.Tensor.exp2_

    def seen(tile):
        nonlocal widest
        widest = max(widest, tile.shape[1])
        return exp2(tile)

    monkeypatch.setattr(torch.Tensor, "exp2_", seen)
    monkeypatch.setattr("estimators.mixture._BLOCK_VALUES", 1 << 12)
    sample_propagation(torch.randn(3000, 64), resolutions=(0.1,), queries=torch.tensor([5]))
    assert widest == 64


def test_states_are_not_copied_where_no_symbol_repeats(monkeypatch, cloud):
    """A copy of the paper's states is a gigabyte."""
    given = []
    module = sample_propagation.__globals__  # its name in the package is the function's
    whole = module["losses"]
    monkeypatch.setitem(module, "losses", lambda rows, *others: given.append(rows) or whole(rows, *others))
    estimate(torch.arange(400).flip(0), cloud)
    assert given[0].data_ptr() == cloud.data_ptr()
