"""What a fitted proxy holds: data alone, so that the card and the files on disk need not know how it estimates."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from proxy.regression.domain import Domain
from proxy.regression.intervals import Intervals
from proxy.regression.links import Bounds
from proxy.regression.verdict import Verdict, verdict


@dataclass(frozen=True, slots=True)
class ProxyRecord:
    """All that a fitted proxy holds: what it estimates with, and the evidence for it.

    Attributes:
        target: name of the column it estimates.
        mode: ``outputs`` (features of answers) or ``scale`` (features of smaller siblings).
        features: the columns it needs.
        level: confidence of `lower` and `upper`.
        bounds: of the target; (None, None) without.
        unit: what was left out at a time, ``family`` or ``model``.
        intervals: the fitted regressor and its left-out errors.
        domain: where the references lie.
        references: the training table.
        validation: per left-out reference: model, family, truth, in_domain, estimate, lower, upper (at `level`), then
            lower_50, upper_50 ... at every level, and a column per candidate; each made without the rows left out
            together, intervals widened or withheld as for any other model.
        scores: per candidate (``chosen`` first): mae, rmse, r2, spearman, and coverage at `level` for ``chosen``.
        coverage: per level: rows with an interval, share that held the truth, mean width; the same for those inside
            and outside the domain; rows whose interval was withheld.
        remarks: what a reader must know about the fit.
    """

    target: str
    mode: str
    features: tuple[str, ...]
    level: float
    bounds: Bounds
    unit: str
    intervals: Intervals
    domain: Domain
    references: pd.DataFrame
    validation: pd.DataFrame
    scores: pd.DataFrame
    coverage: pd.DataFrame
    remarks: tuple[str, ...] = ()

    @property
    def chosen(self) -> str:
        """Name of the candidate in use."""
        return self.intervals.regressor.chosen_

    @property
    def verdict(self) -> Verdict:
        """Whether it did better on left-out references than the mean, log parameters and the best single feature.

        If it is one of these itself, than the others.
        """
        return verdict(self.validation, self.validation[self.unit], self.chosen)
