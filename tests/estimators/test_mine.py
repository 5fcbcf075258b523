"""MINE as published: what its three numbers are."""

import math

import pytest
import torch

from estimators import estimate, estimate_many


def test_paper_preset_reports_its_three_numbers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator)
    found = estimate(x, x + 0.5 * torch.randn(300, 2, generator=generator), "mine", preset="paper", epochs=30)
    assert found.bits == found.details["max"] >= found.details["last"]
    assert set(found.details) == {"max", "last", "held_out"}
    assert found.ceiling_bits == pytest.approx(math.log2(300))


def test_batched_equals_alone():
    generator = torch.Generator().manual_seed(0)
    problems = [(torch.randn(100, 3, generator=generator), torch.randn(100, 2, generator=generator)) for _ in range(3)]
    together = estimate_many(problems, "mine", preset="paper", epochs=5, seed=3)
    for one, (x, y) in zip(together, problems, strict=True):
        alone = estimate(x, y, "mine", preset="paper", epochs=5, seed=3)
        assert one.details == pytest.approx(alone.details, abs=1e-5)


def test_seed_reproduces_to_the_bit():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    runs = [estimate(x, x, "mine", preset="paper", epochs=4, seed=seed).details for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_preset_says_what_it_was_given():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    constant, halved = estimate_many([(torch.ones(100, 3), x), (x, x)], "mine", preset="paper", epochs=2)
    assert (constant.bits, constant.flags) == (0.0, ("constant-input",))
    assert halved.bits == estimate(x, x, "mine", preset="paper", epochs=2).bits
    assert "half-precision" in estimate(x.half(), x, "mine", preset="paper", epochs=2).flags
