"""MINE as published: what its three numbers are, and that its maximum is no bound."""

import math

import pytest
import torch

from estimators import estimate, estimate_many
from estimators.mine import donsker_varadhan


def test_bound_is_its_definition():
    joint, marginal = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0])
    expected = 2 - math.log((1 + math.e) / 2)
    assert float(donsker_varadhan(joint, marginal)) == pytest.approx(expected)


def test_bound_is_tight_at_the_log_density_ratio():
    """For Gaussians the optimal critic is known: there the bound equals the truth."""
    rho, count = 0.6, 200_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(count, generator=generator, dtype=torch.float64)
    apart = torch.randn(count, generator=generator, dtype=torch.float64)

    def ratio(a, b):
        gap = (rho * (a**2 + b**2) - 2 * a * b) * rho / (2 * (1 - rho**2))
        return -gap - 0.5 * math.log(1 - rho**2)

    truth = -0.5 * math.log(1 - rho**2)
    # Both means have a standard error of about 0.7/sqrt(200,000) = 0.0016 nats.
    assert float(donsker_varadhan(ratio(x, y), ratio(x, apart))) == pytest.approx(truth, abs=0.01)


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
