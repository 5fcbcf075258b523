"""IE on arrays: against analytic values, its ceilings, its error, and the choice of queries."""

import numpy as np
import pytest
import torch

from estimators.positions import Symbols, choose_queries, window_emergence

TOKENS = np.array([[a, b] for a in range(4) for b in range(4)])  # (16, 2): every pair of four tokens


def _values(weights=None, queries=None, seed=0, resolution=0.01, positions=None, whole=None):
    """IE of a network whose state of a pair is (first + second) mod 4 on a line, and that passes single tokens on."""
    weights = np.ones(16) if weights is None else weights
    alone = torch.arange(4.0)[:, None]  # (V, k)
    pairs = torch.from_numpy(TOKENS.sum(axis=1) % 4).float()[:, None] if whole is None else whole  # (16, k)
    found = window_emergence(
        [Symbols(alone, TOKENS[:, 0]), Symbols(alone, TOKENS[:, 1])],
        lambda t: Symbols(pairs, np.arange(16)),
        weights,
        choose_queries(weights, queries, seed),
        resolutions=[resolution],
        scale=1.0,
        seed=[seed],
        positions=positions,
    )
    return [one for at_position in found for one in at_position]


def test_a_fine_observer_sees_the_entropies_of_the_states():
    """Of 16 pairs the sum mod 4 tells 2 bits, and a token alone 2 bits: IE is 0 at both positions."""
    first, second = _values()
    # At a resolution of 0.01 states 1 apart are never confused: all that is left is rounding of float32 squares.
    assert first.value.ie_bits == 0
    assert second.value.macro_bits == pytest.approx(2, abs=1e-5)
    assert second.value.ie_bits == pytest.approx(0, abs=1e-5)
    assert (second.macro_ceiling_bits, second.micro_ceiling_bits) == (4, 2)


def test_states_that_keep_all_of_the_beginning_have_emergence():
    second = _values(whole=torch.arange(16.0)[:, None])[1]
    assert second.value.ie_bits == pytest.approx(4 - 2, abs=1e-5)


def test_queries_that_are_a_sample_never_pass_the_ceilings():
    weights = np.arange(1.0, 17.0)
    p = weights / weights.sum()
    entropy = -(p @ np.log2(p))
    for seed in range(20):
        second = _values(weights, queries=5, seed=seed, whole=torch.arange(16.0)[:, None])[1]
        assert second.macro_ceiling_bits == pytest.approx(entropy)
        # No loss at this resolution: the known entropy replaces the sample's, whatever windows were sampled.
        assert second.value.macro_bits == pytest.approx(entropy, abs=1e-5)


def test_one_position_is_that_of_all():
    (alone,) = _values(positions=[2], resolution=0.5)
    assert alone == _values(resolution=0.5)[1]


def test_the_error_covers_what_other_noise_changes():
    """16 windows share four tokens: without what they share of the micro values' error it would be too small."""
    found = [_values(seed=seed, resolution=0.5)[1].value for seed in range(200)]
    spread = np.std([one.ie_bits for one in found], ddof=1)
    stated = np.sqrt(np.mean([one.std_error**2 for one in found]))
    # The spread of 200 has a relative error of 1 / sqrt(400) = 5 %: four of them. The stated error also counts how
    # windows differ, which other noise does not change, so that it may be larger.
    assert spread <= 1.2 * stated


def test_macro_and_micro_see_noise_of_their_own():
    """With equal states and one noise the two would have equal values, and IE no spread over seeds."""

    def one(seed):
        states = torch.arange(16.0)[:, None]
        return [
            at[0].value.ie_bits
            for at in window_emergence(
                [Symbols(states, np.arange(16))] * 2,
                lambda t: Symbols(states, np.arange(16)),
                np.ones(16),
                choose_queries(np.ones(16), None, 0),
                resolutions=[0.5],
                scale=1.0,
                seed=[seed],
            )
        ][1]

    assert np.std([one(seed) for seed in range(10)]) > 0.01


def test_queries_are_drawn_by_weight():
    weights = np.array([1.0, 9.0])
    sampled = choose_queries(np.repeat(weights, 50), 90, seed=0)
    assert sampled.sampled
    assert (sampled.rows >= 50).mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 90))  # four binomial deviations
    assert not choose_queries(weights, 2, seed=0).sampled
