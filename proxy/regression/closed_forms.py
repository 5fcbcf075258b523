"""Closed forms behind the candidates: weighted centring, principal axes, PLS-1, ridge with exact left-out errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PENALTIES = np.logspace(-5, 1, 13)  # of ridge, relative to the trace of the features' scatter matrix
VARIANCE_KEPT = 0.95
MOST_COMPONENTS = 5


def centred(Z: Array, t: Array, weights: Array) -> tuple[Array, Array, Array, float]:
    """Return the weighted mean of the features, features and target about their means, and the target's mean."""
    centre = np.average(Z, axis=0, weights=weights)
    mean = float(np.average(t, weights=weights))
    return centre, Z - centre, t - mean, mean


def thin_svd(matrix: Array) -> tuple[Array, Array, Array]:
    """Return U (n, r), singular values (r,) and V' (r, p), r = min(n, p); a wide matrix is made square by QR first."""
    if matrix.shape[1] <= matrix.shape[0]:
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
        return left, singular, right
    basis, triangle = np.linalg.qr(matrix.T)
    left, singular, right = np.linalg.svd(triangle.T)
    return left, singular, right @ basis.T


def kernel(a: Array, b: Array, linear: float, length: float) -> Array:
    """Return the mixture (m, n) of a linear kernel (its share: `linear`) and a squared-exponential one of `length`."""
    inner = a @ b.T  # (m, n)
    square = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :] - 2 * inner
    return np.asarray(linear * inner + (1 - linear) * np.exp(-np.maximum(square, 0.0) / (2 * length**2)))


def principal(Z: Array, weights: Array, components: int | None = None) -> Array:
    """Return the first principal axes (p, k) of `Z`: `components`, or the fewest that keep 95 % of it, at most five."""
    root = np.sqrt(weights / weights.mean())[:, None]  # (n, 1)
    _, singular, axes = thin_svd((Z - np.average(Z, axis=0, weights=weights)) * root)  # (r,), (r, p)
    total = float(np.sum(singular**2))
    if total <= 1e-12 * Z.size:
        return np.zeros((Z.shape[1], 0))
    kept = min(int(np.searchsorted(np.cumsum(singular**2) / total, VARIANCE_KEPT)) + 1, MOST_COMPONENTS)
    if components is not None:
        kept = min(components, int(np.sum(singular**2 > 1e-12 * total)))
    axes = axes[:kept]  # (k, p)
    # the sign of an axis is arbitrary; fix it, so that the order of rows cannot turn it
    axes = axes * np.sign(axes[np.arange(len(axes)), np.argmax(np.abs(axes), axis=1)])[:, None]
    return np.asarray(axes.T)


def pls_path(Z: Array, t: Array, weights: Array, most: int) -> tuple[Array, float, Array, Array]:
    """Return centre (p,), mean, coefficients (p, most) by number of components, and rotations (p, most) of PLS-1."""
    centre, X, residual, mean = centred(Z, t, weights)  # (p,), (n, p), (n,), a number
    directions: list[Array] = []
    loadings: list[Array] = []
    path: list[Array] = []
    coef = np.zeros(Z.shape[1])  # (p,)
    for _ in range(most):
        direction = X.T @ (weights * residual)  # (p,)
        norm = float(np.linalg.norm(direction))
        if norm > 1e-10:
            direction = direction / norm
            score = X @ direction  # (n,)
            size = float(weights @ score**2)
            loading = X.T @ (weights * score) / size  # (p,)
            # rotation r = W (P'W)^-1, one column at a time
            rotation = direction.copy()
            for earlier, rotated in zip(loadings, directions, strict=True):
                rotation -= float(earlier @ direction) * rotated
            slope = float((weights * score) @ residual) / size
            coef = coef + slope * rotation
            residual = residual - slope * score
            X = X - np.outer(score, loading)  # (n, p), without this component
            directions.append(rotation)
            loadings.append(loading)
        path.append(coef)
    rotations = np.column_stack(directions) if directions else np.zeros((Z.shape[1], 0))
    return centre, mean, np.column_stack(path), rotations


def ridge_path(Z: Array, t: Array, weights: Array, folds: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Return leave-group-out residuals (a, n), coefficients (p, a) and intercepts (a,) for every penalty.

    With H the smoother of a quadratically penalised least-squares fit, the residuals of a left-out group g are
    (I - H_gg)^-1 r_g exactly (the unpenalised intercept included), so no refitting is needed.
    """
    root = np.sqrt(weights)  # (n,)
    centre, Zc, tc, mean = centred(Z, t, weights)  # (p,), (n, p), (n,), a number
    U, singular, Vt = thin_svd(Zc * root[:, None])  # (n, r), (r,), (r, p)
    trace = float(np.sum(singular**2))
    if trace <= 1e-12 * Z.size:  # constant features: the mean is all there is
        singular, trace = np.zeros_like(singular), 1.0
    penalties = trace * PENALTIES[:, None]  # (a, 1)
    projected = U.T @ (root * tc)  # (r,)
    shrink = singular**2 / (singular**2 + penalties)  # (a, r): the smoother of root * t is U shrink U' + its mean's
    residual = root * tc - (shrink * projected) @ U.T  # (a, n)
    labels, sizes = np.unique(folds, return_counts=True)
    if np.all(sizes == 1):
        left_out = residual / (1 + 1e-12 - shrink @ (U**2).T - weights / weights.sum())
    else:
        left_out = np.empty_like(residual)
        for label in labels:
            rows = np.flatnonzero(folds == label)
            between = (U[rows] * shrink[:, None, :]) @ U[rows].T  # (a, g, g)
            own = between + np.outer(root[rows], root[rows]) / weights.sum()
            left = np.linalg.solve((1 + 1e-12) * np.eye(len(rows)) - own, residual[:, rows, None])
            left_out[:, rows] = left[:, :, 0]
    coef = Vt.T @ (singular / (singular**2 + penalties) * projected).T  # (p, a)
    return left_out / root, coef, mean - centre @ coef
