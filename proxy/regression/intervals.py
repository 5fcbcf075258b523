"""Jackknife+ and CV+ intervals on the scale of the link, through MAPIE, with every group counted once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from mapie.conformity_scores import BaseRegressionScore
from mapie.regression import CrossConformalRegressor
from numpy.typing import NDArray
from sklearn.model_selection import PredefinedSplit

from estimators.base import InputError
from proxy.regression.folds import fold_of, rows_needed
from proxy.regression.links import Bounds, Link
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9, 0.95)
FEWEST = 9  # rows; see `require_rows`


class LinkResidual(BaseRegressionScore):  # type: ignore[misc]
    """Absolute residual on the scale of the link: intervals stay within the target's bounds."""

    def __init__(self, bounds: Bounds = (None, None)) -> None:
        super().__init__(sym=True, consistency_check=False)
        self.bounds = bounds

    def get_signed_conformity_scores(self, y: Array, y_pred: Array, **kwargs: object) -> Array:
        """Return link(y) - link(prediction), (n,)."""
        link = Link(self.bounds)
        return link.forward(np.asarray(y)) - link.forward(np.asarray(y_pred))

    def get_estimation_distribution(self, y_pred: Array, conformity_scores: Array, **kwargs: object) -> Array:
        """Return the targets whose residuals from `y_pred` are `conformity_scores`."""
        link = Link(self.bounds)
        return link.inverse(link.forward(np.asarray(y_pred)) + conformity_scores)


def require_rows(count: int, level: float, unit: str) -> None:
    """Refuse too few independent rows for an interval.

    Raises:
        InputError: saying how many are needed and why.
    """
    needed = max(FEWEST, rows_needed(level))
    floor = "" if rows_needed(level) >= FEWEST else f", and no proxy is fitted below {FEWEST}"
    if count < needed:
        raise InputError(
            f"A proxy needs at least {needed} reference {unit}, but {count} came: a {level:.0%} jackknife+ interval is "
            f"the ceil((n + 1) x {level:g})-th smallest of n left-out errors, which exists only from n = "
            f"{rows_needed(level)} on{floor}. Measure more {unit}."
        )


class Intervals:
    """A regressor refitted once for each group left out, and what its left-out errors say about a new row.

    Jackknife+ (one group per fold) or CV+ (many groups, in ten folds) of Barber, Candes, Ramdas & Tibshirani 2021.
    MAPIE fits and scores; its quantile counts rows, and a large family would speak for all. Here each of K groups has
    the mass 1 / (K + 1), shared by its rows, and 1 / (K + 1) lies at infinity (Lee, Barber & Willett 2023): what is
    promised holds for a row of a new group, if groups are exchangeable. With one row per group it is MAPIE's quantile.

    Attributes:
        conformal: the fitted MAPIE regressor.
        labels: (n,) the group of each training row.
    """

    def __init__(self, conformal: CrossConformalRegressor, labels: NDArray[np.str_]) -> None:
        self.conformal = conformal
        self.labels = labels

    @classmethod
    def fit(
        cls,
        regressor: ProxyRegressor,
        X: pd.DataFrame,
        y: Array,
        weights: Array,
        groups: NDArray[np.str_],
        levels: Sequence[float] = LEVELS,
    ) -> Intervals:
        """Fit on all rows, and once more without each fold of groups."""
        conformal = CrossConformalRegressor(
            regressor,
            confidence_level=list(levels),
            conformity_score=LinkResidual(regressor.bounds),
            cv=PredefinedSplit(fold_of(groups)),
        )
        conformal.fit_conformalize(X, y, fit_params={"sample_weight": weights})
        return cls(conformal, groups)

    @property
    def groups(self) -> int:
        """Number of groups that were left out."""
        return len(np.unique(self.labels))

    @property
    def regressor(self) -> ProxyRegressor:
        """The regressor fitted on all rows."""
        fitted: ProxyRegressor = self.conformal._mapie_regressor.estimator_.single_estimator_
        return fitted

    def predict(self, X: pd.DataFrame, levels: Sequence[float] = LEVELS) -> tuple[Array, Array, Array]:
        """Return estimates (m,), lower (m, levels) and upper bounds; NaN where too few groups were left out."""
        link = self.regressor.link_
        ensemble = self.conformal._mapie_regressor.estimator_
        errors = np.asarray(self.conformal.conformity_scores)
        folds = np.argmax(~np.isnan(ensemble.k_), axis=1)
        # through the link and back, as the errors were made: near a bound both stop at its edge
        by_fold = np.column_stack([link.forward(member.predict(X)) for member in ensemble.estimators_])
        without = by_fold[:, folds]
        _, own, sizes = np.unique(self.labels, return_inverse=True, return_counts=True)
        mass = 1 / ((self.groups + 1) * sizes[own])
        upper = _quantiles(without + errors, mass, levels)
        lower = -_quantiles(errors - without, mass, levels)
        low, high = link.snapped(link.inverse(lower), link.inverse(upper))
        known = np.isfinite(lower) & np.isfinite(upper)
        return self.regressor.predict(X), np.where(known, low, np.nan), np.where(known, high, np.nan)


def _quantiles(values: Array, mass: Array, levels: Sequence[float]) -> Array:
    """Return the smallest of the values (m, n) of each row below which lies a mass of `level`; NaN where none does."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    below = np.cumsum(mass[order], axis=1)
    found = np.full((len(values), len(levels)), np.nan)
    for at, level in enumerate(levels):
        enough = below >= level - 1e-9  # sums of 1 / (K + 1) miss the level by rounding
        some = enough.any(axis=1)
        found[some, at] = ordered[some, np.argmax(enough[some], axis=1)]
    return found
