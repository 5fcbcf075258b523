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


def test_queries_are_sampled_by_weight():
    weights = np.array([1.0, 9.0])
    sampled = choose_queries(np.repeat(weights, 50), 90, seed=0)
    assert sampled.sampled
    assert (sampled.rows >= 50).mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 90))  # four binomial deviations
    assert not choose_queries(weights, 2, seed=0).sampled


def _emergence_of(rows, documents=None, queries=None, seed=0, resolution=0.5):
    """IE at the second of two tokens, of windows `rows` (n, 2) of eight tokens; states are fixed random points."""
    points = torch.from_numpy(np.random.default_rng(5).normal(size=(72, 3)))
    pairs, of_window = np.unique(rows @ [8, 1], return_inverse=True)
    tokens = [np.unique(column, return_inverse=True) for column in rows.T]
    (found,) = window_emergence(
        [Symbols(points[ids], place) for ids, place in tokens],
        lambda t: Symbols(points[8 + pairs], of_window),
        np.ones(len(rows)),
        choose_queries(np.ones(len(rows)), queries, seed, documents),
        resolutions=[resolution],
        scale=float(points.norm(dim=1).mean()),
        seed=[seed],
        positions=[2],
    )
    return found[0].value


def _documents(count, each, rng):
    """(count * each, 2) windows; most of a document repeat its own one, so that they are alike."""
    own = np.repeat(rng.integers(8, size=(count, 2)), each, axis=0)
    other = rng.integers(8, size=own.shape)
    return np.where(rng.random((len(own), 1)) < 0.7, own, other), np.repeat(np.arange(count), each)


def test_the_error_is_that_of_a_bootstrap_over_documents():
    rng = np.random.default_rng(0)
    rows, documents = _documents(60, 10, rng)
    found = []
    for seed in range(100):
        sampled = rng.integers(60, size=60)
        again = np.concatenate([rows[documents == document] for document in sampled])
        found.append(_emergence_of(again, seed=seed + 1).ie_bits)
    over_documents, over_windows = _emergence_of(rows, documents).std_error, _emergence_of(rows).std_error
    # The spread of 100 has a relative error of 1 / sqrt(200) = 7 %: three of them, and 10 % for what is of second order
    # in one over the number of documents.
    assert np.std(found, ddof=1) == pytest.approx(over_documents, rel=0.3)
    assert over_windows < 0.75 * over_documents  # windows of one document are alike


@pytest.mark.parametrize("queries", [None, 150])
def test_nine_of_ten_differences_between_draws_of_windows_lie_within_their_errors(queries):
    """Every draw is of other documents; where a sample of the windows is read, the draw behind it counts too."""
    rng = np.random.default_rng(1)
    values = [_emergence_of(*_documents(40, 10, rng), queries=queries, seed=seed) for seed in range(80)]
    bits, errors = (np.array([getattr(one, name) for one in values]) for name in ("ie_bits", "std_error"))
    within = np.abs(bits[::2] - bits[1::2]) <= 1.645 * np.hypot(errors[::2], errors[1::2])
    # Of 40 pairs 36 +- 1.9: three deviations below; all may be within, where errors are a little too large.
    assert within.sum() >= 30
    assert np.std(bits, ddof=1) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.25)  # three times 1 / sqrt(160)
