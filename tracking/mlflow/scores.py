"""How good a proxy is on models it had not seen, as numbers and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from estimators.contracts.cells import escaped, markdown
from tracking.mlflow.tracker import metric_name

SHOWN = 40  # models that a description holds


def scores(validation: pd.DataFrame) -> dict[str, float]:
    """Score left-out predictions: errors, rank correlation, coverage and width of the intervals, and baselines.

    Args:
        validation: columns truth, estimate, lower, upper, and one more float column per other candidate.
    """
    truth = validation["truth"].to_numpy(dtype=float, na_value=np.nan)

    def error(column: str) -> np.ndarray:
        return np.asarray(validation[column].to_numpy(dtype=float, na_value=np.nan) - truth)

    residual, spread = error("estimate"), truth - truth.mean()
    given = validation["lower"].notna() & validation["upper"].notna()
    ranks = validation[["truth", "estimate"]].astype(float).rank()
    found = {
        "mae": float(np.abs(residual).mean()),
        "rmse": float(np.sqrt((residual**2).mean())),
        "r2": float(1 - (residual**2).sum() / (spread**2).sum()) if (spread**2).sum() else float("nan"),
        "spearman": float(ranks["truth"].corr(ranks["estimate"])),
    }
    if given.any():
        found["coverage"] = float(((error("lower") <= 0) & (error("upper") >= 0))[given].mean())
        found["interval_width"] = float((error("upper") - error("lower"))[given].mean())
    for column in validation.columns.difference(["truth", "estimate"]):
        if pd.api.types.is_float_dtype(validation[column]) and not column.startswith(("lower", "upper")):
            found[metric_name(f"others_mae/{column}")] = float(np.abs(error(column)).mean())
    return found


def describe_proxy(record: dict[str, Any], validation: pd.DataFrame) -> str:
    """Say in markdown how good a proxy is on models it had not seen."""
    found = pd.DataFrame([{"score": name, "value": value} for name, value in scores(validation).items()])
    shown = validation[["model", "truth", "estimate", "lower", "upper"]]
    return (
        f"Proxy of **{escaped(str(record.get('target', 'the target')))}**, checked on {len(validation)} models "
        f"left out in turn. {escaped(str((record.get('verdict') or {}).get('sentence') or ''))}\n\n"
        f"{markdown(found)}\n\n{markdown(shown, limit=SHOWN)}"
    )
