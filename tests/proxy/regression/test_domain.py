import numpy as np
import pandas as pd
import pytest

from proxy.regression.domain import WITHHELD, Domain, contributions, estimate_models, widen
from proxy.regression.intervals import Intervals
from proxy.regression.links import Link
from proxy.regression.regressor import ProxyRegressor


@pytest.fixture
def data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(20, 3)), columns=["a", "b", "c"])
    return X, 1 + 2 * X["a"].to_numpy() - X["b"].to_numpy()


def test_references_lie_in_their_own_domain(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    regressor = ProxyRegressor("ridge").fit(*data)
    domain = Domain.of(regressor, data[0])
    Z, _ = regressor.standardised(data[0])
    assert np.all(domain.novelty(Z) <= 1 + 1e-12)
    np.testing.assert_allclose(domain.neighbour(Z), 0, atol=1e-12)
    # trace of a projection: its rank (Hoaglin & Welsch 1978)
    assert domain.leverage(Z).sum() == pytest.approx(regressor.directions(Z).shape[1])


def test_novelty_grows_with_the_distance(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, _ = data
    regressor = ProxyRegressor("ridge").fit(*data)
    domain = Domain.of(regressor, X)
    far = pd.concat([X.mean().to_frame().T + step * X.std() for step in (0, 3, 6, 12)])
    novelty = domain.novelty(regressor.standardised(far)[0])
    assert np.all(np.diff(novelty) > 0)
    assert novelty[0] < 1 < novelty[2]


def test_a_new_combination_is_seen_though_every_feature_is_in_range() -> None:
    # two features that always agree among the references, and a model in which they do not
    z = np.linspace(-2, 2, 20)
    X = pd.DataFrame({"a": z, "b": z + np.random.default_rng(0).normal(size=20) * 0.01})
    regressor = ProxyRegressor("best_feature").fit(X, z)
    novelty = Domain.of(regressor, X).novelty(regressor.standardised(pd.DataFrame({"a": [1.0], "b": [-1.0]}))[0])
    assert novelty[0] > WITHHELD


@pytest.mark.parametrize("candidate", ["mean", "best_feature", "pls", "ridge", "principal_components"])
def test_contributions_of_linear_candidates_add_up(data: tuple[pd.DataFrame, np.ndarray], candidate: str) -> None:
    X, y = data
    regressor = ProxyRegressor(candidate).fit(X, y)
    at_the_mean = regressor.predict_eta(X.mean().to_frame().T)
    np.testing.assert_allclose(
        contributions(regressor, X).sum(axis=1), regressor.predict_eta(X) - at_the_mean, atol=1e-9
    )


def test_a_missing_value_counts_with_its_feature(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    gaps = X.assign(a=X["a"].where(X.index % 3 > 0))
    found = contributions(ProxyRegressor("ridge").fit(gaps, y), gaps)
    assert found.columns.tolist() == ["a", "b", "c"]


def test_intervals_widen_then_end() -> None:
    link = Link()
    estimate, lower, upper = np.zeros(4), -np.ones(4), 2 * np.ones(4)
    low, high = widen(link, estimate, lower, upper, np.array([0.2, 1.0, 2.0, 3.1]))
    np.testing.assert_allclose(low, [-1, -1, -2, np.nan])
    np.testing.assert_allclose(high, [2, 2, 4, np.nan])


def test_widened_intervals_stay_within_the_bounds_and_hold_the_estimate() -> None:
    link = Link((0.0, 1.0))
    estimate = np.array([0.9, 0.9])
    low, high = widen(link, estimate, np.array([0.95, 0.5]), np.array([0.99, 0.99]), np.array([1.0, 2.5]))
    assert np.all((low <= estimate) & (estimate <= high))
    assert np.all((low > 0) & (high < 1))
    assert low[1] < 0.5


@pytest.mark.parametrize("lower", [0.0, 1e-4, 0.004])
def test_a_novel_model_of_a_bounded_target_never_gets_a_narrower_interval(lower: float) -> None:
    # the link's edge is at 0.005: bounds and estimates beyond it must not be moved inwards by going there and back
    link = Link((0.0, 1.0))
    estimate = np.array([0.002, 0.5, 0.998])
    ends = np.full(3, lower), np.array([0.003, 0.999, 1.0])
    for novelty in (1.0, 1.01, 2.9):
        low, high = widen(link, estimate, *ends, np.full(3, novelty))
        assert np.all(low <= np.minimum(estimate, ends[0]))
        assert np.all(high >= np.maximum(estimate, ends[1]))
        assert np.all((low >= 0) & (high <= 1))


@pytest.mark.parametrize(
    ("candidate", "gone"), [("ridge", ["a", "b", "c"]), ("ridge", ["a", "b"]), ("best_feature", ["a"])]
)
def test_what_is_mostly_missing_is_outside_and_gets_no_interval(
    data: tuple[pd.DataFrame, np.ndarray], candidate: str, gone: list[str]
) -> None:
    X, y = data
    intervals = Intervals.fit(ProxyRegressor(candidate), X, y, np.ones(20), np.array([f"m{i}" for i in range(20)]))
    domain = Domain.of(intervals.regressor, X)
    found = estimate_models(intervals, domain, X.head(1).assign(**dict.fromkeys(gone, np.nan)))
    assert not found.inside.any()
    assert np.isnan(found.lower).all()
    # what the candidate hardly looks at may be missing
    kept = estimate_models(intervals, domain, X.mean().to_frame().T.assign(c=np.nan))
    assert kept.inside.all()
    assert np.isfinite(kept.lower).all()


def test_gaps_that_references_have_too_are_no_reason_to_withhold(data: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = data
    X = X.assign(**{name: X[name].where(X.index % 3 > 0) for name in ("a", "b")})
    intervals = Intervals.fit(ProxyRegressor("ridge"), X, y, np.ones(20), np.array([f"m{i}" for i in range(20)]))
    assert np.isfinite(estimate_models(intervals, Domain.of(intervals.regressor, X), X.head(1)).lower).all()


def test_references_in_pairs_do_not_make_everything_else_far() -> None:
    sizes = np.repeat([4.0, 4.5, 5.0, 5.5, 6.0], 2) + np.tile([0.0, 0.001], 5)
    X = pd.DataFrame({"size": sizes})
    regressor = ProxyRegressor("best_feature").fit(X, sizes)
    domain = Domain.of(regressor, X)
    assert np.all(domain.novelty(domain.references) <= 1 + 1e-12)
    novelty = domain.novelty(regressor.standardised(pd.DataFrame({"size": [5.25, 6.5, 9.0]}))[0])
    assert novelty[0] < 1 < novelty[1] < WITHHELD < novelty[2]
