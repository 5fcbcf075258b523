"""Jackknife+ and CV+ intervals on the scale of the link, through MAPIE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from mapie.conformity_scores import BaseRegressionScore
from mapie.regression import CrossConformalRegressor
from numpy.typing import NDArray
from sklearn.model_selection import PredefinedSplit

from estimators.base import InputError
from proxy.folds import fold_of, rows_needed
from proxy.links import Bounds, Link
from proxy.regression import ProxyRegressor

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

    Attributes:
        conformal: the fitted MAPIE regressor.
        groups: number of groups that were left out.
    """

    def __init__(self, conformal: CrossConformalRegressor, groups: int) -> None:
        self.conformal = conformal
        self.groups = groups

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
        return cls(conformal, len(np.unique(groups)))

    @property
    def regressor(self) -> ProxyRegressor:
        """The regressor fitted on all rows."""
        fitted: ProxyRegressor = self.conformal._mapie_regressor.estimator_.single_estimator_
        return fitted

    def predict(self, X: pd.DataFrame, levels: Sequence[float] = LEVELS) -> tuple[Array, Array, Array]:
        """Return estimates (m,), lower (m, levels) and upper bounds; NaN where too few groups were left out."""
        estimate, bounds = self.conformal.predict_interval(
            X, aggregate_point_predictions=None, allow_infinite_bounds=True
        )
        known = np.array([self.groups >= rows_needed(level) for level in levels])
        bounds = np.where(known[None, None, :] & np.isfinite(bounds), bounds, np.nan)
        return np.asarray(estimate), bounds[:, 0, :], bounds[:, 1, :]
