"""One scikit-learn estimator behind every proxy: prepare the features, choose a candidate, predict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from proxy.regression.candidates import (
    AVERAGED,
    BY_COLUMN,
    CANDIDATES,
    LAW,
    LAW_COMPONENTS,
    LINES,
    OUTPUT,
    OUTPUT_LINE,
    Rows,
    offered,
    rotated,
)
from proxy.regression.closed_forms import thin_svd
from proxy.regression.folds import fold_of
from proxy.regression.links import Bounds, Link

GROUPS_TO_BEND = 20  # fewer groups with output features choose among `LINES`: more freedom only fits their errors
ROWS_TO_CHOOSE = 15  # fewer rows than that tell kinds of features apart by chance alone: all are used

# What chance alone does to a feature of a kind, in its unit, where that is more than nothing: the log odds of a word in
# some hundred answers. It is added to a feature's spread, or a word that one reference used once would put every model
# that uses it far outside the domain.
NOISE = {"words": 0.25}

Array = NDArray[np.float64]
SWEEPS = 1000  # at most, of filling gaps
TIE = 1.02  # times the least left-out loss, up to which a candidate counts as tied with the best


class ProxyRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Fill gaps, by the median with missing indicators, and scale; then one candidate and the link.

    With ``candidate="auto"`` two choices are made inside the rows given to `fit`, by leaving their groups out; the
    simplest wins among those within 2 % of the least loss. First which kinds of features are used: each kind alone,
    all but one, or all, by the loss of ridge regression. A kind is the part of its name before the first dot, such as
    ``behaviour``; names without a dot are of one kind. Then the candidate, on those kinds.
    Everything that sees a target is refitted for each group left out.

    With ``output.*`` features and fewer than 20 groups the choice is among the forms that were fixed beforehand
    (`proxy.regression.candidates.LINES`).

    Args:
        candidate: a name of `proxy.regression.candidates.CANDIDATES`, or ``"auto"``.
        bounds: (lower, upper) of the target; choose the link (`proxy.regression.links.Link`).
        group_column: column of `X` whose rows are left out together; without one, every row is its own group.
        family_column: column of `X` with the families that ``family_pooled`` pools over.
        size_column: column of `X` for ``log_parameters``; without one that candidate is not offered.
        one_unit: whether all features are measured in one unit, such as accuracies on several benchmarks. Then they
            are divided by one number instead of each by its own spread, so that those that vary more have more weight,
            and gaps are filled from the other features, without indicators, both as in Observational Scaling Laws
            (Ruan et al. 2024). Where the target has two bounds, too, and there are at least seven groups, ``"auto"``
            takes the form of that law, ``scaling_law``: a known form is better than a choice by so few left-out groups.
        reference_size_column: column of `X` with log parameters that are known for references only, for
            ``size_surrogate``; it is no feature, and needed by `fit` only. Without one that candidate is not offered.

    Attributes:
        chosen_: name of the candidate in use.
        kinds_: the kinds of features in use.
        scores_: leave-group-out mean squared error of each candidate, on the link's scale ("auto" only).
        kind_scores_: the same of ridge regression by the kinds used, joined by `` + `` (where there are several).

    >>> X = references[["small.reader.ie_0.18", "behaviour.length"]]
    >>> regressor = ProxyRegressor("ridge").fit(X, references["emergence_bits"])
    >>> regressor.predict(X).shape, regressor.chosen_
    ((12,), 'ridge')
    """

    def __init__(
        self,
        candidate: str = "auto",
        bounds: Bounds = (None, None),
        group_column: str | None = None,
        family_column: str | None = None,
        size_column: str | None = None,
        one_unit: bool = False,
        reference_size_column: str | None = None,
    ) -> None:
        self.candidate = candidate
        self.bounds = bounds
        self.group_column = group_column
        self.family_column = family_column
        self.size_column = size_column
        self.one_unit = one_unit
        self.reference_size_column = reference_size_column

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> ProxyRegressor:
        """Learn from features `X` (n, p), where missing values are NaN, and targets `y` (n,).

        Raises:
            ValueError: if shapes, types or values cannot be used, or no candidate has the name.
        """
        features, groups, families = self._parted(X)
        Z, target = validate_data(self, features, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True)
        target = np.asarray(target, dtype=np.float64)
        weights = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if weights.shape != target.shape or not np.all(weights >= 0) or not weights.sum() > 0:
            raise ValueError(
                f"sample_weight needs {len(target)} numbers of at least 0, but these weights are negative, missing or "
                "all zero."
            )
        used = weights > 0
        self.link_ = Link(self.bounds)
        self.link_.check(target)
        with config_context(assume_finite=True, skip_parameter_validation=True):
            self.preparation_ = _preparation(self.one_unit, self._noise()).fit(Z[used])
            rows = Rows(
                self.preparation_.transform(Z[used]),
                target[used],
                weights[used] / weights[used].mean(),
                _labels(groups, len(target))[used],
                _labels(families if families is not None else groups, len(target))[used],
                self.link_,
                self._sizes(X, used),
            )
            self.kinds_ = tuple(sorted({_kind(name) for name in self._prepared_names()}))
            self.chosen_ = self.candidate
            if self.candidate == "auto":
                self.kinds_, ridge = self._choose_kinds(rows)
                self.chosen_ = self._choose(rows, ridge)
            if self.chosen_ not in CANDIDATES:
                raise ValueError(f"Unknown candidate {self.chosen_!r}; there are auto, {', '.join(CANDIDATES)}.")
            self.columns_ = self._columns(self.chosen_)
            part, basis = self._part(self.chosen_, rows)
            self.head_ = CANDIDATES[self.chosen_]().fit(part)
            if basis is not None:
                self.head_.rotate_back(basis)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Predict targets (n,) for features `X` (n, p)."""
        check_is_fitted(self)
        return self.link_.inverse(self.predict_eta(X))

    def predict_eta(self, X: ArrayLike) -> Array:
        """Predict (n,) on the scale of the link."""
        Z, families = self.standardised(X)
        return self.eta(Z, families)

    def eta(self, Z: Array, families: NDArray[np.str_] | None = None) -> Array:
        """Predict (n,) on the scale of the link from standardised features (n, p')."""
        with config_context(assume_finite=True, skip_parameter_validation=True):
            return self.head_.eta(Z[:, self.columns_], families)

    def contributions(self, Z: Array, families: NDArray[np.str_] | None = None) -> Array:
        """Return what each standardised feature (n, p') adds to `eta` against its mean, which is 0."""
        found = np.zeros(Z.shape)
        if hasattr(self.head_, "coef_"):
            found[:, self.columns_] = Z[:, self.columns_] * self.head_.coef_
            return found
        own = Z[:, self.columns_]  # (n, q), a copy
        full = self.head_.eta(own, families)
        for place, column in enumerate(self.columns_):
            kept = own[:, place].copy()
            own[:, place] = 0.0
            found[:, column] = full - self.head_.eta(own, families)
            own[:, place] = kept
        return found

    def standardised(self, X: ArrayLike) -> tuple[Array, NDArray[np.str_] | None]:
        """Return the prepared features (n, p') and, where `X` has them, the families."""
        check_is_fitted(self)
        features, _, families = self._parted(X)
        Z = validate_data(self, features, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        with config_context(assume_finite=True):
            return self.preparation_.transform(Z), None if families is None else _labels(families, len(Z))

    def directions(self, Z: Array) -> Array:
        """Return the projections (p', k) of the standardised features `Z` (n, p') that the candidate looks at."""
        check_is_fitted(self)
        looked_at = self.head_.directions(Z[:, self.columns_])
        full = np.zeros((Z.shape[1], looked_at.shape[1]))
        full[self.columns_] = looked_at
        return full

    def prepared_names(self) -> list[str]:
        """Return the input feature behind each standardised column; indicators carry their feature's name."""
        check_is_fitted(self)
        return self._prepared_names()

    def _prepared_names(self) -> list[str]:
        names = self._names()
        indicator = self.preparation_[0].indicator_
        marked = [] if indicator is None else indicator.features_
        return [str(name) for name in names] + [str(names[i]) for i in marked]

    def candidates(self) -> list[str]:
        """Return the names among which "auto" chooses."""
        return offered(
            self._prepared_names(),
            size=self.size_column is not None,
            reference_size=self.reference_size_column is not None,
            one_unit=self.one_unit,
        )

    def _choose_kinds(self, rows: Rows) -> tuple[tuple[str, ...], Array | None]:
        """Return the kinds to use and, where there was a choice, what ridge predicts by them of rows left out."""
        self.kind_scores_: dict[str, float] = {}
        if len(self.kinds_) < 2 or len(rows.y) < ROWS_TO_CHOOSE or _nothing_to_choose_by(rows):
            return self.kinds_, None
        everything, own = self.kinds_, np.array([_kind(name) for name in self._prepared_names()])
        sets = {(kind,) for kind in everything} | {everything}
        sets |= {tuple(kind for kind in everything if kind != left) for left in everything}
        folds, target = fold_of(rows.groups), rows.link.forward(rows.y)
        losses, etas = {}, {}
        for kinds in sorted(sets, key=lambda kinds: (int(np.isin(own, kinds).sum()), kinds)):
            columns = np.flatnonzero(np.isin(own, kinds))
            part = rotated(replace(rows, Z=rows.Z[:, columns]))[0]
            eta = etas[kinds] = np.empty(len(target))
            for fold in np.unique(folds):
                left = folds == fold
                eta[left] = CANDIDATES["ridge"]().fit(part.take(~left)).eta(part.Z[left])
            error = rows.link.forward(rows.link.inverse(eta)) - target
            losses[kinds] = float(np.average(error**2, weights=rows.weights))
        self.kind_scores_ = {" + ".join(kinds): loss for kinds, loss in losses.items()}
        chosen = next(kinds for kinds, loss in losses.items() if loss <= TIE * min(losses.values()))
        return chosen, etas[chosen]

    def _choose(self, rows: Rows, ridge: Array | None) -> str:
        self.scores_: dict[str, float] = {}
        if _nothing_to_choose_by(rows):
            return "mean"
        if self.one_unit and rows.link.name == "logit" and len(np.unique(rows.groups)) > 2 * LAW_COMPONENTS:
            return LAW
        folds = fold_of(rows.groups)
        names = self.candidates()
        if "output_line" in names and len(np.unique(rows.groups)) < GROUPS_TO_BEND:
            names = [name for name in names if name in LINES]
        etas = {name: np.empty(len(rows.y)) for name in names}
        parts = {name: self._part(name, rows)[0] for name in names}
        for fold in np.unique(folds):
            left = folds == fold
            for name in names:
                if name == "ridge" and ridge is not None:
                    etas[name][left] = ridge[left]
                elif name == "average":  # of heads that are fitted already
                    etas[name][left] = np.mean([etas[member][left] for member in AVERAGED], axis=0)
                else:
                    head = CANDIDATES[name]().fit(parts[name].take(~left))
                    etas[name][left] = head.eta(parts[name].Z[left], rows.families[left])
        target = rows.link.forward(rows.y)
        for name, eta in etas.items():
            error = rows.link.forward(rows.link.inverse(eta)) - target
            self.scores_[name] = float(np.average(error**2, weights=rows.weights))
        return next(name for name, loss in self.scores_.items() if loss <= TIE * min(self.scores_.values()))

    def _part(self, name: str, rows: Rows) -> tuple[Rows, Array | None]:
        """Return the rows as a candidate is fitted on them, and, where they were rotated, the basis."""
        part = replace(rows, Z=rows.Z[:, self._columns(name)])
        return (part, None) if name in BY_COLUMN else rotated(part)

    def _columns(self, name: str) -> NDArray[np.int64]:
        """Return the prepared columns that a candidate may look at."""
        if name in ("output_line", "size_surrogate"):  # whatever kinds the others use
            own = np.array(self._prepared_names())
            of_output = np.char.startswith(own, OUTPUT)
            return np.flatnonzero(np.isin(own, OUTPUT_LINE) if name == "output_line" else of_output)
        if name != "log_parameters":
            return np.flatnonzero(np.isin([_kind(name) for name in self._prepared_names()], self.kinds_))
        names = list(getattr(self, "feature_names_in_", []))
        if self.size_column not in names:
            raise ValueError("log_parameters needs size_column, and that column in X.")
        return np.array([names.index(self.size_column)])

    def _noise(self) -> Array:
        """Return what chance alone does to each feature (p,), 0 where nothing is known of it."""
        return np.array([NOISE.get(_kind(str(name)), 0.0) for name in self._names()])

    def _names(self) -> list[Any]:
        return list(getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)]))

    def _sizes(self, X: Any, used: NDArray[np.bool_]) -> Array | None:
        if not isinstance(X, pd.DataFrame) or self.reference_size_column not in X.columns:
            return None
        return X[self.reference_size_column].to_numpy(dtype=np.float64, na_value=np.nan)[used]

    def _parted(self, X: Any) -> tuple[Any, pd.Series | None, pd.Series | None]:
        """Part the identity columns from the features."""
        if not isinstance(X, pd.DataFrame):
            return X, None, None
        beside = (self.group_column, self.family_column, self.reference_size_column)
        identity = {name for name in beside if name is not None}
        groups = X.get(self.group_column) if self.group_column else None
        families = X.get(self.family_column) if self.family_column else None
        return X.drop(columns=list(identity), errors="ignore"), groups, families

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class CommonScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Centres every feature and divides all of them by one number, the root of their mean variance."""

    def fit(self, X: Array, y: object = None) -> CommonScaler:
        """Learn the means and the number from features (n, p)."""
        self.mean_ = X.mean(axis=0)
        self.scale_ = float(np.sqrt(X.var(axis=0).mean())) or 1.0
        return self

    def transform(self, X: Array) -> Array:
        """Return the features (n, p) on the common scale."""
        return np.asarray((X - self.mean_) / self.scale_)


def _nothing_to_choose_by(rows: Rows) -> bool:
    return len(np.unique(rows.groups)) < 3 or bool(np.ptp(rows.y) <= 1e-12 * np.abs(rows.y).max())


class GapFiller(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills gaps by one principal component of the standardised features, again and again until it settles.

    As Ruan et al. 2024 do for accuracies: one ability explains most of them, so the known ones tell of the missing.
    """

    indicator_ = None  # of what was missing: as `SimpleImputer` without indicators

    def fit(self, X: Array, y: object = None) -> GapFiller:
        """Learn means, spreads and the component from features (n, p); a feature without any value counts as 0."""
        known = ~np.isnan(X)
        counts = np.maximum(known.sum(axis=0), 1)
        self.mean_ = np.where(known, X, 0.0).sum(axis=0) / counts
        spread = np.sqrt((np.where(known, X - self.mean_, 0.0) ** 2).sum(axis=0) / counts)
        self.spread_ = np.where(spread > 1e-12 * np.maximum(np.abs(self.mean_), 1e-12), spread, 1.0)
        Z = np.where(known, (X - self.mean_) / self.spread_, 0.0)
        for _ in range(SWEEPS):
            self.centre_ = Z.mean(axis=0)
            self.axis_ = thin_svd(Z - self.centre_)[2][0]
            filled = np.where(known, Z, self._along_axis(Z))
            settled = np.abs(filled - Z).max() < 1e-7
            Z = filled
            if settled:
                break
        return self

    def transform(self, X: Array) -> Array:
        """Return the features (n, p) without gaps."""
        known = ~np.isnan(X)
        Z = np.where(known, (X - self.mean_) / self.spread_, 0.0)
        for _ in range(SWEEPS):
            filled = np.where(known, Z, self._along_axis(Z))
            settled = np.abs(filled - Z).max() < 1e-7
            Z = filled
            if settled:
                break
        return np.asarray(np.where(known, X, Z * self.spread_ + self.mean_))

    def _along_axis(self, Z: Array) -> Array:
        return np.asarray(np.outer((Z - self.centre_) @ self.axis_, self.axis_) + self.centre_)


class NoisyScaler(StandardScaler):  # type: ignore[misc]
    """Centres each feature and divides it by its spread and the noise known of it, the root of their squares' sum.

    Args:
        noise: standard deviation (p,) that chance alone gives each of the first p features; the rest have none.
    """

    def __init__(self, noise: Array) -> None:
        super().__init__()
        self.noise = noise

    def fit(self, X: Array, y: object = None) -> NoisyScaler:
        """Learn means and spreads from features (n, p)."""
        super().fit(X)
        self.scale_[: len(self.noise)] = np.hypot(self.scale_[: len(self.noise)], self.noise)
        return self


def _kind(name: str) -> str:
    return name.partition(".")[0] if "." in name else ""


def _preparation(one_unit: bool, noise: Array) -> Pipeline:
    if one_unit:
        return make_pipeline(GapFiller(), CommonScaler())
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), NoisyScaler(noise)
    )


def _labels(values: pd.Series | None, rows: int) -> NDArray[np.str_]:
    if values is None:
        return np.array([f"{row:09d}" for row in range(rows)])
    return np.asarray(values.astype("string").fillna("").to_numpy(dtype=str))
