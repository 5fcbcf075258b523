from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from proxy.regression.regressor import ProxyRegressor

NOT_REPETITION = {
    "check_sample_weight_equivalence_on_dense_data": "a weight is a precision: a row given twice is two models, "
    "which leaves the choice of a candidate other groups to leave out"
}


@parametrize_with_checks(
    [ProxyRegressor(), ProxyRegressor(one_unit=True)], expected_failed_checks=lambda _: NOT_REPETITION
)
def test_scikit_learn_agrees(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture
def data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    ability = rng.normal(size=30)
    X = pd.DataFrame(np.outer(ability, [1, -1, 0.5]) + rng.normal(size=(30, 3)) * 0.1, columns=["a", "b", "c"])
    return X.assign(family=[f"f{i // 3}" for i in range(30)]), 2 + ability


def fitted(X: pd.DataFrame, y: np.ndarray, **options: Any) -> ProxyRegressor:
    return ProxyRegressor(group_column="family", family_column="family", **options).fit(X, y)


def test_order_of_rows_does_not_matter(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    order = np.random.default_rng(1).permutation(len(y))
    one, other = fitted(X, y), fitted(X.iloc[order], y[order])
    assert one.chosen_ == other.chosen_
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-9)


def test_order_of_columns_and_units_do_not_matter(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    before = fitted(X, y)
    moved = X[["family", "c", "a", "b"]]
    np.testing.assert_allclose(fitted(moved, y).predict(moved), before.predict(X), rtol=1e-8)
    scaled = X.assign(a=X["a"] * 1e6, b=X["b"] * 1e-6 + 40)
    np.testing.assert_allclose(fitted(scaled, y).predict(scaled), before.predict(X), rtol=1e-7)
    np.testing.assert_allclose(fitted(X, 1e6 * y).predict(X), 1e6 * before.predict(X), rtol=1e-7)


@pytest.mark.parametrize("column", [np.nan, 7.0, 1e6 + 1e-9])
def test_a_constant_or_empty_feature_changes_nothing(data: tuple[pd.DataFrame, np.ndarray], column: float) -> None:
    X, y = data
    more = X.assign(z=column)
    np.testing.assert_allclose(fitted(more, y).predict(more), fitted(X, y).predict(X), rtol=1e-8)


def test_missing_values_are_filled_and_marked(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    gaps = X.assign(a=X["a"].where(np.arange(30) % 4 > 0))
    found = fitted(gaps, y)
    assert np.corrcoef(found.predict(gaps), y)[0, 1] > 0.9
    assert found.prepared_names() == ["a", "b", "c", "a"]


def test_a_constant_target_gives_its_value(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, _ = data
    found = fitted(X, np.full(30, 3.0))
    assert found.chosen_ == "mean"
    np.testing.assert_allclose(found.predict(X), 3.0)


def test_ties_go_to_the_simpler() -> None:
    z = np.linspace(-1, 1, 20)
    found = ProxyRegressor().fit(z[:, None], 2 * z + 1)
    assert found.chosen_ == "best_feature"


def test_noisy_rows_weigh_less(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    wrong = y.copy()
    wrong[:3] += 30
    weights = np.where(np.arange(30) < 3, 1e-4, 1.0)
    regressor = ProxyRegressor("ridge", group_column="family", family_column="family")
    trusting = np.abs(regressor.fit(X, wrong).predict(X) - y)[3:].mean()
    weighing = np.abs(regressor.fit(X, wrong, sample_weight=weights).predict(X) - y)[3:].mean()
    assert weighing < 0.2 * trusting


def test_a_bounded_target_stays_within_its_bounds(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    share = 1 / (1 + np.exp(-2 * (y - 2)))
    found = fitted(X, share, bounds=(0.0, 1.0))
    far = X.assign(a=X["a"] * 50, b=X["b"] * 50, c=X["c"] * 50)
    assert np.all((found.predict(far) >= 0) & (found.predict(far) <= 1))
    assert np.corrcoef(found.predict(X), share)[0, 1] > 0.95


def test_log_parameters_needs_its_column(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="size_column"):
        fitted(*data, candidate="log_parameters")


def test_features_in_one_unit_keep_their_sizes() -> None:
    """A feature that hardly varies may be noise: of its own size it counts little, scaled to the others it counts."""
    rng = np.random.default_rng(0)
    ability = rng.normal(size=200)
    X = pd.DataFrame({name: 0.5 + 0.1 * ability + 0.01 * rng.normal(size=200) for name in "ab"})
    X = X.assign(**{name: 0.5 + 0.001 * rng.normal(size=200) for name in "cdefgh"})
    y = 1 / (1 + np.exp(-ability))
    one = ProxyRegressor("principal_components", (0.0, 1.0), one_unit=True).fit(X, y)
    each = ProxyRegressor("principal_components", (0.0, 1.0)).fit(X, y)
    assert one.head_.axes_.shape[1] == 1  # 95 % of the variance lies along what a and b share
    assert each.head_.axes_.shape[1] > 1
    scaled = ProxyRegressor("principal_components", (0.0, 1.0), one_unit=True).fit(1e6 * X, y)
    np.testing.assert_allclose(scaled.predict(1e6 * X), one.predict(X), atol=1e-9)


def test_gaps_in_features_of_one_unit_are_filled_without_marks(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    X = X.drop(columns="family").mask(np.random.default_rng(1).random((30, 3)) < 0.1)
    one = ProxyRegressor("ridge", one_unit=True).fit(X, y)
    assert one.prepared_names() == ["a", "b", "c"]
    assert len(ProxyRegressor("ridge").fit(X, y).prepared_names()) > 3
    assert np.isfinite(one.predict(X)).all()
