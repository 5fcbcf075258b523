"""Words of answers as features: one list for everyone, log odds that can be counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from proxy.features.table import compute_features
from proxy.features.words import CHARACTERS, HALF, vocabulary, word_features, words_of
from proxy.regression.candidates import BY_COLUMN, CANDIDATES, Rows, rotated
from proxy.regression.links import Link
from proxy.regression.proxy import fit_proxy
from proxy.regression.regressor import ProxyRegressor


def said(*texts, prompts=None) -> pd.DataFrame:
    return pd.DataFrame({"prompt_id": prompts or [str(n) for n in range(len(texts))], "text": list(texts)})


def test_the_list_holds_each_word_once_and_each_can_be_found():
    names = vocabulary()
    assert len(names) == len(set(names)) == 2400
    unfound = [name for name in names if name != "blank_line" and name not in words_of(f"{name} a")]
    assert unfound == []


def test_log_odds_by_hand():
    found = word_features(said("the cat", "a dog", "the end", "   "))
    assert found["the"] == pytest.approx(math.log((2 / 3 + HALF) / (1 / 3 + HALF)))  # of the answers not blank
    assert found["therefore"] == pytest.approx(math.log(HALF / (1 + HALF)))
    assert word_features(said(" ")) == {}


def test_a_word_never_used_has_one_value_however_many_the_prompts():
    assert word_features(said("a dog"))["therefore"] == word_features(said(*["a dog"] * 50))["therefore"]


def test_a_word_that_one_reference_used_once_puts_no_model_outside():
    """Of 300 answers one holds the word: by the references' spread alone a model that uses it twice is 18 of them out.

    Noise of .25 leaves log odds (2 and 0 answers of 300, which differ by log 5) at most log(5) / .25 = 6.4 apart.
    """
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(116, 3)), columns=[f"behaviour.{name}" for name in "abc"])
    once, twice = (math.log((share + HALF) / (1 - share + HALF)) for share in (1 / 300, 2 / 300))
    X["words.rare"] = math.log(HALF / (1 + HALF))
    X.loc[0, "words.rare"] = once
    fitted = ProxyRegressor("ridge").fit(X, X["behaviour.a"])
    Z, _ = fitted.standardised(X.iloc[1:2].assign(**{"words.rare": twice}))
    assert 0 < Z[0, 3] < 6.4
    assert (twice - X["words.rare"].mean()) / X["words.rare"].std() > 15


def test_prompts_count_the_same_however_many_samples_they_have():
    many = word_features(said("the", "the", "the", "dog", prompts=["a", "a", "a", "b"]))
    assert many["the"] == word_features(said("the", "dog"))["the"]


def test_only_the_start_of_a_long_answer_is_looked_at():
    assert "therefore" not in words_of("x " * CHARACTERS + "therefore")


def test_a_models_words_do_not_depend_on_who_is_read_beside():
    one = said(*["The cat sat."] * 10).assign(model="a")
    other = said(*["## Here\n\n1. **It**"] * 10).assign(model="b")
    alone = compute_features(one, [])
    beside = compute_features(pd.concat([other, one]), [])
    pd.testing.assert_frame_equal(
        alone.filter(like="words."), beside[beside["model"] == "a"].reset_index(drop=True).filter(like="words.")
    )


def models_of_words(kind: str, n: int = 27, words: int = 60, seed: int = 0) -> pd.DataFrame:
    """Models whose target is told by many words together, or by one behaviour; the other kind is noise."""
    rng = np.random.default_rng(seed)
    ability = rng.normal(size=n)
    signal = ability[:, None] * rng.normal(size=words) + 0.5 * rng.normal(size=(n, words))
    noise = rng.normal(size=(n, words))
    held = signal if kind == "words" else noise
    frame = pd.DataFrame(held, columns=[f"words.w{j}" for j in range(words)])
    told = ability + 0.1 * rng.normal(size=n) if kind == "behaviour" else rng.normal(size=n)
    return frame.assign(
        **{"behaviour.a": told, "behaviour.b": rng.normal(size=n)},
        model=[f"m{i}" for i in range(n)],
        family=[f"f{i % 9}" for i in range(n)],
        y=ability,
    )


@pytest.mark.parametrize("kind", ["words", "behaviour"])
def test_the_kind_that_tells_is_chosen_and_the_other_has_no_say(kind):
    table = models_of_words(kind)
    X = table.drop(columns=["model", "y"])
    fitted = ProxyRegressor("auto", group_column="family", family_column="family").fit(X, table["y"])
    assert kind in fitted.kinds_
    assert set(fitted.kind_scores_) == {"behaviour", "words", "behaviour + words"}
    if fitted.kinds_ == (kind,):
        other = [c for c in X.columns if c.partition(".")[0] not in (kind, "family")]
        np.testing.assert_array_equal(fitted.predict(X), fitted.predict(X.assign(**dict.fromkeys(other, 0.0))))


@pytest.mark.parametrize("name", [name for name in CANDIDATES if name not in BY_COLUMN])
def test_rows_in_their_own_space_are_fitted_as_they_are(name):
    """What learns from inner products estimates the same from 60 features of 27 models as from 27 coordinates."""
    table = models_of_words("words")
    Z = StandardScaler().fit_transform(table.filter(like="words."))
    labels = table["family"].to_numpy(dtype=str)
    rows = Rows(Z, table["y"].to_numpy(), np.ones(27), labels, labels, Link())
    part, basis = rotated(rows)
    assert part.Z.shape == (27, 27)
    whole, turned = CANDIDATES[name]().fit(rows), CANDIDATES[name]().fit(part)
    turned.rotate_back(basis)
    others = np.random.default_rng(1).normal(size=(5, 60))
    # the same sums in another order: 1e-6 leaves room for the optimiser of the components' curve
    np.testing.assert_allclose(turned.eta(others, labels[:5]), whole.eta(others, labels[:5]), rtol=1e-6, atol=1e-6)
    assert turned.directions(Z).shape == whole.directions(Z).shape


def test_a_proxy_keeps_the_words_it_learned_from():
    proxy = fit_proxy(models_of_words("words"), target="y")
    assert sum(name.startswith("words.") for name in proxy.features) == 60
    assert (
        proxy.scores.set_index("candidate").loc["chosen", "rmse"]
        < 0.5 * (proxy.scores.set_index("candidate").loc["mean", "rmse"])
    )
