"""The predictive observer on sources whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import InputError
from estimators.predictive import (
    CACHED,
    PENALTIES,
    SHARES,
    TEMPERATURES,
    NormalEquations,
    calibrate,
    chosen_penalty,
    clustered_error,
    cross_calibrated,
    cross_fitted,
    gain_bits,
    ridge,
    token_log_probabilities,
    unigram,
)


def slow_ridge(x: np.ndarray, y: np.ndarray, penalty: float, read: np.ndarray) -> np.ndarray:
    """The readable twin of `ridge`: returns predictions for `read`, rows of weight 1."""
    centre, scale = x.mean(0), x.std(0) + 1e-6
    z = (x - centre) / scale
    solved = np.linalg.solve(z.T @ z + penalty * len(x) * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
    found: np.ndarray = (read - centre) / scale @ solved + y.mean(0)
    return found


def summed(
    x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor, weights: torch.Tensor | None = None
) -> NormalEquations:
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    sums = NormalEquations(x.shape[1], y.shape[1])
    sums.add(x, y, torch.ones(len(x)) if weights is None else weights)
    return sums


def source(seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 6)) * [1, 10, 0.1, 3, 1, 1] + 5
    return x, x @ rng.normal(size=(6, 4)) + noise * rng.normal(size=(400, 4))


@pytest.mark.parametrize("noise", [0.1, 30.0, 300.0])  # from where the least penalty wins to where the largest does
def test_each_part_is_read_by_the_readable_twins_lens_of_the_others(noise: float) -> None:
    x, y = source(0, noise)
    parts = [slice(100 * k, 100 * (k + 1)) for k in range(4)]
    lenses = cross_fitted([summed(x[rows], y[rows]) for rows in parts])
    for k, lens in enumerate(lenses):
        held = parts[(k + 1) % 4]
        inner = np.concatenate(
            [np.arange(400)[rows] for place, rows in enumerate(parts) if place not in (k, (k + 1) % 4)]
        )
        others = np.setdiff1d(np.arange(400), np.arange(400)[parts[k]])
        errors = [((slow_ridge(x[inner], y[inner], one, x[held]) - y[held]) ** 2).sum() for one in PENALTIES]
        assert lens.penalty == PENALTIES[int(np.argmin(errors))]
        told = slow_ridge(x[others], y[others], lens.penalty, x[parts[k]])
        # float32 on the way out: seven digits of values of about 50
        np.testing.assert_allclose(lens(torch.from_numpy(x[parts[k]])).numpy(), told, atol=1e-4)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    x, y = source(1)
    both = summed(x[:150], y[:150]).plus(summed(x[150:], y[150:]))
    whole = summed(x, y)
    for name in ("n", "x", "y", "xx", "xy"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    x, y = (torch.from_numpy(one[:50]) for one in source(1))
    weighted = summed(x, y, torch.tensor([2.0] * 10 + [1.0] * 40))
    repeated = summed(torch.cat([x, x[:10]]), torch.cat([y, y[:10]]))
    assert chosen_penalty(weighted, repeated) == chosen_penalty(repeated, weighted)
    torch.testing.assert_close(ridge(weighted, 0.1)(x), ridge(repeated, 0.1)(x))


def test_a_lens_does_not_care_for_the_units_of_a_state() -> None:
    rng = np.random.default_rng(2)
    x, y = torch.from_numpy(rng.normal(size=(200, 4))), torch.from_numpy(rng.normal(size=(200, 4)))
    scale = torch.tensor([1e3, 1.0, 1e-2, 5.0], dtype=torch.float64)
    one, other = (ridge(summed(states, y), 0.01)(states) for states in (x, x * scale + 7))
    # the floor of 1e-6 under a standard deviation of 1e-2 is one in ten thousand
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    """Squares of 3,000 are beyond the range of float16, and bfloat16 has three digits; the sums have neither fault."""
    x = (torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * 3000).to(dtype)
    sums = summed(x, x)
    torch.testing.assert_close(sums.xx, x.double().T @ x.double())


def test_states_that_overflowed_are_refused() -> None:
    with pytest.raises(InputError, match="not finite, so no lens can be fitted; load the model as bfloat16"):
        NormalEquations(2, 2).add(torch.tensor([[1.0, math.inf]]), torch.ones(1, 2), torch.ones(1))


@pytest.mark.parametrize("cached", [CACHED, 7000])  # the whole at once, and in parts of two rows
def test_probabilities_at_all_temperatures_are_those_of_softmax(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimators.predictive.CACHED", cached)
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0)) * 12 + 40
    row, token = torch.tensor([0, 1, 1, 4]), torch.tensor([3, 0, 2999, 7])
    slow = torch.stack([torch.log_softmax(logits.double() / one, -1)[row, token] for one in TEMPERATURES])
    for temperatures in (TEMPERATURES, TEMPERATURES[:3]):  # powers of one exponential, and one each
        found = token_log_probabilities(logits, row, token, temperatures)
        # sums of float32, of logits of about 100
        torch.testing.assert_close(found.double(), slow[: len(temperatures)], atol=2e-4, rtol=1e-5)


def test_a_fold_is_calibrated_by_the_others() -> None:
    """Two kinds of rows: what is right for one fold is wrong for the other, and each gets the other's."""
    sharp, flat = TEMPERATURES.index(1.0), TEMPERATURES.index(2.0)
    log_p = torch.full((len(TEMPERATURES), 40), -3.0)
    log_p[sharp, :20], log_p[flat, 20:] = -0.1, -0.1
    chosen = cross_calibrated(log_p, torch.full((40,), -4.0), torch.ones(40), torch.arange(2).repeat_interleave(20), 2)
    assert [one.temperature for one in chosen] == [2.0, 1.0]
    alone = calibrate(log_p[:, 20:], torch.full((20,), -4.0), torch.ones(20))
    assert chosen[0] == alone


def test_the_gain_of_the_true_distribution_is_the_mutual_information() -> None:
    """A source of two states: H(Y) - H(Y | state) is known, and the calibrated observer reads it."""
    rng = np.random.default_rng(3)
    table = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    state = rng.integers(2, size=20_000)
    token = (rng.random(20_000)[:, None] > table.cumsum(1)[state]).sum(1)
    log_u = unigram(token[:5000, None], np.ones(5000), 3)
    logits = torch.from_numpy(np.log(table) * 2.0)  # twice too sharp: the temperature must become 2
    log_p = token_log_probabilities(logits, torch.from_numpy(state), torch.from_numpy(token), TEMPERATURES)
    chosen = calibrate(log_p[:, 5000:8000], log_u[token[5000:8000]].float(), torch.ones(3000))
    assert chosen.temperature == 2.0
    place = TEMPERATURES.index(chosen.temperature)
    gain = gain_bits(log_p[place, 8000:].double(), log_u[token[8000:]], chosen.share)

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log2(p)).sum())

    truth = entropy(table.mean(0)) - entropy(table[0])
    error = float(gain.std()) / math.sqrt(len(gain))
    # four standard errors of the reading, and the .02 that the smallest share of the unigram can cost
    assert abs(float(gain.mean()) - truth) < 4 * error + 0.02


def test_a_head_that_knows_nothing_gains_nothing() -> None:
    rng = np.random.default_rng(4)
    token = rng.integers(50, size=4000)
    log_u = unigram(token[:2000, None], np.ones(2000), 50)
    logits = torch.from_numpy(rng.normal(size=(4000, 50)) * 5)
    row = torch.arange(4000)
    log_p = token_log_probabilities(logits, row, torch.from_numpy(token), TEMPERATURES)
    chosen = calibrate(log_p[:, :2000], log_u[token[:2000]].float(), torch.ones(2000))
    gain = gain_bits(log_p[TEMPERATURES.index(chosen.temperature), 2000:].double(), log_u[token[2000:]], chosen.share)
    assert abs(float(gain.mean())) < 4 * float(gain.std()) / math.sqrt(2000) + 0.02


@given(st.floats(-30, 0), st.floats(-15, -0.01), st.sampled_from(SHARES))
@settings(max_examples=200, deadline=None)
def test_no_gain_is_below_the_share_or_above_the_ceiling(log_p: float, log_u: float, share: float) -> None:
    gain = float(gain_bits(torch.tensor(log_p, dtype=torch.float64), torch.tensor(log_u, dtype=torch.float64), share))
    assert gain >= math.log2(share) - 1e-9
    assert gain <= -log_u / math.log(2) + 1e-9  # q is at most 1


def test_one_next_token_is_refused() -> None:
    with pytest.raises(InputError, match="Every next token is the same"):
        unigram(np.full((10, 2), 3), np.ones(10), 5)


def test_the_clustered_error_is_that_of_repeated_draws() -> None:
    """Values that documents share: the error over rows would be too small by the root of the document's size."""
    rng = np.random.default_rng(5)
    means, errors = [], []
    for _ in range(400):
        values = np.repeat(rng.normal(size=25), 8)
        means.append(values.mean())
        errors.append(clustered_error(values, np.full(200, 1 / 200), np.repeat(np.arange(25), 8)))
    # the spread of 400 means is known to 3.5 %, the mean of 400 errors to under 1 %; four times that
    assert abs(float(np.mean(errors)) / float(np.std(means)) - 1) < 0.15
    rows = clustered_error(values, np.full(200, 1 / 200), None)
    assert rows == pytest.approx(values.std(ddof=1) / math.sqrt(200))
