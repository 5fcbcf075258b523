"""Families whose law is known: it is found, nothing leaks, and odd tables are handled."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from proxy import Proxy, fit_proxy
from proxy.regression.card import card
from proxy.regression.folds import fold_of
from proxy.regression.intervals import LEVELS, Intervals
from proxy.regression.references import read_references
from proxy.regression.regressor import ProxyRegressor

Families = Callable[..., pd.DataFrame]


def left_out(table: pd.DataFrame, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of every row without its family, and the left-out means."""
    X = table[[c for c in table.columns if c.startswith("behaviour.")]].assign(family=table["family"])
    folds = fold_of(table["family"].to_numpy(dtype=str))
    estimate, mean = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        left = folds == fold
        chosen = ProxyRegressor(group_column="family", family_column="family").fit(X[~left], y[~left])
        estimate[left], mean[left] = chosen.predict(X[left]), y[~left].mean()
    return estimate, mean


def test_the_law_is_recovered_for_families_never_seen(families: Families) -> None:
    table = families(8, 3)
    y = table["bits"].to_numpy()
    estimate, _ = left_out(table, y)
    # noise of the target 0.05; the features' own noise adds about as much
    assert np.sqrt(np.mean((estimate - y) ** 2)) < 0.15
    # three sizes 0.6 bits apart; the families' own shifts of 0.1 bits are about as large as the error
    assert pd.Series(estimate).corr(table["bits"], method="spearman") > 0.9


def test_shuffled_targets_give_no_skill(families: Families) -> None:
    """If a left-out target leaked into its estimate, the error would fall below that of the left-out mean."""
    ratios, correlations = [], []
    for draw in range(12):
        table = families(6, 3, features=8, seed=draw)
        y = np.random.default_rng(draw).permutation(table["bits"].to_numpy())
        estimate, mean = left_out(table, y)
        ratios.append(np.mean((estimate - y) ** 2) / np.mean((mean - y) ** 2))
        correlations.append(np.corrcoef(estimate, y)[0, 1])
    assert np.mean(ratios) > 0.97
    # 12 draws of 18 rows: standard error of the mean correlation 0.07; leaving out pulls it below zero
    assert np.mean(correlations) < 0.2


def test_order_of_rows_and_columns_does_not_reach_the_fit(families: Families) -> None:
    table = families(seed=1)
    mixed = table.sample(frac=1, random_state=0)[table.columns[::-1]]
    one = read_references(table, target="bits", groups="family", mode="outputs")
    other = read_references(mixed, target="bits", groups="family", mode="outputs")
    pd.testing.assert_frame_equal(one.X, other.X)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.models, other.models)


def test_constant_and_empty_features_are_left_out_and_named(families: Families) -> None:
    table = families().assign(**{"behaviour.constant": 1.0, "behaviour.empty": None})
    read = read_references(table, target="bits", groups="family", mode="outputs")
    assert not {"behaviour.constant", "behaviour.empty"} & set(read.X.columns)
    assert any("behaviour.constant, behaviour.empty" in remark for remark in read.remarks)


def test_a_repeated_model_is_left_out_whole(families: Families) -> None:
    table = families()
    read = read_references(pd.concat([table, table.head(1)]), target="bits", groups="family", mode="outputs")
    folds = fold_of(read.models)
    assert len(np.unique(folds[read.models == "family0-0"])) == 1
    assert any("repeat a model" in remark for remark in read.remarks)


def test_one_family_is_enough_and_said(families: Families) -> None:
    proxy = fit_proxy(families(1, 9, features=3), target="bits", candidate="best_feature")
    assert proxy.unit == "model"
    assert any(remark.startswith("1 family:") for remark in proxy.remarks)


def test_without_families_no_claim_speaks_of_them(families: Families) -> None:
    table = families(1, 10, features=3).drop(columns="family")
    proxy = fit_proxy(table.head(9), target="bits", candidate="best_feature")
    assert proxy.unit == "model"
    assert any("no column family: models were left out one at a time" in remark for remark in proxy.remarks)
    assert "Left out by model" in card(proxy)
    assert "no other model of its family" not in card(proxy)
    estimate = proxy.predict(table.tail(1).assign(family="another"))
    assert "families of the references are not known" in estimate["remarks"].item()
    assert estimate["estimate"].notna().all()


def test_nine_families_are_left_out_whole(families: Families) -> None:
    table = families(9, 2, features=3)
    proxy = fit_proxy(table, target="bits", candidate="best_feature")
    assert proxy.unit == "family"
    assert proxy.intervals.groups == 9
    assert (proxy.validation["truth"] - proxy.validation["estimate"]).abs().max() < 1.5
    assert "not of a new family" not in proxy.predict(table.head(1).assign(family="new"))["remarks"].item()


def test_size_is_a_candidate_in_scale_mode_and_a_baseline_in_outputs_mode(families: Families) -> None:
    table = families(features=3).assign(**{"meta.log_parameters": lambda t: np.log10(t["parameters"])})
    table = table.rename(columns=lambda name: name.replace("behaviour.", "small.sibling."))
    scale = fit_proxy(table, target="bits", mode="scale", candidate="log_parameters")
    assert scale.chosen == "log_parameters"
    assert "meta.log_parameters" in scale.features
    outputs = fit_proxy(table, target="bits", candidate="best_feature")
    assert not any(name.startswith("meta.") for name in outputs.features)
    assert outputs.validation["log_parameters"].notna().all()


def test_standard_errors_weigh_the_rows(families: Families) -> None:
    table = families().assign(bits_std_error=[0.01] * 9 + [1.0])
    weights = read_references(table, target="bits", groups="family", mode="outputs").weights
    assert weights.mean() == pytest.approx(1)
    assert weights.min() < 0.01 * weights.max()


def test_explanations_name_features_and_add_up(fitted: Proxy) -> None:
    explained = fitted.explain(fitted.references.head(2))
    assert set(explained["feature"]) == set(fitted.features)
    first = explained[explained["model"] == explained["model"].iloc[0]]
    assert first["contribution"].abs().is_monotonic_decreasing
    values = fitted.references.head(1)[list(fitted.features)].iloc[0].astype(float)
    np.testing.assert_allclose(first.set_index("feature")["value"].astype(float)[values.index], values)


@pytest.mark.slow
def test_two_hundred_references_of_sixty_features_fit(families: Families) -> None:
    table = families(25, 8, features=60)
    proxy = fit_proxy(table, target="bits")  # benchmarks/fitting.py says how long it takes
    assert len(proxy.validation) == 200
    assert proxy.unit == "family"


@pytest.mark.slow
def test_new_families_are_covered_with_the_candidate_chosen_by_the_data() -> None:
    """Over 200 draws of five families of unlike sizes and one row of a sixth, within binomial error.

    Five families tell of 50 and 80 %; more of them would take minutes, as every draw chooses a candidate six times.
    """
    levels = LEVELS[:2]
    hits = np.zeros(2)
    for draw in range(200):
        rng = np.random.default_rng(draw)
        sizes = [1, 1, 2, 3, 5, 1]
        labels = np.repeat([f"f{i}" for i in range(6)], sizes)
        ability = rng.normal(size=len(labels))
        shift = np.repeat(rng.normal(size=6) * 0.5, sizes)
        X = pd.DataFrame(np.outer(ability, [1.0, -1.0, 0.5]) + rng.normal(size=(len(labels), 3)) * 0.3)
        X = X.set_axis(["a", "b", "c"], axis=1).assign(family=labels)
        y = ability + shift + rng.normal(size=len(labels)) * 0.1
        regressor = ProxyRegressor(group_column="family", family_column="family")
        known = Intervals.fit(regressor, X[:-1], y[:-1], np.ones(len(y) - 1), labels[:-1])
        _, lower, upper = known.predict(X[-1:], levels)
        hits += (lower[0] <= y[-1]) & (y[-1] <= upper[0])
    for level, count in zip(levels, hits, strict=True):
        # exact 99.9 % binomial limits; five families step by a sixth, so up to so much more than nominal is no fault
        assert binom.ppf(0.0005, 200, level) <= count <= binom.ppf(0.9995, 200, level + 1 / 6), level
