import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.cross_decomposition import PLSRegression
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel
from sklearn.linear_model import Ridge

from proxy.regression.candidates import (
    CANDIDATES,
    BestFeature,
    FamilyPooled,
    GaussianProcess,
    PrincipalComponents,
    Rows,
)
from proxy.regression.closed_forms import PENALTIES, pls_path, principal, ridge_path, thin_svd
from proxy.regression.folds import MOST_FOLDS, fold_of, rows_needed
from proxy.regression.links import Link


def problem(n: int = 24, p: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, p))
    return Z, Z @ rng.normal(size=p) + rng.normal(size=n), np.exp(rng.normal(size=n) / 2)


def rows(Z: np.ndarray, y: np.ndarray, link: Link | None = None, families: np.ndarray | None = None) -> Rows:
    models = np.array([f"m{i:03d}" for i in range(len(y))])
    return Rows(Z, y, np.ones(len(y)), models, models if families is None else families, link or Link())


@given(seed=st.integers(0, 2**31), size=st.sampled_from([1, 2, 3]))
@settings(max_examples=15, deadline=None)
def test_closed_form_left_out_errors_equal_refitting(seed: int, size: int) -> None:
    Z, t, weights = problem(12, 5, seed)
    folds = np.arange(12) // size
    residuals, coef, intercept = ridge_path(Z, t, weights, folds)
    centre = np.average(Z, axis=0, weights=weights)
    penalties = PENALTIES * np.sum(weights[:, None] * (Z - centre) ** 2)
    for at in (0, 6, 12):
        whole = Ridge(penalties[at]).fit(Z, t, sample_weight=weights)
        np.testing.assert_allclose(whole.predict(Z), intercept[at] + Z @ coef[:, at], rtol=1e-6, atol=1e-8)
        for fold in np.unique(folds):
            kept = folds != fold
            left = Ridge(penalties[at]).fit(Z[kept], t[kept], sample_weight=weights[kept])
            # 1e-12 on the diagonal keeps the solve regular
            np.testing.assert_allclose(residuals[at][~kept], t[~kept] - left.predict(Z[~kept]), rtol=1e-5, atol=1e-8)


def test_a_stretched_ridge_undoes_what_the_penalty_draws_to_the_mean() -> None:
    # 24 noisy readings of one quantity for 12 models: the penalty that errs least draws new ones towards the mean
    slopes = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        level = rng.normal(size=200)
        Z = level[:, None] + 3 * rng.normal(size=(200, 24))
        plain, stretched = (CANDIDATES[name]().fit(rows(Z[:12], level[:12])) for name in ("ridge", "stretched_ridge"))
        assert np.ptp(stretched.coef_ * plain.coef_.sum() - plain.coef_ * stretched.coef_.sum()) < 1e-9
        slopes.append(stretched.coef_.sum() / plain.coef_.sum())
    assert np.median(slopes) > 1


@pytest.mark.parametrize("shape", [(20, 5), (5, 20), (6, 6)])
def test_wide_matrices_are_decomposed_like_any(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    left, singular, right = thin_svd(matrix)
    assert left.shape[1] == len(singular) == len(right) == min(shape)
    np.testing.assert_allclose(singular, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(left * singular @ right, matrix, atol=1e-12)
    np.testing.assert_allclose(right @ right.T, np.eye(min(shape)), atol=1e-12)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_pls_equals_scikit_learn(components: int) -> None:
    Z, t, _ = problem()
    centre, mean, path, _ = pls_path(Z, t, np.ones(len(t)), components)
    slow = PLSRegression(components, scale=False).fit(Z, t)
    np.testing.assert_allclose(mean + (Z - centre) @ path[:, -1], slow.predict(Z), rtol=1e-8)


def test_pls_with_weights_equals_repeated_rows() -> None:
    Z, t, _ = problem()
    counts = np.arange(len(t)) % 3 + 1
    weighted = pls_path(Z, t, counts.astype(float), 2)[2]
    repeated = pls_path(np.repeat(Z, counts, axis=0), np.repeat(t, counts), np.ones(counts.sum()), 2)[2]
    np.testing.assert_allclose(weighted, repeated, rtol=1e-8)


def test_the_process_equals_scikit_learn_at_its_parameters() -> None:
    Z, t, _ = problem()
    head = GaussianProcess().fit(rows(Z, t))
    kernel = head.linear_ * DotProduct(1e-9) + (1 - head.linear_) * RBF(head.length_) + WhiteKernel(head.noise_)
    slow = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(head.scores_, t - t.mean())
    new = problem(seed=1)[0]
    scores = (new - Z.mean(axis=0)) @ head.axes_ / head.unit_
    np.testing.assert_allclose(head.eta(new), t.mean() + slow.predict(scores), rtol=1e-6)


def test_principal_components_find_the_best_curve() -> None:
    rng = np.random.default_rng(0)
    ability = np.linspace(-3, 3, 40)
    Z = np.outer(ability, [1.0, 0.8, 1.2]) + rng.normal(size=(40, 3)) * 0.01
    link = Link((0.0, 1.0))
    y = link.inverse(1.5 * ability + 0.5) + rng.normal(size=40) * 0.01
    head = PrincipalComponents().fit(rows(Z, np.clip(y, 0, 1), link))
    score = (Z - Z.mean(axis=0)) @ principal(Z, np.ones(40))
    slow = minimize(
        lambda b: np.sum((link.inverse(b[0] + score @ b[1:]) - np.clip(y, 0, 1)) ** 2), np.zeros(1 + score.shape[1])
    )
    fast = np.sum((link.inverse(head.eta(Z)) - np.clip(y, 0, 1)) ** 2)
    assert fast <= slow.fun * 1.001


def test_best_feature_takes_the_one_that_matters() -> None:
    Z, _, _ = problem()
    head = BestFeature().fit(rows(Z, 3 * Z[:, 2] + 1))
    assert np.flatnonzero(head.coef_).tolist() == [2]
    np.testing.assert_allclose(head.eta(Z), 3 * Z[:, 2] + 1)


def test_pooling_separates_slope_from_family() -> None:
    # within families y rises with z, between them it falls: only the pooled slope has the right sign
    rng = np.random.default_rng(0)
    families = np.repeat([f"f{i}" for i in range(10)], 6)
    shift = np.repeat(np.linspace(-4, 4, 10), 6)
    z = shift + rng.normal(size=60) * 0.5
    y = z - 3 * shift
    pooled = FamilyPooled().fit(rows(z[:, None], y, families=families))
    assert pooled.coef_[0] > 0.5
    assert np.polyfit(z, y, 1)[0] < 0
    known = pooled.eta(np.zeros((2, 1)), np.array(["f0", "f9"]))
    assert known[0] > known[1]
    assert pooled.eta(np.zeros((1, 1)), np.array(["new"])) == pytest.approx(pooled.intercept_)


@pytest.mark.parametrize("name", [*CANDIDATES])
@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (0.0, 1.0)])
def test_every_candidate_survives_constant_features(name: str, bounds: tuple[float | None, float | None]) -> None:
    y = np.linspace(0.1, 0.9, 10)
    head = CANDIDATES[name]().fit(rows(np.zeros((10, 3)), y, Link(bounds)))
    found = Link(bounds).inverse(head.eta(np.ones((2, 3)), np.array(["m000", "m009"])))
    assert np.all(np.isfinite(found))
    assert np.all((found > 0) & (found < 1))


def test_folds_keep_groups_together_whatever_the_order() -> None:
    groups = np.array([f"g{i % 23}" for i in range(80)])
    folds = fold_of(groups)
    assert len(np.unique(folds)) == MOST_FOLDS
    assert all(len(np.unique(folds[groups == group])) == 1 for group in groups)
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_array_equal(fold_of(groups[order]), folds[order])


@given(level=st.floats(0.01, 0.99))
def test_rows_needed_is_the_least_n_with_a_quantile(level: float) -> None:
    n = rows_needed(level)
    assert np.ceil(round((n + 1) * level, 9)) <= n
    assert n == 1 or np.ceil(round(n * level, 9)) > n - 1


@given(y=st.floats(0.01, 0.99))
@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (0.0, 1.0), (-3.0, 2.0)])
def test_links_invert(bounds: tuple[float | None, float | None], y: float) -> None:
    link = Link(bounds)
    eta = link.forward(np.array([y]))
    np.testing.assert_allclose(link.inverse(eta), y, rtol=1e-9)
    step = 1e-6
    slope = (link.inverse(eta + step) - link.inverse(eta - step)) / (2 * step)
    np.testing.assert_allclose(link.slope(eta), slope, rtol=1e-5)
