"""Whether a model lies within the references a proxy was trained on, and what pushes its estimate where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from proxy.regression.intervals import LEVELS, Intervals
from proxy.regression.links import EXACT, Link
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
WITHHELD = 3.0  # times as far out as the farthest reference: beyond it no interval is given
SAME_PLACE = 0.1  # standard deviations per feature
MISSING = 1 / 3  # share of what the candidate looks at: where more is missing, no interval is given


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the references lie, in the space the chosen candidate looks at and in all features.

    Two distances are taken, as in chemometrics: the leverage t' (T'T)^-1 t of the scores t, which sees an extreme along
    the directions the candidate looks at, and the root-mean-square distance in standardised features to the nearest
    reference. The second is taken over *all* features on purpose: a model may look ordinary in the one or two
    directions in use and yet be of a kind no reference is of, which only the other features show. Each is divided by
    the largest value that a reference takes (its own neighbour distance to the *other* references), the larger ratio
    is the novelty: at most 1 inside the domain. Between 1 and 3 the interval is widened by that factor on the link's
    scale, beyond 3 withheld.

    Missing features are taken as typical, so a model that lacks everything would lie in the very middle. Where more of
    what the candidate looks at is missing than a third, and than any reference lacks, the model counts as outside and
    no interval is given.

    Attributes:
        references: (n, p') standardised features of the references.
        directions: (p', k) projections.
        lacked: largest share of what the candidate looks at that a reference lacks.
    """

    references: Array
    directions: Array
    lacked: float = 0.0

    @classmethod
    def of(cls, regressor: ProxyRegressor, X: pd.DataFrame) -> Domain:
        """Return the domain of a fitted regressor and its training features."""
        Z, _ = regressor.standardised(X)
        directions = regressor.directions(Z)
        return cls(Z, directions, float(missing_share(regressor, X, directions).max()))

    def leverage(self, Z: Array) -> Array:
        """Return the leverage (m,) of standardised features (m, p') in the model's own space."""
        centre = self.references.mean(axis=0)
        scores = (self.references - centre) @ self.directions
        return np.asarray(
            np.einsum(
                "ij,jk,ik->i",
                (Z - centre) @ self.directions,
                np.linalg.pinv(scores.T @ scores, hermitian=True),
                (Z - centre) @ self.directions,
            )
        )

    def neighbour(self, Z: Array) -> Array:
        """Return the distance (m,) to the nearest reference, in standard deviations per feature."""
        return np.asarray(_distances(Z, self.references).min(axis=1))

    def reach(self) -> tuple[float, float]:
        """Return the largest leverage of a reference and its largest distance to the nearest other one.

        References at the same place count as one: in scale mode all come in sizes that other families have too, and
        distances of nothing would make every new size infinitely far.
        """
        between = _distances(self.references, self.references)
        between[between < SAME_PLACE] = np.inf
        nearest = between.min(axis=1)
        return float(self.leverage(self.references).max()), float(np.where(np.isinf(nearest), 0.0, nearest).max())

    def novelty(self, Z: Array) -> Array:
        """Return how far out (m,) each row is, as a multiple of the farthest reference."""
        most_leverage, most_distance = self.reach()
        return np.maximum(np.sqrt(_ratio(self.leverage(Z), most_leverage)), _ratio(self.neighbour(Z), most_distance))


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates as a proxy gives them: `estimate`, `novelty`, `missing` (share), `inside` (m,); bounds (m, levels)."""

    estimate: Array
    lower: Array
    upper: Array
    novelty: Array
    missing: Array
    inside: NDArray[np.bool_]


def estimate_models(
    intervals: Intervals, domain: Domain, X: pd.DataFrame, levels: Sequence[float] = LEVELS
) -> Estimates:
    """Estimate models from features `X` (m, p), with intervals widened or withheld as `Domain` states."""
    regressor = intervals.regressor
    estimate, lower, upper = intervals.predict(X, levels)
    novelty = domain.novelty(regressor.standardised(X)[0])
    missing = missing_share(regressor, X, domain.directions)
    known = missing <= max(MISSING, domain.lacked) + 1e-9
    low, high = np.full_like(lower, np.nan), np.full_like(upper, np.nan)
    for at in range(len(levels)):
        ends = widen(regressor.link_, estimate, lower[:, at], upper[:, at], novelty)
        ends = regressor.link_.snap_to_bounds(*ends)
        low[known, at], high[known, at] = ends[0][known], ends[1][known]
    return Estimates(estimate, low, high, novelty, missing, known & (novelty <= 1.0))


def missing_share(regressor: ProxyRegressor, X: pd.DataFrame, directions: Array) -> Array:
    """Return the share (m,) of what a candidate looks at that is missing; of all features where it looks at none."""
    names = list(regressor.feature_names_in_)
    length = np.linalg.norm(directions, axis=0)
    looked_at = np.sum((directions / np.where(length > 0, length, 1.0)) ** 2, axis=1)[: len(names)]
    weights = looked_at / looked_at.sum() if looked_at.sum() > 0 else np.full(len(names), 1 / len(names))
    return np.asarray(X[names].isna().to_numpy(dtype=np.float64) @ weights)


def widen(link: Link, estimate: Array, lower: Array, upper: Array, novelty: Array) -> tuple[Array, Array]:
    """Return bounds (m,) widened about the estimate by the novelty on the link's scale; NaN where it is above 3.

    The estimate, which comes from all references, always lies between them; jackknife+ alone does not promise that.
    A novel model never gets a narrower interval than a familiar one.
    """
    factor = np.where(novelty > WITHHELD, np.nan, np.maximum(novelty, 1.0))
    middle = link.forward(estimate, EXACT)
    below = np.maximum(middle - link.forward(lower, EXACT), 0.0)
    above = np.maximum(link.forward(upper, EXACT) - middle, 0.0)
    low = np.minimum(np.minimum(lower, estimate), link.inverse(middle - factor * below))
    high = np.maximum(np.maximum(upper, estimate), link.inverse(middle + factor * above))
    return np.where(np.isnan(factor), np.nan, low), np.where(np.isnan(factor), np.nan, high)


def contributions(regressor: ProxyRegressor, X: pd.DataFrame) -> pd.DataFrame:
    """Return what each feature adds to each estimate on the link's scale, against the references' mean value of it.

    Exact for the linear candidates; for the others the change when that feature alone is put to its mean. One column
    per feature, missing-value indicators counted with their feature.
    """
    Z, families = regressor.standardised(X)
    parts = pd.DataFrame(regressor.contributions(Z, families), columns=regressor.prepared_names(), index=X.index)
    return parts.T.groupby(level=0, sort=False).sum().T


def _distances(a: Array, b: Array) -> Array:
    # row by row: all at once would take (m, n, p) numbers, gigabytes where features are words
    return np.array([np.sqrt(np.mean((row - b) ** 2, axis=1)) for row in a])


def _ratio(values: Array, largest: float) -> Array:
    if largest > 1e-12:
        return values / largest
    return np.where(values > 1e-12, np.inf, 0.0)
