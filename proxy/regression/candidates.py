"""The candidates a proxy chooses from: small regressors on standardised features, simplest first.

Each has `fit(rows)`, `eta(Z, families)` (its prediction on the link's scale) and `directions(Z)`, the (p, k)
projections of the features it looks at, which is the space its domain is judged in. Whatever a candidate has to
choose (a penalty, a number of components) it chooses by leaving groups out of the rows it was given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from sklearn.base import BaseEstimator

from proxy.regression.closed_forms import centred, kernel, pls_path, principal, ridge_path
from proxy.regression.folds import fold_of
from proxy.regression.links import Link

Array = NDArray[np.float64]
Labels = NDArray[np.str_]

FAMILY_SCALES = (0.5, 3.0)  # standard deviation of a family's shift, in units of one standardised feature
REWEIGHTINGS = 8  # at most
SETTLED = 1e-9  # change of a prediction on the scale of the link, below which reweighting ends
LAW = "scaling_law"
LAW_COMPONENTS = 3
LINEAR_SHARES = (0.5, 0.9, 0.99)
LENGTHS = (0.5, 1.5)  # of the Gaussian process, in units of the references' RMS distance from their mean
NOISES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # relative to the signal's variance


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows: `Z` (n, p) standardised and complete, targets `y` (n,), `weights` (n,) positive.

    `groups` (n,) are left out together; `families` (n,) may be wider, or the same. `sizes` (n,) are log parameters, NaN
    where unknown; they are known of references alone.
    """

    Z: Array
    y: Array
    weights: Array
    groups: Labels
    families: Labels
    link: Link
    sizes: Array | None = None

    def take(self, kept: NDArray[np.bool_]) -> Rows:
        """Return the rows where `kept` (n,) is true."""
        sizes = None if self.sizes is None else self.sizes[kept]
        part = (self.Z[kept], self.y[kept], self.weights[kept], self.groups[kept], self.families[kept])
        return Rows(*part, self.link, sizes)


def rotated(rows: Rows) -> tuple[Rows, Array | None]:
    """Return the rows in an orthonormal basis of the space they span, and that basis (p, q), where p > n; else as is.

    What is learned from inner products alone does not change by it, and is much faster: hundreds of words, few models.
    """
    count, features = rows.Z.shape
    if features <= count:
        return rows, None
    basis, triangle = np.linalg.qr(rows.Z.T)
    return replace(rows, Z=np.ascontiguousarray(triangle.T)), basis


class Candidate(BaseEstimator):  # type: ignore[misc]
    """What all candidates share: a linear form on the link's scale unless they override `eta`."""

    intercept_: float
    coef_: Array

    def fit(self, rows: Rows) -> Candidate:
        """Learn from standardised features (n, p) and targets (n,)."""
        raise NotImplementedError

    def eta(self, Z: Array, families: Labels | None = None) -> Array:
        """Predict (n,) values on the link's scale."""
        return np.asarray(self.intercept_ + Z @ self.coef_)

    def rotate_back(self, basis: Array) -> None:
        """Express what was learned on rows in `basis` (p, q) in the original features (see `rotated`)."""
        for name in ("coef_", "rotations_", "axes_", "centre_"):  # those with one entry per feature
            if hasattr(self, name):
                setattr(self, name, basis @ getattr(self, name))

    def directions(self, Z: Array) -> Array:
        """Return the projections (p, k) of the training features `Z` (n, p) that the prediction depends on."""
        return principal(Z, np.ones(len(Z)))


class Mean(Candidate):
    """The weighted mean of the targets: what any proxy has to beat."""

    def fit(self, rows: Rows) -> Mean:
        """Learn the mean."""
        self.intercept_ = rows.link.forward(np.array([np.average(rows.y, weights=rows.weights)])).item()
        self.coef_ = np.zeros(rows.Z.shape[1])
        return self

    def directions(self, Z: Array) -> Array:
        """Return no direction (p, 0): the mean looks at nothing."""
        return np.zeros((Z.shape[1], 0))


class BestFeature(Candidate):
    """A straight line on the feature that correlates most with the target."""

    def fit(self, rows: Rows) -> BestFeature:
        """Choose the feature and learn its line."""
        Z, weights = rows.Z, rows.weights
        centre, Zc, t, t_mean = centred(Z, rows.link.forward(rows.y), weights)
        scatter = weights @ Zc**2
        gain = np.divide((weights * t) @ Zc, scatter, out=np.zeros(Z.shape[1]), where=scatter > 1e-12 * weights.sum())
        best = int(np.argmax(np.round(gain**2 * scatter, 12)))
        self.coef_ = np.zeros(Z.shape[1])
        self.coef_[best] = gain[best]
        self.intercept_ = float(t_mean - centre @ self.coef_)
        return self

    def directions(self, Z: Array) -> Array:
        """Return the one feature (p, 1)."""
        return np.asarray(self.coef_ != 0, dtype=np.float64)[:, None]


class PartialLeastSquares(Candidate):
    """PLS-1 (Wold 1975) with weights; one to three components, by leaving groups out."""

    def fit(self, rows: Rows) -> PartialLeastSquares:
        """Choose the number of components and learn their coefficients."""
        Z, weights, target = rows.Z, rows.weights, rows.link.forward(rows.y)
        most = max(1, min(3, Z.shape[1], len(target) // 5))
        self.components_ = 1
        if most > 1:
            folds = fold_of(rows.groups)
            loss = np.zeros(most)
            for fold in np.unique(folds):
                kept, left = folds != fold, folds == fold
                centre, mean, path, _ = pls_path(Z[kept], target[kept], weights[kept], most)
                error = target[left][:, None] - mean - (Z[left] - centre) @ path
                loss += weights[left] @ error**2
            # the fewest components within 1 % of the least loss
            self.components_ = int(np.argmax(loss <= 1.01 * loss.min())) + 1
        centre, mean, path, rotations = pls_path(Z, target, weights, self.components_)
        self.coef_ = path[:, -1]
        self.intercept_ = float(mean - centre @ self.coef_)
        self.rotations_ = rotations
        return self

    def directions(self, Z: Array) -> Array:
        """Return the components (p, k)."""
        return self.rotations_


class Ridge(Candidate):
    """Ridge regression whose penalty minimises the exact leave-group-out error, in closed form.

    With a logit link this is penalised fractional logit (Papke & Wooldridge 1996) by iteratively reweighted least
    squares: least squares on logits would let points near a bound dominate.
    """

    def fit(self, rows: Rows) -> Ridge:
        """Choose the penalty and learn the coefficients."""
        self._learn(rows)
        return self

    def _learn(self, rows: Rows) -> Array:
        """Fit, and return what is estimated (n,) of each row without its group, on the link's scale."""
        folds, target = fold_of(rows.groups), rows.link.forward(rows.y)
        left_out = self._solve(rows, target, rows.weights, folds)
        if rows.link.name == "logit":
            eta = self.eta(rows.Z)
            for _ in range(REWEIGHTINGS):
                slope = rows.link.slope(eta)
                slope = np.maximum(slope, 0.05 * slope.max())
                step = np.clip((rows.y - rows.link.inverse(eta)) / slope, -3.0, 3.0)
                left_out = self._solve(rows, eta + step, rows.weights * slope, folds)
                before, eta = eta, self.eta(rows.Z)
                if np.abs(eta - before).max() < SETTLED:
                    break
        return left_out

    def _solve(self, rows: Rows, target: Array, weights: Array, folds: NDArray[np.int64]) -> Array:
        residuals, coef, intercept = ridge_path(rows.Z, target, weights, folds)
        best = int(np.argmin(np.round(residuals**2 @ weights, 12)))
        self.coef_, self.intercept_ = coef[:, best], float(intercept[best])
        return np.asarray(target - residuals[best])


class StretchedRidge(Ridge):
    """Ridge regression, stretched by the line of the targets on its own left-out estimates (calibration, Cox 1958).

    The penalty that estimates other groups best still draws them towards the mean of the references: the weakest are
    overrated and the strongest underrated. A slope below 0 counts as 0.
    """

    def fit(self, rows: Rows) -> StretchedRidge:
        """Learn the regression, then the line."""
        left_out = self._learn(rows)  # (n,)
        middle, around, t, height = centred(left_out[:, None], rows.link.forward(rows.y), rows.weights)
        scatter = float(rows.weights @ around[:, 0] ** 2)
        slope = max(0.0, float(rows.weights @ (around[:, 0] * t)) / scatter) if scatter > 1e-12 * len(t) else 0.0
        self.coef_ = slope * self.coef_
        self.intercept_ = height + slope * (self.intercept_ - middle.item())
        return self


class FamilyPooled(Candidate):
    """Ridge with a shrunken shift per family (a random intercept): slopes come mostly from within families.

    A family met in training keeps its shift when predicting; one never met has none.
    """

    def fit(self, rows: Rows) -> FamilyPooled:
        """Choose penalty and spread of the shifts, learn both."""
        target, folds = rows.link.forward(rows.y), fold_of(rows.groups)
        self.families_ = np.unique(rows.families)
        shifts = (rows.families[:, None] == self.families_[None, :]).astype(np.float64)
        best = np.inf
        p = rows.Z.shape[1]
        for scale in FAMILY_SCALES:
            residuals, coef, intercept = ridge_path(np.hstack([rows.Z, scale * shifts]), target, rows.weights, folds)
            loss = residuals**2 @ rows.weights
            at = int(np.argmin(np.round(loss, 12)))
            if loss[at] < best:
                best = float(loss[at])
                self.coef_, self.shifts_, self.intercept_ = coef[:p, at], scale * coef[p:, at], float(intercept[at])
        return self

    def eta(self, Z: Array, families: Labels | None = None) -> Array:
        """Predict (n,) values on the link's scale, with the shift of known families."""
        eta = super().eta(Z)
        if families is not None:
            eta = eta + (families[:, None] == self.families_[None, :]) @ self.shifts_
        return eta


class OutputLine(FamilyPooled):
    """What the output says by itself: cost of the next token and J2 - micro, with a shrunken shift per family.

    Named before any data was seen. Of the two features it takes those that the way of asking gives (`OUTPUT_LINE`).
    """


class SizeSurrogate(Candidate):
    """Log parameters learned from output features by ridge regression, then the target as a line in log parameters.

    The size of references is known, that of the model to estimate is not: whatever the surrogate mistakes it by is in
    the left-out errors, and so in the interval. References of unknown size teach neither step.
    """

    def fit(self, rows: Rows) -> SizeSurrogate:
        """Learn both steps."""
        sizes = np.full(len(rows.y), np.nan) if rows.sizes is None else rows.sizes
        known = np.isfinite(sizes)
        if len(np.unique(rows.groups[known])) < 3 or np.ptp(sizes[known]) <= 0:
            self.intercept_ = float(np.average(rows.link.forward(rows.y), weights=rows.weights))
            self.coef_ = np.zeros(rows.Z.shape[1])
            return self
        part = rows.take(known)
        size, target, weights = sizes[known], rows.link.forward(part.y), part.weights
        surrogate = Ridge().fit(replace(part, y=size, link=Link()))
        mean = np.average(size, weights=weights)
        slope = float(weights @ ((size - mean) * target) / (weights @ (size - mean) ** 2))
        height = float(np.average(target, weights=weights) - slope * mean)
        self.coef_ = slope * surrogate.coef_
        self.intercept_ = height + slope * surrogate.intercept_
        return self


class PrincipalComponents(Candidate):
    """Few principal components through the link, as Observational Scaling Laws do (Ruan et al. 2024, eq. 3 and 7).

    Fitted by a Huber loss on the target's own scale (not on logits, where points near a bound would dominate); the
    number of components is the fewest that keep 95 % of the features' variance, a choice that sees no target.
    """

    def fit(self, rows: Rows) -> PrincipalComponents:
        """Learn the components and the curve over them."""
        Z, y, weights, link = rows.Z, rows.y, rows.weights, rows.link
        directions = self._axes(Z, weights)  # (p, k)
        directions = directions[:, : max(1, (len(np.unique(rows.groups)) - 1) // 2)]
        centre = np.average(Z, axis=0, weights=weights)
        scores = (Z - centre) @ directions  # (n, k)
        spread = np.sqrt(np.average(scores**2, axis=0, weights=weights))  # positive: empty axes were not kept
        scores, directions = scores / spread, directions / spread
        design = np.column_stack([np.ones(len(y)), scores])  # (n, 1 + k)
        unit = float(np.ptp(y)) or 1.0
        root = np.sqrt(weights / weights.mean())
        start, *_ = np.linalg.lstsq(design * root[:, None], link.forward(y) * root, rcond=None)
        beta = start
        if link.name != "identity":
            fitted = least_squares(
                lambda b: root * (link.inverse(design @ b) - y) / unit,
                start,
                jac=lambda b: (root * link.slope(design @ b) / unit)[:, None] * design,
                loss="huber",
                max_nfev=100,
            )
            beta = fitted.x
        self.axes_ = directions
        self.coef_ = directions @ beta[1:]  # (p,)
        self.intercept_ = float(beta[0] - centre @ self.coef_)
        return self

    def _axes(self, Z: Array, weights: Array) -> Array:
        return principal(Z, weights)

    def directions(self, Z: Array) -> Array:
        """Return the components (p, k)."""
        return self.axes_


class ScalingLaw(PrincipalComponents):
    """The form of Observational Scaling Laws as published: three principal components, whatever they keep.

    For features that are accuracies in one unit and a target with two bounds; elsewhere three is no better a number
    than another.
    """

    def _axes(self, Z: Array, weights: Array) -> Array:
        return principal(Z, weights, components=LAW_COMPONENTS)


class GaussianProcess(Candidate):
    """A Gaussian process on the principal components: the one candidate that can bend.

    Squared-exponential kernel; length and noise maximise the marginal likelihood over a grid, the signal's variance
    in closed form (Rasmussen & Williams 2006, eq. 5.8), which needs one eigendecomposition per length.
    """

    def fit(self, rows: Rows) -> GaussianProcess:
        """Choose length and noise, learn the process."""
        Z, weights, target = rows.Z, rows.weights, rows.link.forward(rows.y)
        self.axes_ = principal(Z, weights)  # (p, k)
        self.centre_ = np.average(Z, axis=0, weights=weights)
        self.mean_ = float(np.average(target, weights=weights))
        scores = (Z - self.centre_) @ self.axes_  # (n, k)
        self.unit_ = float(np.sqrt(np.mean(np.sum(scores**2, axis=1)))) or 1.0 if scores.size else 1.0
        self.scores_ = scores / self.unit_
        root = np.sqrt(weights)  # a row's noise is inverse to its weight
        residual = root * (target - self.mean_)
        best = -np.inf
        for linear, length in itertools.product(LINEAR_SHARES, LENGTHS):
            gram = kernel(self.scores_, self.scores_, linear, length)
            values, vectors = np.linalg.eigh(np.outer(root, root) * gram)
            projected = (vectors.T @ residual) ** 2
            for noise in NOISES:
                spectrum = np.maximum(values, 0.0) + noise
                likelihood = -len(target) * np.log(max(np.sum(projected / spectrum), 1e-300)) - np.log(spectrum).sum()
                if likelihood > best + 1e-9:
                    best = likelihood
                    self.linear_, self.length_, self.noise_ = linear, length, noise
                    self.dual_ = root * (vectors @ ((vectors.T @ residual) / spectrum))
        return self

    def eta(self, Z: Array, families: Labels | None = None) -> Array:
        """Predict (n,) values on the link's scale: the posterior mean."""
        scores = (Z - self.centre_) @ self.axes_ / self.unit_
        return np.asarray(self.mean_ + kernel(scores, self.scores_, self.linear_, self.length_) @ self.dual_)

    def directions(self, Z: Array) -> Array:
        """Return the components (p, k)."""
        return self.axes_


class Average(Candidate):
    """The plain average, on the link's scale, of all candidates that weigh features: steadier than any one of them."""

    def fit(self, rows: Rows) -> Average:
        """Fit the members."""
        self.members_ = [CANDIDATES[name]().fit(rows) for name in AVERAGED]
        return self

    def rotate_back(self, basis: Array) -> None:
        """Express every member in the original features."""
        for member in self.members_:
            member.rotate_back(basis)

    def eta(self, Z: Array, families: Labels | None = None) -> Array:
        """Predict (n,) values on the link's scale."""
        return np.asarray(np.mean([member.eta(Z, families) for member in self.members_], axis=0))


# Simplest first: ties go to the earlier.
CANDIDATES: dict[str, type[Candidate]] = {
    "mean": Mean,
    "log_parameters": BestFeature,  # on the one column of model sizes
    "best_feature": BestFeature,
    "output_line": OutputLine,
    "size_surrogate": SizeSurrogate,
    "pls": PartialLeastSquares,
    "ridge": Ridge,
    "stretched_ridge": StretchedRidge,
    "principal_components": PrincipalComponents,
    LAW: ScalingLaw,  # of accuracies alone
    "family_pooled": FamilyPooled,
    "gaussian_process": GaussianProcess,
    "average": Average,
}
AVERAGED = ("pls", "ridge", "principal_components", "family_pooled", "gaussian_process")
OUTPUT = "output."  # of the features that output_line and size_surrogate are made for
OUTPUT_LINE = ("output.nll", "output.j2_e")
LINES = ("mean", "log_parameters", "best_feature", "output_line", "size_surrogate")  # what few models can tell apart
BY_COLUMN = ("mean", "log_parameters", "best_feature")  # the others learn from inner products of rows alone


def offered(features: Iterable[str], *, size: bool, reference_size: bool, one_unit: bool = False) -> list[str]:
    """Return the candidates that can be fitted, simplest first.

    Args:
        features: names of the features.
        size: whether log parameters are known of models to estimate, too.
        reference_size: whether they are known of references.
        one_unit: whether all features are in one unit, as accuracies are.

    >>> offered(["behaviour.length"], size=False, reference_size=True)[:4]
    ['mean', 'best_feature', 'pls', 'ridge']
    """
    names = set(features)
    absent = set() if size else {"log_parameters"}
    if not one_unit:
        absent.add(LAW)
    if not names & set(OUTPUT_LINE):
        absent.add("output_line")
    if not (reference_size and any(name.startswith(OUTPUT) for name in names)):
        absent.add("size_surrogate")
    return [name for name in CANDIDATES if name not in absent]
