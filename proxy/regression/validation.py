"""Validation of a proxy: every reference estimated without its group, as for a new model, beside the baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from estimators.base import Progress
from proxy.regression.candidates import CANDIDATES, offered
from proxy.regression.domain import Domain, estimate_models
from proxy.regression.folds import fold_of
from proxy.regression.intervals import Intervals
from proxy.regression.references import SIZE, References
from proxy.regression.regressor import ProxyRegressor
from proxy.regression.verdict import BASELINES


def validate(
    regressor: ProxyRegressor,
    X: pd.DataFrame,
    table: References,
    left_out: NDArray[np.str_],
    levels: Sequence[float],
    progress: Progress | None,
) -> pd.DataFrame:
    """Estimate every reference without its group: the chosen candidate with intervals, and each candidate alone.

    Intervals are those the product gives: widened outside the domain of the references that were kept, or withheld.
    """
    alone = offered(
        table.X.columns,
        size=table.log_parameters is not None,
        reference_size=regressor.reference_size_column is not None,
        one_unit=regressor.one_unit,
    )
    if regressor.candidate != "auto":  # a candidate that was named is compared with the baselines alone
        alone = [name for name in alone if name in (*BASELINES, regressor.candidate)]
    columns = {name: np.full(len(X), np.nan) for name in ["estimate", *alone]}
    for level in levels:
        columns[f"lower_{level * 100:g}"] = np.full(len(X), np.nan)
        columns[f"upper_{level * 100:g}"] = np.full(len(X), np.nan)
    chosen = np.empty(len(X), dtype=object)
    inside = np.zeros(len(X), dtype=bool)
    folds = fold_of(left_out)
    for done, fold in enumerate(np.unique(folds)):
        if progress is not None:
            progress(done, len(np.unique(folds)) + 1)
        left, kept = folds == fold, folds != fold
        intervals = Intervals.fit(regressor, X[kept], table.y[kept], table.weights[kept], left_out[kept])
        found = estimate_models(intervals, Domain.of(intervals.regressor, X[kept]), X[left], levels)
        columns["estimate"][left] = found.estimate
        chosen[left] = intervals.regressor.chosen_
        inside[left] = found.inside
        for at, level in enumerate(levels):
            columns[f"lower_{level * 100:g}"][left] = found.lower[:, at]
            columns[f"upper_{level * 100:g}"][left] = found.upper[:, at]
        for name in alone:
            if name == "log_parameters":
                inputs, single = table.log_parameters, ProxyRegressor(name, regressor.bounds, size_column=SIZE)
            else:
                inputs, single = X, clone(regressor).set_params(candidate=name)
            assert inputs is not None  # noqa: S101  # by the choice of names
            single.fit(inputs[kept], table.y[kept], table.weights[kept])
            columns[name][left] = single.predict(inputs[left])
    identity = {
        "model": table.models,
        **({"run": table.runs} if "run" in table.frame.columns else {}),
        "family": table.families,
        "truth": table.y,
        "chosen": chosen,
        "in_domain": inside,
    }
    return pd.DataFrame({**identity, **columns})


def coverage_by_level(validation: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """Return per level the rows with an interval, the share that held the truth, the mean width, and where they lay."""

    def share(hits: pd.Series) -> float:
        return float(hits.mean()) if len(hits) else math.nan

    rows = []
    for level in levels:
        lower, upper = validation[f"lower_{level * 100:g}"], validation[f"upper_{level * 100:g}"]
        known, within = lower.notna() & upper.notna(), validation["in_domain"]
        hits = (validation["truth"] >= lower) & (validation["truth"] <= upper)
        rows.append(
            {
                "level": level,
                "rows": int(known.sum()),
                "coverage": share(hits[known]),
                "mean_width": float((upper - lower)[known].mean()) if known.any() else math.nan,
                "rows_inside": int((known & within).sum()),
                "coverage_inside": share(hits[known & within]),
                "rows_outside": int((known & ~within).sum()),
                "coverage_outside": share(hits[known & ~within]),
                "withheld": int((~known).sum()),
            }
        )
    return pd.DataFrame(rows)


def score_candidates(validation: pd.DataFrame, coverage: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return mae, rmse, r2 and spearman of every candidate on the left-out references, and the chosen's coverage."""
    truth = validation["truth"].to_numpy(dtype=np.float64)
    rows = []
    for name in ["estimate", *(name for name in CANDIDATES if name in validation.columns)]:
        estimate = validation[name].to_numpy(dtype=np.float64)
        error = estimate - truth
        # a left-out mean falls as the left-out truth rises: its rank correlation would only say so
        ranks = name != "mean" and np.ptp(estimate) > 0
        at_level = coverage.loc[coverage["level"] == level, "coverage"].item()
        rows.append(
            {
                "candidate": "chosen" if name == "estimate" else name,
                "mae": float(np.abs(error).mean()),
                "rmse": float(np.sqrt(np.mean(error**2))),
                "r2": float(1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2)),
                "spearman": float(pd.Series(estimate).corr(pd.Series(truth), method="spearman")) if ranks else math.nan,
                "coverage": at_level if name == "estimate" else math.nan,
            }
        )
    return pd.DataFrame(rows)
