"""Sample propagation against brute force, numerical integrals and what must hold for any input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import DEFAULT_RESOLUTIONS, estimate, plug_in_entropy, sample_propagation
from estimators.checks import seeded
from estimators.mixture import QUERY_ROWS


def noise_as_sampled(seed: int, queries: int, features: int, draws: int) -> torch.Tensor:
    """The noise of every query, (draws, queries, features), sampled in the same blocks as by the library."""
    generator = seeded(seed, "sample-propagation")
    step = max(1, QUERY_ROWS // draws)
    blocks = [
        torch.randn(draws, min(step, queries - begin), features, generator=generator)
        for begin in range(0, queries, step)
    ]
    return torch.cat(blocks, dim=1).double()


def brute_force(states, weights, resolution, seed, draws):
    """The slow readable twin: every distance of every noisy state to every state, in float64."""
    y = states.double()
    p = (torch.ones(len(y)) if weights is None else weights).double()
    p = p / p.sum()
    y = y - p @ y
    sigma = resolution * math.sqrt(p @ y.square().sum(1))
    noise = noise_as_sampled(seed, len(y), y.shape[1], draws)
    pointwise = torch.zeros(draws, len(y), dtype=torch.float64)
    for draw in range(draws):
        for i in range(len(y)):
            seen = y[i] + sigma * noise[draw, i]
            log_density = -(seen - y).square().sum(1) / (2 * sigma**2)
            pointwise[draw, i] = (log_density[i] - torch.logsumexp(log_density + p.log(), 0)) / math.log(2)
    return float(p @ pointwise.mean(0)), pointwise.mean(0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("count", "features", "draws"), [(300, 64, 1), (700, 5, 1), (40, 256, 16)])
def test_agrees_with_brute_force(count, features, draws, weighted):
    generator = torch.Generator().manual_seed(count)
    states = torch.randn(count, features, generator=generator) + 5  # an offset: centring must not cost precision
    states[: count // 4] = states[count // 2 : count // 2 + count // 4]  # distinct windows that collide
    weights = torch.randint(1, 9, (count,), generator=generator) if weighted else None
    resolutions = (0.03, *DEFAULT_RESOLUTIONS, 3.0)
    found = sample_propagation(states, weights, resolutions=resolutions, draws=draws, seed=3)
    for one in found:
        bits, pointwise = brute_force(states, weights, one.resolution, 3, draws)
        assert one.bits == pytest.approx(bits, abs=1e-4)  # float32 sums against the float64 twin
        torch.testing.assert_close(one.pointwise_bits, pointwise, atol=1e-3, rtol=0)


def two_points(resolution: float) -> float:
    """Bits of a fair +-1 seen through noise of standard deviation `resolution`, by quadrature."""
    z = np.linspace(-10, 10, 200_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    loss = np.logaddexp(0, -2 * (1 + resolution * z) / resolution**2) / math.log(2)
    return float(1 - np.trapezoid(density * loss, z))


@pytest.mark.parametrize("resolution", [0.3, 0.7, 1.0, 2.0])
def test_two_points_match_the_integral(resolution):
    states = torch.tensor([[-1.0], [1.0]])
    (found,) = sample_propagation(states, resolutions=(resolution,), queries=40_000, seed=1)
    assert found.std_error < 0.01
    assert found.bits == pytest.approx(two_points(resolution), abs=4 * found.std_error + 1e-6)


@settings(max_examples=10, deadline=None)
@given(
    features=st.sampled_from([1, 2, 10, 100, 1000]),
    bits=st.floats(0.3, 3.0),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    seed=st.integers(0, 1000),
)
def test_gaussian_channel(features, bits, dtype, seed):
    """Gaussian input of equal power per feature: I = k/2 log2(1 + 1/noise variance)."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(3000, features, generator=generator).to(dtype)
    noise = 1 / math.sqrt(2 ** (2 * bits / features) - 1)  # per feature, relative to its unit deviation
    (found,) = sample_propagation(
        states, resolutions=(noise / math.sqrt(features),), scale=math.sqrt(features), queries=1000, seed=seed
    )
    # The 3,000 inputs are a sample themselves: their information varies by about std/sqrt(3000), less than the
    # error over 1,000 queries, and lies below the truth by about the mean squared density ratio over 2n ln 2,
    # 2^(2 bits)/(2 ln 2 * 3000) at one feature.
    allowed = 5 * found.std_error + 2 ** (2 * bits) / 3000
    assert found.bits == pytest.approx(bits, abs=allowed)
    assert ("half-precision" in found.flags) == (dtype is torch.float16)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    features=st.integers(1, 6),
    magnitude=st.sampled_from([1e-12, 1e-3, 1.0, 1e4, 1e12]),
    values=st.sampled_from(["few", "many", "outlier"]),
    queries=st.one_of(st.none(), st.integers(2, 100)),
    draws=st.sampled_from([1, 3]),
    scale=st.sampled_from([None, 1e-6, 1.0, 1e6]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
def test_never_above_its_ceiling(count, features, magnitude, values, queries, draws, scale, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, features, generator=generator)
    if values == "few":  # many windows collide
        states = states.round()
    if values == "outlier":
        states[0] *= 1e6
    states = (states * magnitude).clamp(-6e4, 6e4).half() if dtype is torch.float16 else (states * magnitude).to(dtype)
    weights = torch.randint(1, 50, (count,), generator=generator)
    surprise = -(weights.double() / weights.sum()).log2()
    for one in sample_propagation(
        states, weights, resolutions=(1e-3, 0.1, 1.0, 30.0), queries=queries, draws=draws, scale=scale
    ):
        assert math.isfinite(one.bits)
        assert one.bits <= one.ceiling_bits
        assert one.ceiling_bits == pytest.approx(plug_in_entropy(weights), abs=1e-12)
        rows = slice(None) if one.queries is None else one.queries
        assert bool((one.pointwise_bits <= surprise[rows] + 1e-9).all())


def curve(states, weights=None, **options):
    found = sample_propagation(states, weights, resolutions=(0.1, 0.2, 0.4), **options)
    return [(one.bits, one.std_error) for one in found]


def close(left, right, *, errors):
    """Two independent runs: within `errors` standard errors of their difference."""
    for (a, a_error), (b, b_error) in zip(left, right, strict=True):
        assert abs(a - b) <= errors * math.hypot(a_error, b_error) + 1e-4


def test_scaling_and_shifting_change_nothing(cloud):
    for (a, _), (b, _) in zip(curve(cloud), curve(cloud * 1000 - 7), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_rotation_and_permutation_change_only_the_noise(cloud):
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1))).Q
    close(curve(cloud, draws=8), curve(cloud @ turn, draws=8), errors=5)
    close(curve(cloud, draws=8), curve(cloud.flip(0), draws=8), errors=5)


def test_duplicated_windows_cost_and_change_nothing(cloud):
    tokens = torch.arange(400)
    once = estimate(tokens, cloud, resolution=(0.1, 0.3), seed=2)
    twice = estimate(torch.cat((tokens, tokens)), torch.cat((cloud, cloud)), resolution=(0.1, 0.3), seed=2)
    for a, b in zip(once, twice, strict=True):
        assert (a.bits, a.samples) == (b.bits, b.samples)


def test_weights_equal_repetition(cloud):
    """Two symbols of the same state are one symbol that occurs twice, less the bit that tells them apart."""
    counts = torch.randint(1, 4, (400,), generator=torch.Generator().manual_seed(2))
    repeated = cloud.repeat_interleave(counts, dim=0)
    close(curve(cloud, counts, draws=30), curve(repeated, draws=30), errors=5)


def test_sampled_queries_agree_with_every_row(cloud):
    weights = torch.linspace(1, 30, 400)
    close(curve(cloud, weights, draws=4), curve(cloud, weights, queries=300, seed=9), errors=5)


def test_given_rows_are_the_queries(cloud):
    rows = torch.tensor([7, 7, 3, 399])
    (found,) = sample_propagation(cloud, resolutions=(0.3,), queries=rows)
    assert torch.equal(found.queries, rows)
    assert found.pointwise_bits.shape == (4,)


def test_noise_is_not_the_callers_noise():
    """A caller who draws the states with the very seed must not get them back as noise."""
    torch.manual_seed(0)
    states = torch.randn(512, 64)
    assert curve(states, seed=0)[2][0] < 8


def test_seed_reproduces_to_the_bit(cloud):
    assert curve(cloud, seed=4, queries=100) == curve(cloud, seed=4, queries=100)
    assert curve(cloud, seed=4, queries=100) != curve(cloud, seed=5, queries=100)


def test_information_falls_with_noise(cloud):
    found = [bits for bits, _ in curve(cloud, draws=10)]
    assert found == sorted(found, reverse=True)


def test_collisions_are_counted_out():
    """Sixteen equally likely symbols on four states carry 2 bits."""
    states = torch.eye(4).repeat(4, 1)
    (found,) = sample_propagation(states, resolutions=(0.05,))
    assert found.bits == pytest.approx(2.0, abs=1e-5)
    assert found.ceiling_bits == 4.0
    assert found.flags == ()


def test_saturation_is_flagged():
    (found,) = sample_propagation(torch.eye(16), resolutions=(0.05,))
    assert found.flags == ("saturated",)


@pytest.mark.parametrize("count", [1, 5])
def test_constant_states_carry_nothing(count):
    for one in sample_propagation(torch.full((count, 3), 2.5)):
        assert one.bits == 0.0
        assert one.std_error == 0.0
        assert one.flags == ("constant-input",)
        assert one.ceiling_bits == pytest.approx(math.log2(count))
        assert torch.equal(one.pointwise_bits, torch.zeros(count, dtype=torch.float64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(cloud):
    tokens = torch.arange(400) % 300
    states = cloud[tokens]
    here = estimate(tokens, states, resolution=(0.1, 0.3), queries=100)
    there = estimate(tokens.cuda(), states.cuda(), resolution=(0.1, 0.3), queries=100)
    for one, other in zip(here, there, strict=True):
        assert one.bits == pytest.approx(other.bits, abs=1e-4)
