"""Bounds as functions of scores: their definitions, written out, and tightness at the true log density ratio."""

import math

import pytest
import torch

from estimators import bounds

ALL = {
    "infonce": bounds.infonce,
    "donsker_varadhan": bounds.donsker_varadhan,
    "nwj": bounds.nwj,
    "smile": bounds.smile,
}


def written_out(name: str, scores: torch.Tensor) -> float:
    """The bound of one score matrix as its paper defines it, pair by pair."""
    n = len(scores)
    f = scores.double()
    true = sum(float(f[i, i]) for i in range(n)) / n
    apart = [float(f[i, j]) for i in range(n) for j in range(n) if i != j]
    if name == "infonce":
        rows = sum(math.log(sum(math.exp(float(f[i, j])) for j in range(n)) / n) for i in range(n)) / n
        columns = sum(math.log(sum(math.exp(float(f[i, j])) for i in range(n)) / n) for j in range(n)) / n
        return true - (rows + columns) / 2
    if name == "nwj":
        return true + 1 - sum(map(math.exp, apart)) / len(apart)
    if name == "smile":
        apart = [max(-5.0, min(5.0, one)) for one in apart]
    return true - math.log(sum(map(math.exp, apart)) / len(apart))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("spread", [0.1, 3.0, 12.0])
def test_equals_its_definition(name, spread):
    scores = spread * torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    found = ALL[name](scores).mean(dim=1)
    for one, matrix in zip(found, scores, strict=True):
        assert float(one) == pytest.approx(written_out(name, matrix), rel=1e-4, abs=1e-4)  # float32 sums


def test_soft_cap_bends_only_near_the_top():
    capped = bounds.soft_cap(torch.tensor([-50.0, 0.0, 8.0, 1e6]))
    torch.testing.assert_close(capped, torch.tensor([-50.0, -3.4e-4, 8 - math.log(2), 8.0]), atol=1e-4, rtol=1e-4)


def test_jensen_shannon_equals_its_definition():
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    soft = lambda value: math.log1p(math.exp(value))  # noqa: E731
    true = -sum(soft(-float(scores[i, i])) for i in range(6)) / 6
    apart = sum(soft(float(scores[i, j])) for i in range(6) for j in range(6) if i != j) / 30
    assert float(bounds.jensen_shannon(scores).mean()) == pytest.approx(true - apart, abs=1e-5)


def gaussian_scores(rho: float, count: int, seed: int) -> torch.Tensor:
    """The true log density ratio of correlated normals, at all pairs of a sample."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(count, generator=generator, dtype=torch.float64)
    squares = rho * (x[:, None] ** 2 + y[None, :] ** 2) - 2 * x[:, None] * y[None, :]
    return -rho * squares / (2 * (1 - rho**2)) - 0.5 * math.log(1 - rho**2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_tight_at_the_true_ratio(name, rho):
    """At the log density ratio every bound is the truth, and the spread of contributions is its standard error."""
    truth = -0.5 * math.log(1 - rho**2)
    values = torch.stack([ALL[name](gaussian_scores(rho, 300, seed)) for seed in range(40)])
    means = values.mean(dim=1)
    error = float(means.std()) / math.sqrt(40)
    # InfoNCE and the logarithm of a sample mean are biased by about (e^{2I} - 1)/(2n): below 0.01 nats here. The clip
    # of SMILE at 5 nats cuts the tails of rho = 0.9 by as little.
    assert float(means.mean()) == pytest.approx(truth, abs=4 * error + 0.015)
    if rho:
        stated = float(values.std(dim=1).mean()) / math.sqrt(300)
        assert stated == pytest.approx(float(means.std()), rel=0.5)  # a deviation from 40 runs is known to 11 %


def test_infonce_ignores_functions_of_one_side():
    """Adding d(y) shifts one direction and c(x) the other; the symmetric mean never exceeds its cap ln n."""
    scores = 50 * torch.eye(16)
    assert float(bounds.infonce(scores).mean()) == pytest.approx(math.log(16), abs=1e-5)
    assert float(bounds.infonce(scores + 7.0).mean()) == pytest.approx(math.log(16), abs=1e-5)


@pytest.mark.parametrize("name", ["infonce", "donsker_varadhan", "smile"])
def test_huge_scores_stay_finite(name):
    scores = (300 * torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(1))).requires_grad_()
    value = ALL[name](scores).mean()
    value.backward()
    assert math.isfinite(value.item())
    assert bool(torch.isfinite(scores.grad).all())
