import numpy as np
import pandas as pd
import pytest
from mapie.conformity_scores import BaseRegressionScore
from mapie.regression import CrossConformalRegressor
from scipy.stats import binom
from sklearn.base import clone
from sklearn.model_selection import PredefinedSplit

from estimators.base import InputError
from proxy.regression.folds import fold_of, rows_needed
from proxy.regression.intervals import LEVELS, Intervals, require_rows
from proxy.regression.links import EDGE, Link
from proxy.regression.regressor import ProxyRegressor

NEW = pd.DataFrame({"a": [0.3, -1.0]})


def example(
    n: int, seed: int = 0, bounds: tuple[float | None, float | None] = (None, None)
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """One feature, a noisy target, and a name per row."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.normal(size=n)})
    y = Link(bounds).inverse(X["a"].to_numpy() + rng.normal(size=n) * 0.3)
    return X, y, np.array([f"m{i}" for i in range(n)])


class LinkResidual(BaseRegressionScore):  # type: ignore[misc]
    """Absolute residual on the scale of the link, as MAPIE asks for it."""

    def __init__(self, bounds: tuple[float | None, float | None] = (None, None)) -> None:
        super().__init__(sym=True, consistency_check=False)
        self.bounds = bounds

    def get_signed_conformity_scores(self, y: np.ndarray, y_pred: np.ndarray, **_: object) -> np.ndarray:
        return Link(self.bounds).forward(np.asarray(y)) - Link(self.bounds).forward(np.asarray(y_pred))

    def get_estimation_distribution(self, y_pred: np.ndarray, conformity_scores: np.ndarray, **_: object) -> np.ndarray:
        link = Link(self.bounds)
        return link.inverse(link.forward(np.asarray(y_pred)) + conformity_scores)


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (0.0, 1.0)])
@pytest.mark.parametrize("n", [9, 10, 19, 24])
def test_with_one_row_per_group_ends_are_those_of_mapie(n: int, bounds: tuple[float | None, float | None]) -> None:
    X, y, models = example(n, bounds=bounds)
    weights = np.linspace(0.5, 1.5, n)
    regressor = ProxyRegressor("ridge", bounds)
    estimate, lower, upper = Intervals.fit(regressor, X, y, weights, models).predict(NEW)
    conformal = CrossConformalRegressor(
        regressor,
        confidence_level=list(LEVELS),
        conformity_score=LinkResidual(bounds),
        method="plus",  # jackknife+ with a row per fold, CV+ with several
        cv=PredefinedSplit(fold_of(models)),
    )
    conformal.fit_conformalize(X, y, fit_params={"sample_weight": weights})
    theirs, ends = conformal.predict_interval(NEW, aggregate_point_predictions=None, allow_infinite_bounds=True)
    np.testing.assert_array_equal(estimate, theirs)
    for at, level in enumerate(LEVELS):
        if rows_needed(level) > n:  # MAPIE's ends are at infinity
            assert np.isnan([lower[:, at], upper[:, at]]).all()
        else:
            low, high = Link(bounds).snap_to_bounds(ends[:, 0, at], ends[:, 1, at])
            np.testing.assert_allclose(lower[:, at], low, rtol=1e-12)
            np.testing.assert_allclose(upper[:, at], high, rtol=1e-12)


@pytest.mark.parametrize("bounds", [(None, None), (0.0, 1.0)])
@pytest.mark.parametrize("n", [9, 10, 19, 24])
def test_ends_are_order_statistics(n: int, bounds: tuple[float | None, float | None]) -> None:
    """Barber et al. 2021, eq. 1.3: order statistics of the left-out predictions minus and plus the left-out errors."""
    X, y, models = example(n, bounds=bounds)
    regressor, link, folds = ProxyRegressor("best_feature", bounds), Link(bounds), fold_of(models)
    _, lower, upper = Intervals.fit(regressor, X, y, np.ones(n), models).predict(NEW)
    below, above = [], []
    for row in range(n):
        others = folds != folds[row]
        without = clone(regressor).fit(X[others], y[others])
        error = abs(link.forward(y[[row]]) - without.predict_eta(X.iloc[[row]])).item()
        below.append(without.predict_eta(NEW) - error)
        above.append(without.predict_eta(NEW) + error)
    for at, level in enumerate(LEVELS):
        rank = int(np.ceil(round((n + 1) * level, 9)))
        if rank > n:
            assert np.isnan([lower[:, at], upper[:, at]]).all()
        else:
            np.testing.assert_allclose(upper[:, at], link.inverse(np.sort(above, axis=0)[rank - 1]), rtol=1e-9)
            np.testing.assert_allclose(lower[:, at], link.inverse(np.sort(below, axis=0)[n - rank]), rtol=1e-9)


def test_a_large_family_does_not_speak_for_all() -> None:
    # ten precise families of one model, one family of thirty whose errors are ten times as large, and the reverse
    rng = np.random.default_rng(0)
    families = np.array([f"f{i}" for i in range(10)] + ["large"] * 30)
    widths = []
    for noise in (np.where(families == "large", 1.0, 0.1), np.where(families == "large", 0.1, 1.0)):
        X = pd.DataFrame({"a": np.linspace(-1, 1, 40)})
        y = noise * np.sign(rng.normal(size=40))
        intervals = Intervals.fit(ProxyRegressor("mean"), X, y, np.ones(40), families)
        _, lower, upper = intervals.predict(X.head(1))
        widths.append((upper - lower)[0, LEVELS.index(0.8)])
    # of 11 families ten are precise: at 80 % the large one does not matter; by rows it would be three quarters
    assert widths[0] < 1.0
    assert widths[1] > 1.5


def test_levels_count_groups_not_rows() -> None:
    X = pd.DataFrame({"a": np.linspace(-1, 1, 40)})
    families = np.array([f"f{i // 4}" for i in range(40)])
    intervals = Intervals.fit(ProxyRegressor("best_feature"), X, X["a"].to_numpy() + 0.1, np.ones(40), families)
    _, lower, _ = intervals.predict(X.head(1))
    assert intervals.groups == 10
    assert np.isfinite(lower[0]).tolist() == [True, True, True, False]  # 95 % would need 19 families


def test_a_target_on_its_bound_is_covered() -> None:
    # some targets lie on a bound, which no interval between 0 and 1 holds unless it ends there
    rng = np.random.default_rng(0)
    ability = rng.normal(size=60)
    X = pd.DataFrame({"a": ability})
    y = Link((0.0, 1.0)).inverse(4 * ability + rng.normal(size=60) * 0.5)
    y = np.where(y < EDGE, 0.0, np.where(y > 1 - EDGE, 1.0, y))
    models = np.array([f"m{i}" for i in range(60)])
    found = Intervals.fit(ProxyRegressor("best_feature", (0.0, 1.0)), X.head(40), y[:40], np.ones(40), models[:40])
    _, lower, upper = found.predict(X.tail(20))
    on = (y[40:] == 0) | (y[40:] == 1)
    at = LEVELS.index(0.95)
    assert on.sum() >= 4
    assert np.all((lower[on, at] <= y[40:][on]) & (y[40:][on] <= upper[on, at]))


@pytest.mark.slow
def test_intervals_cover_what_they_promise() -> None:
    """Over 200 draws of 12 references and one new model, within binomial error of the nominal level."""
    hits = np.zeros(len(LEVELS))
    for draw in range(200):
        rng = np.random.default_rng(draw)
        X = pd.DataFrame({"a": rng.normal(size=20)})
        y = X["a"].to_numpy() + rng.normal(size=20) * 0.5
        models = np.array([f"m{i:02d}" for i in range(19)])
        regressor = ProxyRegressor("best_feature")
        _, lower, upper = Intervals.fit(regressor, X.iloc[:19], y[:19], np.ones(19), models).predict(X.iloc[19:])
        hits += (lower[0] <= y[19]) & (y[19] <= upper[0])
    for level, count in zip(LEVELS, hits, strict=True):
        # exact 99.9 % binomial limits about the nominal level; CV+ may be a little conservative, so above 1/(n+1) more
        assert binom.ppf(0.0005, 200, level) <= count <= binom.ppf(0.9995, 200, min(level + 0.05, 0.999)), level


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="at least 19"):
        require_rows(18, 0.95, "models")
    with pytest.raises(InputError, match="no proxy is fitted below 9"):
        require_rows(5, 0.5, "models")
    require_rows(9, 0.9, "models")
