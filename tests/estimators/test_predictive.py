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
    FOLDS,
    PENALTIES,
    SHARES,
    TEMPERATURES,
    NormalEquations,
    calibrate,
    clustered_error,
    gain_bits,
    ridge_lens,
    split_folds,
    token_log_probabilities,
    unigram,
)


def slow_lens(x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray) -> np.ndarray:
    """The readable twin of `ridge_lens`: returns predictions for `held_x`, rows of weight 1."""
    centre, scale = x.mean(0), x.std(0) + 1e-6
    z = (x - centre) / scale
    best, kept = math.inf, held_y
    for penalty in PENALTIES:
        solved = np.linalg.solve(z.T @ z + penalty * len(x) * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
        told = (held_x - centre) / scale @ solved + y.mean(0)
        if ((told - held_y) ** 2).sum() < best:
            best, kept = ((told - held_y) ** 2).sum(), told
    return kept


def test_the_lens_is_that_of_its_readable_twin() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)) * [1, 10, 0.1, 3, 1, 1] + 5
    y = x @ rng.normal(size=(6, 4)) + rng.normal(size=(300, 4))
    fitting, other, choosing = (NormalEquations(6, 4) for _ in range(3))
    for start in range(0, 200, 40):  # batch by batch, in two parts
        rows = slice(start, start + 40)
        (fitting if start < 80 else other).add(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]), torch.ones(40))
    choosing.add(torch.from_numpy(x[200:]), torch.from_numpy(y[200:]), torch.ones(100))
    told = ridge_lens(fitting.plus(other), choosing)(torch.from_numpy(x[200:])).numpy()
    # float32 on the way out: seven digits of values of about 50
    np.testing.assert_allclose(told, slow_lens(x[:200], y[:200], x[200:], y[200:]), atol=1e-4)


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    rng = np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(50, 3))), torch.from_numpy(rng.normal(size=(50, 2)))
    weighted, repeated, choosing = (NormalEquations(3, 2) for _ in range(3))
    weighted.add(x, y, torch.tensor([2.0] * 10 + [1.0] * 40))
    repeated.add(torch.cat([x, x[:10]]), torch.cat([y, y[:10]]), torch.ones(60))
    choosing.add(x, y, torch.ones(50))
    torch.testing.assert_close(ridge_lens(weighted, choosing)(x), ridge_lens(repeated, choosing)(x))


def test_a_lens_does_not_care_for_the_units_of_a_state() -> None:
    rng = np.random.default_rng(2)
    x, y = torch.from_numpy(rng.normal(size=(200, 4))), torch.from_numpy(rng.normal(size=(200, 4)))
    scale = torch.tensor([1e3, 1.0, 1e-2, 5.0], dtype=torch.float64)
    told = []
    for states in (x, x * scale + 7):
        fitting, choosing = NormalEquations(4, 4), NormalEquations(4, 4)
        fitting.add(states[:150], y[:150], torch.ones(150))
        choosing.add(states[150:], y[150:], torch.ones(50))
        told.append(ridge_lens(fitting, choosing)(states))
    # the floor of 1e-6 under a standard deviation of 1e-2 is one in ten thousand
    torch.testing.assert_close(told[0], told[1], atol=1e-3, rtol=1e-3)


def test_states_that_overflowed_are_refused() -> None:
    with pytest.raises(InputError, match="not finite, so no lens can be fitted; load the model as bfloat16"):
        NormalEquations(2, 2).add(torch.tensor([[1.0, math.inf]]), torch.ones(1, 2), torch.ones(1))


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


@given(st.integers(100, 3000), st.integers(20, 60), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_window_is_read_once_and_documents_stay_together(count: int, documents: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.append(np.arange(documents), rng.integers(documents, size=count - documents))
    folds = split_folds(count, owner, seed)
    for fold in range(FOLDS):
        read, choosing, fitting = np.flatnonzero(folds.of == fold), folds.choosing(fold), folds.fitting(fold)
        assert sorted(np.concatenate([read, choosing, fitting])) == list(range(count))
        assert not set(owner[read]) & set(owner[choosing]) | set(owner[read]) & set(owner[fitting])
        assert len(read) >= count / (4 * FOLDS)


def test_what_cannot_be_dealt_out_is_refused() -> None:
    with pytest.raises(InputError, match="at least 100 in all; got 99"):
        split_folds(99, None, 0)
    with pytest.raises(InputError, match="at least 20 in all; these windows are of 19"):
        split_folds(190, np.arange(190) % 19, 0)
    with pytest.raises(InputError, match="One document holds 970 of 1000 windows"):
        split_folds(1000, np.maximum(np.arange(1000) - 969, 0), 0)


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
