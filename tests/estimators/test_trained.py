"""Trained bounds: truth, independence, early stopping, batches, flags and errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EmergenceError, InputError, bounds, estimate, estimate_many, shuffled_pairs
from estimators.critics import gaussian_critic, normal_scores
from estimators.training import Training, _plan, train_many
from estimators.truths import student_bits

QUICK = {"steps": 60, "folds": 2, "halves": False}  # enough where the Gaussian start is already the answer
METHODS = ("infonce", "nwj", "smile", "mine")


def correlated(count, features, rho, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, features, generator=generator)
    return x, rho * x + math.sqrt(1 - rho**2) * torch.randn(count, features, generator=generator)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("features", "rho"), [(1, 0.8), (4, 0.5), (10, 0.0)])
def test_gaussian_truth(method, features, rho):
    found = estimate(*correlated(2000, features, rho), method, **QUICK)
    truth = -0.5 * features * math.log2(1 - rho**2)
    # Four errors of the held-out mean, and what is lost by fitting dx dy / (2 n) parameters' worth to half of them.
    lost = features**2 / (2 * 1000) / math.log(2)
    assert found.bits == pytest.approx(truth, abs=4 * found.std_error + lost + 0.01)


@pytest.mark.parametrize("method", METHODS)
def test_finds_what_correlation_misses(method):
    """A Student pair is uncorrelated: the Gaussian start finds nothing and training most of it."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(3000, 1, generator=generator).abs()
    x, y = (torch.randn(3000, 1, generator=generator) / shared for _ in range(2))
    found = estimate(x, y, method, folds=2, steps=150, halves=False)
    truth = student_bits(1, 1, 1)
    assert abs(found.details["gaussian"]) < 0.02
    assert 0.6 * truth < found.bits < truth + 4 * found.std_error


def test_monotone_maps_change_nothing():
    x, y = correlated(1000, 2, 0.7)
    plain = estimate(x, y, "infonce", **QUICK)
    bent = estimate(x**3, torch.exp(y), "infonce", **QUICK)
    assert bent.bits == pytest.approx(plain.bits, abs=1e-4)


@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(400, 1500),
    features=st.integers(1, 4),
    rho=st.floats(0, 0.9),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    seed=st.integers(0, 10_000),
)
def test_any_gaussian_truth_is_met_from_the_start(count, features, rho, dtype, seed):
    x, y = (side.to(dtype) for side in correlated(count, features, rho, seed))
    found = estimate(x, y, "infonce", steps=5, folds=2, halves=False, seed=seed)
    truth = -0.5 * features * math.log2(1 - rho**2)
    # As above, with five errors for eight draws; InfoNCE on n/2 samples falls short by about (e^2I - 1)/n nats.
    lost = (features**2 + 2 ** (2 * truth)) / count / math.log(2)
    assert found.bits == pytest.approx(truth, abs=5 * found.std_error + lost + 0.02)
    assert ("half-precision" in found.flags) == (dtype is torch.float16)


def test_rotation_and_permutation_change_only_the_noise():
    x, y = correlated(1000, 3, 0.7)
    plain = estimate(x, y, "infonce", **QUICK)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    for found in (estimate(x @ turn, y, "infonce", **QUICK), estimate(x[order], y[order], "infonce", **QUICK)):
        # The same pairs judged by critics of other folds: their mean moves by less than the error of the pairs.
        assert found.bits == pytest.approx(plain.bits, abs=2 * plain.std_error)


def test_a_bound_that_was_never_finite_is_no_estimate():
    """It read as 0 bits with an error of 0."""

    def overflowing(scores):
        return bounds.infonce(scores) * math.inf

    with pytest.raises(EmergenceError, match="never finite"):
        train_many([correlated(100, 1, 0.5)], bounds.infonce, overflowing, Training(steps=5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_cuda_agrees_with_the_cpu(method):
    x, y = correlated(500, 2, 0.7)
    there = estimate(x.cuda(), y.cuda(), method, **QUICK)
    # Training carries the rounding of other kernels along.
    assert estimate(x, y, method, **QUICK).bits == pytest.approx(there.bits, abs=0.02)


def test_shuffled_pairs_carry_nothing():
    x, y = correlated(2000, 3, 0.9)
    found = shuffled_pairs(x, y, "infonce", **QUICK)
    assert abs(found.bits) <= 4 * found.std_error + 0.01
    with pytest.raises(InputError, match="not a control for it"):
        shuffled_pairs(torch.arange(4), torch.eye(4), "sample-propagation")


def test_early_stopping_keeps_the_start_when_training_only_overfits():
    """Forty samples of noise: the critic learns them by heart, and the held-out bound must not show it."""
    x, y = correlated(60, 5, 0.0)
    found = estimate(x, y, "infonce", steps=200, folds=2, halves=False)
    assert abs(found.bits) < 0.5


def test_batched_equals_alone():
    problems = [correlated(400, 3, rho, seed) for seed, rho in enumerate((0.0, 0.5, 0.9))]
    together = estimate_many(problems, "infonce", **QUICK)
    for one, (x, y) in zip(together, problems, strict=True):
        # The order of float32 sums in a batch differs, and training carries rounding along.
        assert one.bits == pytest.approx(estimate(x, y, "infonce", **QUICK).bits, abs=0.01)


def test_problems_with_constant_features_stand_beside_others():
    x, y = correlated(300, 2, 0.5)
    flat = torch.cat((x[:, :1], torch.zeros(300, 1)), dim=1)
    found = estimate_many([(x, y), (flat, y), (torch.zeros(300, 2), y)], "infonce", **QUICK)
    assert found[1].bits == pytest.approx(estimate(x[:, :1], y, "infonce", **QUICK).bits, abs=0.01)
    assert (found[2].bits, found[2].flags) == (0.0, ("constant-input",))


def test_seed_reproduces_to_the_bit():
    x, y = correlated(300, 2, 0.5)
    runs = [estimate(x, y, "infonce", seed=seed, **QUICK).bits for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_every_sample_is_judged_by_critics_that_never_saw_it():
    for fit in _plan(1, 1003, Training(), seed=0):
        assert not set(fit.train.tolist()) & set(fit.held_out.tolist())
    whole = [fit for fit in _plan(1, 1003, Training(), seed=0) if fit.share == 0]
    assert len({row for fit in whole for row in fit.held_out.tolist()}) == 1000  # 4 folds of 250


def test_halves_give_error_and_flag():
    """Dependence hidden in 20 dimensions: more samples find more of it, and the estimate says so."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator)
    y = x.roll(1, dims=1) * x.sign() + 0.2 * torch.randn(600, 8, generator=generator)
    found = estimate(x, y, "infonce", folds=4, steps=150)
    assert "unreliable" in found.flags
    assert found.std_error >= found.bits - found.details["half_samples"]


def test_pressing_on_the_cap_is_flagged():
    x, _ = correlated(400, 4, 0.0)
    found = estimate(x, x + 0.001 * torch.randn(400, 4), "infonce", **QUICK)
    assert "saturated" in found.flags
    assert found.bits <= math.log2(200) + 1e-4


def test_half_precision_is_computed_in_single():
    x, y = correlated(400, 2, 0.6)
    full = estimate(x.half().float(), y.half().float(), "infonce", **QUICK)
    half = estimate(x.half(), y.half(), "infonce", **QUICK)
    assert half.bits == full.bits
    assert "half-precision" in half.flags


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"rate": 0.0}, "rate must lie"),
        ({"epochs": 5}, "belong to preset='paper'"),
        ({"preset": "papr"}, "one preset, paper"),
        ({"preset": "paper", "steps": 5}, "steps cannot be set"),
        ({"preset": "paper", "held_out": 1.5}, "between 0 and 1"),
        ({"preset": "paper", "epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_options_are_checked(options, match):
    x, y = correlated(100, 1, 0.5)
    with pytest.raises(InputError, match=match):
        estimate(x, y, "mine", **options)


def test_shapes_of_one_call_must_agree():
    with pytest.raises(InputError, match="one shape"):
        estimate_many([correlated(100, 1, 0.5), correlated(100, 2, 0.5)])


def test_too_few_samples_to_train_on():
    with pytest.raises(InputError, match="at least 40 samples; got 20"):
        estimate(*correlated(20, 1, 0.5), "infonce")


def test_normal_scores_share_ranks_of_equal_values():
    scores = normal_scores(torch.tensor([[3.0], [1.0], [3.0], [9.0]]))[:, 0]
    expected = torch.special.ndtri(torch.tensor([0.5, 0.125, 0.5, 0.875]))
    torch.testing.assert_close(scores, expected)


def test_gaussian_critic_drops_noise():
    x, y = correlated(2000, 30, 0.0)
    critic = gaussian_critic(x, y)
    assert int((critic.gain > 0).sum()) <= 1
