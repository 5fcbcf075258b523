"""The one call: names, options, batches."""

import pytest
import torch

from estimators import InputError, estimate, estimate_many, methods


def test_unknown_names_are_told_the_known_ones():
    x = torch.randn(20, 2)
    with pytest.raises(InputError, match=r"did you mean 'mine'.*known: sample-propagation"):
        estimate(x, x, "mime")
    with pytest.raises(InputError, match=r"did you mean 'resolution'.*resolution, scale, queries, draws"):
        estimate(x, x, resolutoin=0.1)


def test_several_resolutions_give_a_list():
    tokens, states = torch.arange(8), torch.eye(8)
    assert [one.resolution for one in estimate(tokens, states, resolution=(0.1, 0.2))] == [0.1, 0.2]
    assert estimate(tokens, states, resolution=0.1).resolution == 0.1


def test_many_problems_equal_one_after_another():
    generator = torch.Generator().manual_seed(0)
    problems = [(torch.arange(50), torch.randn(50, 4, generator=generator)) for _ in range(3)]
    together = estimate_many(problems, "sample-propagation", resolution=0.2)
    assert [one.bits for one in together] == [estimate(x, y, resolution=0.2).bits for x, y in problems]
    with pytest.raises(InputError, match="got none"):
        estimate_many([])


@pytest.mark.parametrize("method", sorted(set(methods()) - {"sample-propagation", "entropy"}))
class TestBadInput:
    def test_rows_differ(self, method):
        with pytest.raises(InputError, match="got 5 and 6 rows"):
            estimate(torch.randn(5, 2), torch.randn(6, 2), method)

    def test_one_sample(self, method):
        with pytest.raises(InputError, match="at least 2 samples; got 1"):
            estimate(torch.randn(1, 2), torch.randn(1, 2), method)

    def test_not_finite(self, method):
        x = torch.randn(9, 2)
        x[3, 1] = torch.inf
        x[5, 0] = torch.nan
        with pytest.raises(InputError, match="x has NaN or infinite values in 2 of 9 samples, first in row 3"):
            estimate(x, torch.randn(9, 2), method)

    def test_integers(self, method):
        with pytest.raises(InputError, match="y must be floating point"):
            estimate(torch.randn(9, 2), torch.arange(9), method)
