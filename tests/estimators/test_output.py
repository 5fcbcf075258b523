"""The output's own information against closed forms, over repeated draws, and its rules for masses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.base import EmergenceError, InputError
from estimators.output import (
    Followed,
    jackknife,
    order_two,
    output_emergence,
    predictive_emergence,
    scored_emergence,
    shannon,
    shown_probability,
)
from estimators.shown import ABSENT, Shown, entropy_interval, mass_flags, shown_probabilities, shown_samples, unigram_of


def whole(p):
    """Every probability of (C, V) distributions shown."""
    p = np.asarray(p, float)
    return Shown(np.broadcast_to(np.arange(p.shape[1]), p.shape).copy(), p)


def draws(rng, p, n):
    return shown_samples([rng.choice(len(row), size=n, p=row).tolist() for row in p])


def plain_order_two(p, w):
    """The formula, pair by pair."""
    w = w / w.sum()
    same = sum(w[i] * p[i] @ p[i] for i in range(len(p)))
    apart = sum(w[i] * w[j] * p[i] @ p[j] for i in range(len(p)) for j in range(len(p)) if i != j)
    return math.log2(same / (apart / (1 - (w**2).sum())))


def test_j_of_closed_forms():
    assert shannon(whole(np.eye(8))).bits == pytest.approx(3.0, abs=1e-12)  # each window its own token
    assert shannon(whole(np.full((8, 5), 0.2))).bits == pytest.approx(0.0, abs=1e-12)  # all alike
    # Binary symmetric channel, crossover .1, equal inputs: 1 - h(.1), Cover & Thomas 2006, equation 7.5.
    h = -0.1 * math.log2(0.1) - 0.9 * math.log2(0.9)
    assert shannon(whole([[0.9, 0.1], [0.1, 0.9]])).bits == pytest.approx(1 - h, abs=1e-12)
    # Erasure channel, share .25 erased, inputs .7 and .3: (1 - .25) h(.3).
    h = -0.3 * math.log2(0.3) - 0.7 * math.log2(0.7)
    erased = whole([[0.75, 0.0, 0.25], [0.0, 0.75, 0.25]])
    assert shannon(erased, None, np.array([7.0, 3.0])).bits == pytest.approx(0.75 * h, abs=1e-12)


def test_hidden_mass_is_one_symbol_other():
    # Half of each distribution is "other" and shared: 1/2 bit is left of 1.
    shown = Shown(np.array([[0], [1]]), np.array([[0.5], [0.5]]))
    assert shannon(shown).bits == pytest.approx(0.5, abs=1e-12)


@st.composite
def distributions(draw):
    rows, columns = draw(st.integers(2, 7)), draw(st.integers(2, 6))
    values = draw(
        st.lists(st.lists(st.floats(0.01, 1), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    weights = draw(st.lists(st.floats(0.1, 3), min_size=rows, max_size=rows))
    p = np.array(values)
    return p / p.sum(axis=1, keepdims=True), np.array(weights)


@settings(max_examples=60, deadline=None)
@given(distributions(), st.integers(1, 4), st.integers(0, 100))
def test_j_keeps_its_bounds_and_does_not_depend_on_names(case, k, seed):
    p, w = case
    shown = whole(p).top(k)
    found = shannon(shown, None, w)
    assert -1e-9 <= found.bits <= math.log2(len(p)) + 1e-9
    assert found.bits <= found.ceiling_bits + 1e-9
    rng = np.random.default_rng(seed)
    names, order = rng.permutation(p.shape[1]), rng.permutation(len(p))
    again = shannon(Shown(names[shown.symbols], shown.shares).take(order), None, w[order])
    assert again.bits == pytest.approx(found.bits, abs=1e-9)
    assert again.without == pytest.approx(found.without[order], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(distributions())
def test_leaving_a_window_out_is_computing_it_anew(case):
    p, w = case
    rng = np.random.default_rng(0)
    for read in (shannon, order_two):
        found = read(whole(p), None, w)
        shared = read(whole(p), rng.permutation(np.arange(2 * len(p)) % len(p)), np.tile(w, 2))
        assert np.isfinite(shared.without).all()
        for i in range(len(p)) if len(p) > 3 else ():
            rest = np.arange(len(p)) != i
            assert found.without[i] == pytest.approx(read(whole(p[rest]), None, w[rest]).bits, abs=1e-7)


def test_leaving_a_window_of_a_shared_token_out():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(6), size=4)
    of_window, w = rng.integers(0, 4, 15), rng.uniform(0.5, 2, 15)
    for read in (shannon, order_two):
        found = read(whole(p), of_window, w)
        for i in range(15):
            rest = np.arange(15) != i
            assert found.without[i] == pytest.approx(read(whole(p), of_window[rest], w[rest]).bits, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(distributions())
def test_order_two_is_its_formula(case):
    p, w = case
    assert order_two(whole(p), None, w).bits == pytest.approx(plain_order_two(p, w), abs=1e-7)


def test_order_two_of_a_closed_form():
    # N equally likely windows, each its own token but for a share s of noise over V tokens.
    n, v, s = 10, 40, 0.3
    p = np.full((n, v), s / v)
    p[np.arange(n), np.arange(n)] += 1 - s
    same = (1 - s) ** 2 + 2 * s * (1 - s) / v + s**2 / v
    apart = 2 * s * (1 - s) / v + s**2 / v
    assert order_two(whole(p)).bits == pytest.approx(math.log2(same / apart), abs=1e-12)


def test_collisions_of_samples_are_unbiased():
    """Mean over 4,000 draws of both counts against the truth, within 4 standard errors of that mean."""
    rng = np.random.default_rng(2)
    p, w = rng.dirichlet(np.full(5, 0.5), size=6), rng.uniform(1, 3, 6)
    w = w / w.sum()
    same, apart = [], []
    for _ in range(4000):
        found = order_two(draws(rng, p, 3), None, w)
        apart.append(2**-found.ceiling_bits)
        same.append(2 ** (found.bits - found.ceiling_bits))
    m = w @ p
    truth_same = float(w @ (p**2).sum(axis=1))
    truth_apart = float((m @ m - w**2 @ (p**2).sum(axis=1)) / (1 - (w**2).sum()))
    for values, truth in ((same, truth_same), (apart, truth_apart)):
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / math.sqrt(len(values))


@pytest.mark.parametrize("samples", [None, 8])
@pytest.mark.parametrize("order", [1, 2])
def test_the_jackknife_is_the_spread_over_repeated_draws(order, samples):
    """200 times 60 windows of a population: the mean of the standard errors within 20 % of the spread of the values.

    The spread of 200 values is itself known to 1 / sqrt(400) = 5 %; the jackknife is somewhat conservative.
    """
    if order == 1 and samples:
        pytest.skip("J is not read from samples")
    rng = np.random.default_rng(3)
    kinds = rng.dirichlet(np.full(12, 0.3), size=40)
    lone = rng.dirichlet(np.full(12, 2.0), size=5)
    values, errors = [], []
    for _ in range(200):
        token_of = rng.integers(0, 5, (60, 2))
        p = 0.7 * kinds[rng.integers(0, 40, 60)] + 0.3 * lone[token_of[:, 1]]
        macro, alone = (whole(p), whole(lone)) if samples is None else (draws(rng, p, samples), draws(rng, lone, 64))
        found = output_emergence(macro, alone, token_of, order=order)
        values.append(found.ie_bits)
        errors.append(found.std_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_over_documents_the_error_is_the_spread_over_documents():
    """200 times 30 documents of 4 windows that say much the same: tolerance as above; windows would give too little."""
    rng = np.random.default_rng(6)
    kinds = rng.dirichlet(np.full(12, 0.3), size=40)
    lone = rng.dirichlet(np.full(12, 2.0), size=5)
    document = np.repeat(np.arange(30), 4)
    values, over_documents, over_windows = [], [], []
    for _ in range(200):
        token_of = rng.integers(0, 5, (120, 2))
        p = 0.7 * kinds[rng.integers(0, 40, 30)][document] + 0.3 * lone[token_of[:, 1]]
        found = output_emergence(whole(p), whole(lone), token_of, clusters=document)
        values.append(found.ie_bits)
        over_documents.append(found.std_error)
        over_windows.append(output_emergence(whole(p), whole(lone), token_of).std_error)
    assert np.mean(over_documents) == pytest.approx(np.std(values), rel=0.2)
    assert np.mean(over_windows) < 0.75 * np.std(values)  # about 1 / sqrt(4) of it


def test_jackknife_of_a_weighted_mean_is_that_of_a_ratio_estimator():
    rng = np.random.default_rng(4)
    v, w = rng.normal(size=400), rng.integers(1, 4, 400).astype(float)
    p = w / w.sum()
    mean = p @ v
    without = (mean - p * v) / (1 - p)
    usual = math.sqrt(float(p**2 @ (v - mean) ** 2))
    assert jackknife(mean, without, w) == pytest.approx(usual, rel=0.01)  # they differ by terms of order 1/n


def test_equal_draws_of_one_window_are_its_weight():
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.ones(4), size=3)
    assert shannon(whole(p[[0, 0, 1, 2]])).bits == pytest.approx(
        shannon(whole(p), None, np.array([2.0, 1, 1])).bits, abs=1e-12
    )


def test_the_interval_holds_the_entropy():
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.full(50, 0.4), size=200)
    truth = -(p * np.log2(np.maximum(p, 1e-300))).sum(axis=1)
    for k in (1, 5, 20, 50):
        low, high = entropy_interval(whole(p).top(k), 50)
        assert (low <= truth + 1e-9).all()
        assert (truth <= high + 1e-9).all()


def test_predictive_reading_of_a_known_source():
    """Two equally likely contexts, each followed by its own two of 4 tokens: 1 bit; lone tokens know nothing: 0."""
    rng = np.random.default_rng(7)
    n = 4000
    kind = rng.integers(0, 2, n)
    true = np.stack([rng.integers(0, 4, n), 2 * kind + rng.integers(0, 2, n)], axis=1)
    p = np.where(kind[:, None] == np.array([[0, 0, 1, 1]]), 0.5, 0.0)
    found = predictive_emergence(
        whole(p), whole(np.full((3, 4), 0.25)), rng.integers(0, 3, (n, 2)), Followed(true, 4, np.arange(n) % 2 == 0)
    )
    # The unigram of 4,000 tokens is uniform within 1/sqrt(4000): a thousandth of a bit, and its share is at its least,
    # .02: log2((.98 / 2 + .02 / 4) / (1 / 4)).
    assert found.macro_bits == pytest.approx(math.log2(1.98), abs=0.005)
    assert found.micro_bits == pytest.approx(0.0, abs=0.005)
    assert found.macro_bits <= found.macro_ceiling_bits


def test_a_wrong_model_gains_nothing():
    """Probabilities that have nothing to do with what followed: the weight goes to the unigram, the zero."""
    rng = np.random.default_rng(8)
    n, v = 2000, 30
    u = rng.dirichlet(np.full(v, 0.5))
    true = rng.choice(v, size=(n, 3), p=u)
    found = predictive_emergence(
        whole(rng.dirichlet(np.full(v, 0.05), size=n)).top(5),
        whole(rng.dirichlet(np.full(v, 0.05), size=9)).top(5),
        rng.integers(0, 9, (n, 3)),
        Followed(true, v, np.arange(n) % 2 == 0),
    )
    assert found.macro_weight > 0.95
    assert abs(found.ie_bits) < 3 * found.std_error + 0.01


def test_the_residual_rule_is_a_distribution():
    rng = np.random.default_rng(9)
    p = rng.dirichlet(np.ones(12), size=5)
    shown, u = whole(p).top(3), unigram_of(rng.integers(0, 12, (50, 1)), 12)
    total = sum(shown_probability(shown, u, np.arange(5), np.full(5, x)) for x in range(12))
    assert total == pytest.approx(np.ones(5), abs=1e-12)


def test_what_is_scored_whole_is_what_is_shown_whole():
    """With every token shown, the readings of shown and of scored text are one."""
    rng = np.random.default_rng(10)
    n, v = 200, 7
    p, lone = rng.dirichlet(np.ones(v), size=n), rng.dirichlet(np.ones(v), size=5)
    token_of, true, weights = rng.integers(0, 5, (n, 3)), rng.integers(0, v, (n, 3)), rng.uniform(1, 2, n)
    fold, documents = np.arange(n) % 5, np.arange(n) // 10
    followed = Followed(true, v, fold, weights, documents)
    shown = predictive_emergence(whole(p), whole(lone), token_of, followed)
    macro, micro = p[np.arange(n), true[:, -1]], lone[token_of, true]
    scored = scored_emergence(macro, micro, followed)
    assert scored.ie_bits == pytest.approx(shown.ie_bits, abs=1e-9)
    assert scored.std_error == pytest.approx(shown.std_error, abs=1e-9)
    some = np.where([True, False, True], micro, np.nan)  # the middle position was not asked for
    sampled = scored_emergence(macro, some, followed)
    assert sampled.macro_bits == pytest.approx(scored.macro_bits, abs=1e-9)
    assert abs(sampled.micro_bits - scored.micro_bits) < 4 * sampled.micro_std_error
    ragged = micro.copy()
    ragged[0, 0] = np.nan
    for wrong in (np.full_like(micro, np.nan), ragged):
        with pytest.raises(InputError, match="the same positions of every window, at one or more"):
            scored_emergence(macro, wrong, followed)


def test_micro_is_calibrated_at_each_position_as_macro_is():
    """In a list every second token is a comma that a lone entity tells as surely as the whole list does: no emergence.

    Calibrated at all positions together, micro would trust what it shows at no position, and all of macro would count.
    """
    n, v = 400, 6
    rng = np.random.default_rng(13)
    entity = rng.integers(1, v, (n, 2))  # 0 is the comma
    token_of = np.column_stack([entity[:, 0], np.zeros(n, int), entity[:, 1]])  # entity, comma, entity
    true = np.column_stack([np.zeros(n, int), rng.integers(1, v, n), np.zeros(n, int)])
    lone = np.vstack([np.eye(v)[[1]], np.eye(v)[[0] * (v - 1)]])  # behind a comma 1, behind each entity a comma
    found = predictive_emergence(whole(np.eye(v)[[0] * n]), whole(lone), token_of, Followed(true, v, np.arange(n) % 5))
    comma = found.macro_bits  # at the last position, where a comma follows
    assert comma == pytest.approx(-np.log2(2 / 3 * 0.98 + 0.02 * 0.0) + np.log2(0.98), abs=0.05)
    assert found.micro_bits == pytest.approx(
        comma * 2 / 3, abs=0.05
    )  # two of three positions tell as much, one nothing


@pytest.mark.parametrize("vocabulary", [2_000, 50_000, 262_144])
def test_what_was_seen_costs_the_same_whatever_the_vocabulary(vocabulary: int):
    """2,000 tokens that follow Zipf's law on 1,000 kinds; a larger vocabulary only makes what was not seen rarer."""
    rng = np.random.default_rng(14)
    p = 1 / np.arange(1, 1001)
    p /= p.sum()
    seen, other = rng.choice(1000, (2000, 1), p=p), rng.choice(1000, 4000, p=p)
    u = unigram_of(seen, vocabulary)
    assert u.sum() == pytest.approx(1, abs=1e-9)
    known = np.isin(other, seen)
    new = len(np.unique(seen)) / (2000 + len(np.unique(seen)))  # mass given to what may come for the first time
    assert new == pytest.approx(1 - known.mean(), abs=0.1)  # a little too much, as the method is known to
    cost = -np.log2(u[other])
    assert cost[known].mean() == pytest.approx(-np.log2(p[other[known]]).mean() - np.log2(1 - new), abs=0.15)
    assert np.all(cost[~known] == pytest.approx(np.log2(vocabulary / new), abs=1e-6))


def test_errors_are_clustered_over_documents():
    """Ten windows a document, all alike: the error is that of a tenth of the windows, sqrt(10) times larger."""
    rng = np.random.default_rng(11)
    n, v = 2000, 6
    kind = np.repeat(rng.integers(0, 6, n // 10), 10)
    true = np.stack([rng.integers(0, v, n), kind], axis=1)
    p = np.repeat(rng.dirichlet(np.ones(v), size=n // 10), 10, axis=0)
    given = whole(p), whole(np.full((1, v), 1 / v)), np.zeros((n, 2), int)
    followed = Followed(true, v, np.arange(n) // 10 % 5)
    alone = predictive_emergence(*given, followed)
    clustered = predictive_emergence(*given, replace(followed, clusters=np.arange(n) // 10))
    assert clustered.macro_std_error == pytest.approx(math.sqrt(10) * alone.macro_std_error, rel=0.02)


def test_masses_above_one_and_renormalised_ones():
    fine = np.tile([0.5, 0.2], (40, 1))
    symbols = np.tile([0, 1], (40, 1))
    assert mass_flags(Shown(symbols, fine))[1] == ()
    one = fine.copy()
    one[3] = 0.9, 0.4
    usable, flags = mass_flags(Shown(symbols, one))
    assert flags == ("impossible-masses",)
    assert usable.sum() == 39
    assert not usable[3]
    with pytest.raises(InputError, match="add up to more than 1"):
        mass_flags(Shown(symbols, 2 * fine))
    few = fine.copy()
    few[:6] = 0.8, 0.2
    assert mass_flags(Shown(symbols, few))[1] == ("renormalised",)
    with pytest.raises(InputError, match="renormalises to what it shows"):
        mass_flags(Shown(symbols, fine / 0.7))


def test_absent_logprobs_and_two_tokens_of_one_string():
    shown = shown_probabilities([[(4, math.log(0.5)), (4, math.log(0.2)), (9, -9999.0), (2, math.log(0.1))]], 3)
    assert shown.symbols.tolist() == [[4, 2, ABSENT]]
    assert shown.shares[0] == pytest.approx([0.7, 0.1, 0.0])
    assert shown.residual == pytest.approx([0.2])
    with pytest.raises(InputError, match="NaN"):
        shown_probabilities([[(1, math.nan)]], 1)


def test_what_cannot_be_read_says_so():
    with pytest.raises(InputError, match="order two"):
        shannon(shown_samples([[0, 0], [1, 1]]))
    with pytest.raises(InputError, match="at least two samples"):
        order_two(shown_samples([[0], [1, 1]]))
    with pytest.raises(EmergenceError, match="nothing to count"):
        order_two(shown_samples([[0, 1], [2, 3]]))
    with pytest.raises(InputError, match="at least one sample"):
        shown_samples([[]])
    with pytest.raises(InputError, match="two different"):
        order_two(whole([[0.5, 0.5]]), np.zeros(4, int))
    with pytest.raises(InputError, match="contexts 0 to 1"):
        shannon(whole(np.eye(2)), np.array([0, 2]))
    with pytest.raises(InputError, match="above 0"):
        shannon(whole(np.eye(2)), None, np.array([0.0, 1]))
    with pytest.raises(InputError, match="at least 2 folds"):
        predictive_emergence(
            whole(np.eye(2)),
            whole(np.eye(2)),
            np.zeros((2, 1), int),
            Followed(np.zeros((2, 1), int), 2, np.zeros(2, int)),
        )
