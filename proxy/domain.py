"""Whether a model lies within the references a proxy was trained on, and what pushes its estimate where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from proxy.links import Link
from proxy.regression import ProxyRegressor

Array = NDArray[np.float64]
WITHHELD = 3.0  # times as far out as the farthest reference: beyond it no interval is given


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the references lie, in the space the chosen candidate looks at and in all features.

    Two distances are taken, as in chemometrics (leverage sees an extreme along the model's directions, the neighbour
    distance sees a combination of features that no reference has): the leverage t' (T'T)^-1 t of the scores t, and
    the root-mean-square distance in standardised features to the nearest reference. Each is divided by the largest
    value that a reference takes (its own neighbour distance to the *other* references), the larger ratio is the
    novelty: at most 1 inside the domain. Between 1 and 3 the interval is widened by that factor on the link's scale,
        beyond 3 withheld.

    Attributes:
        references: (n, p') standardised features of the references.
        directions: (p', k) projections.
    """

    references: Array
    directions: Array

    @classmethod
    def of(cls, regressor: ProxyRegressor, X: pd.DataFrame) -> Domain:
        """Return the domain of a fitted regressor and its training features."""
        Z, _ = regressor.standardised(X)
        return cls(Z, regressor.directions(Z))

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

    def novelty(self, Z: Array) -> Array:
        """Return how far out (m,) each row is, as a multiple of the farthest reference."""
        most_leverage = self.leverage(self.references).max()
        between = _distances(self.references, self.references)
        np.fill_diagonal(between, np.inf)
        most_distance = between.min(axis=1).max()
        return np.maximum(np.sqrt(_ratio(self.leverage(Z), most_leverage)), _ratio(self.neighbour(Z), most_distance))


def widened(link: Link, estimate: Array, lower: Array, upper: Array, novelty: Array) -> tuple[Array, Array]:
    """Return bounds (m,) widened about the estimate by the novelty on the link's scale; NaN where it is above 3.

    The estimate, which comes from all references, always lies between them; jackknife+ alone does not promise that.
    """
    factor = np.where(novelty > WITHHELD, np.nan, np.maximum(novelty, 1.0))
    middle = link.forward(estimate)
    below = np.maximum(middle - link.forward(lower), 0.0)
    above = np.maximum(link.forward(upper) - middle, 0.0)
    inside = factor == 1.0
    return (
        np.where(inside, np.minimum(lower, estimate), link.inverse(middle - factor * below)),
        np.where(inside, np.maximum(upper, estimate), link.inverse(middle + factor * above)),
    )


def contributions(regressor: ProxyRegressor, X: pd.DataFrame) -> pd.DataFrame:
    """Return what each feature adds to each estimate on the link's scale, against the references' mean value of it.

    Exact for the linear candidates; for the others the change when that feature alone is put to its mean. One column
    per feature, missing-value indicators counted with their feature.
    """
    Z, families = regressor.standardised(X)
    full = regressor.eta(Z, families)
    names = regressor.prepared_names()
    parts = {}
    for name in dict.fromkeys(names):
        without = Z.copy()
        without[:, [i for i, other in enumerate(names) if other == name]] = 0.0
        parts[name] = full - regressor.eta(without, families)
    return pd.DataFrame(parts, index=X.index)


def _distances(a: Array, b: Array) -> Array:
    return np.asarray(np.sqrt(np.mean((a[:, None, :] - b[None, :, :]) ** 2, axis=2)))


def _ratio(values: Array, largest: float) -> Array:
    if largest > 1e-12:
        return values / largest
    return np.where(values > 1e-12, np.inf, 0.0)
