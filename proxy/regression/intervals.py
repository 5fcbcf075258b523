"""Jackknife+ and CV+ intervals on the scale of the link, with every group counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from estimators.base import InputError
from proxy.regression.folds import fold_of, rows_needed
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9, 0.95)
FEWEST = 9  # rows; see `require_rows`


def require_rows(count: int, level: float, unit: str) -> None:
    """Refuse too few independent rows for an interval.

    Raises:
        InputError: saying how many are needed and why.
    """
    needed = max(FEWEST, rows_needed(level))
    floor = "" if rows_needed(level) >= FEWEST else f", and no proxy is fitted below {FEWEST}"
    if count < needed:
        raise InputError(
            f"A proxy needs at least {needed} reference {unit}, got {count}: a {level:.0%} jackknife+ interval is "
            f"the ceil((n + 1) x {level:g})-th smallest of n left-out errors, which exists only from n = "
            f"{rows_needed(level)} on{floor}. Measure more {unit}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """A regressor refitted once for each group left out, and its left-out errors, which give intervals of new rows.

    Jackknife+ (one group per fold) or CV+ (many groups, in ten folds) of Barber, Candes, Ramdas & Tibshirani 2021.
    Their quantile counts rows, so a large family would dominate. Here each of K groups has the mass 1 / (K + 1),
    shared by its rows, and 1 / (K + 1) lies at infinity (Lee, Barber & Willett 2023): what is promised holds for a row
    of a new group, if groups are exchangeable. With one row per group it is their quantile, as MAPIE computes it.

    Attributes:
        regressor: fitted on all rows.
        without: fitted without each fold, by its number.
        folds: (n,) the fold of each training row.
        errors: (n,) absolute residual of each training row on the link's scale, by the regressor fitted without it.
        labels: (n,) the group of each training row.
    """

    regressor: ProxyRegressor
    without: tuple[ProxyRegressor, ...]
    folds: NDArray[np.int64]
    errors: Array
    labels: NDArray[np.str_]

    @classmethod
    def fit(
        cls, regressor: ProxyRegressor, X: pd.DataFrame, y: Array, weights: Array, groups: NDArray[np.str_]
    ) -> Intervals:
        """Fit on all rows (n, p), and again without each fold of groups.

        >>> X = pd.DataFrame({"a": np.linspace(-1, 1, 10)})
        >>> labels = np.array([f"model {i}" for i in range(10)])
        >>> found = Intervals.fit(ProxyRegressor("best_feature"), X, 2 * X["a"].to_numpy(), np.ones(10), labels)
        >>> len(found.without), found.groups
        (10, 10)
        """
        folds = fold_of(groups)  # (n,)
        fitted = clone(regressor).fit(X, y, weights)
        errors = np.empty(len(y))  # (n,)
        without = []
        # Not cross_validate(return_estimator=True): it would score every fold too, by an R2 that the one row of most
        # folds does not have, and return no left-out predictions, which the errors are made of.
        for fold in range(folds.max() + 1):
            left, kept = folds == fold, folds != fold
            other = clone(regressor).fit(X[kept], y[kept], weights[kept])
            errors[left] = np.abs(fitted.link_.forward(y[left]) - fitted.link_.forward(other.predict(X[left])))
            without.append(other)
        return cls(fitted, tuple(without), folds, errors, groups)

    @property
    def groups(self) -> int:
        """Number of groups that were left out."""
        return len(np.unique(self.labels))

    def predict(self, X: pd.DataFrame, levels: Sequence[float] = LEVELS) -> tuple[Array, Array, Array]:
        """Return estimates (m,), lower and upper ends (m, levels); NaN where too few groups were left out.

        Args:
            X: features (m, p).
            levels: of confidence, each between 0 and 1.
        """
        link = self.regressor.link_
        # through the link and back, as the errors were made: near a bound both stop at its edge
        by_fold = np.column_stack([link.forward(other.predict(X)) for other in self.without])  # (m, folds)
        centres = by_fold[:, self.folds]  # (m, n): what the fit without row i estimates
        _, own, sizes = np.unique(self.labels, return_inverse=True, return_counts=True)  # (n,), (K,)
        mass = 1 / ((self.groups + 1) * sizes[own])  # (n,)
        upper = _quantiles(centres + self.errors, mass, levels)  # (m, levels)
        lower = -_quantiles(self.errors - centres, mass, levels)  # (m, levels)
        low, high = link.snap_to_bounds(link.inverse(lower), link.inverse(upper))
        known = np.isfinite(lower) & np.isfinite(upper)
        return self.regressor.predict(X), np.where(known, low, np.nan), np.where(known, high, np.nan)


def _quantiles(values: Array, mass: Array, levels: Sequence[float]) -> Array:
    """Return the smallest of the values (m, n) of each row below which lies a mass of `level`; NaN where none does."""
    order = np.argsort(values, axis=1, kind="stable")  # (m, n)
    ordered = np.take_along_axis(values, order, axis=1)
    below = np.cumsum(mass[order], axis=1)  # (m, n)
    found = np.full((len(values), len(levels)), np.nan)
    for at, level in enumerate(levels):
        enough = below >= level - 1e-9  # sums of 1 / (K + 1) miss the level by rounding
        some = enough.any(axis=1)  # (m,)
        found[some, at] = ordered[some, np.argmax(enough[some], axis=1)]
    return found
