"""How good a proxy is on models it had not seen, as numbers and in words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from estimators.contracts.cells import escaped
from tracking.mlflow.notes import note_table

SHOWN = 40  # models that a description holds


def scores(record: dict[str, Any]) -> dict[str, float]:
    """Return the scores that a saved proxy carries, as they are logged.

    Args:
        record: proxy.json: scores per candidate on left-out references, and coverage per level.

    Returns:
        mae, rmse, r2 and spearman of the chosen candidate; coverage and interval_width where there are intervals at
        the proxy's level; others_mae/NAME of each other candidate.
    """
    rows = {str(row["candidate"]): row for row in record["scores"]}
    chosen = rows.pop("chosen")
    found = {name: _number(chosen[name]) for name in ("mae", "rmse", "r2", "spearman")}
    at_level: dict[str, Any] = next((row for row in record["coverage"] if row["level"] == record["level"]), {})
    if at_level.get("rows"):
        found |= {"coverage": _number(at_level["coverage"]), "interval_width": _number(at_level["mean_width"])}
    return found | {f"others_mae/{name}": _number(row["mae"]) for name, row in rows.items()}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def describe_proxy(record: dict[str, Any], validation: pd.DataFrame) -> str:
    """Say in markdown how good a proxy is on models it had not seen."""
    columns = ["candidate", "mae", "rmse", "r2", "spearman", "coverage"]
    found = pd.DataFrame(record["scores"]).reindex(columns=columns).dropna(axis=1, how="all")
    shown = validation[["model", "truth", "estimate", "lower", "upper"]].dropna(axis=1, how="all")
    return (
        f"Proxy of **{escaped(str(record.get('target', 'the target')))}**, checked on {len(validation)} models "
        f"left out in turn. {escaped(str((record.get('verdict') or {}).get('sentence') or ''))}\n\n"
        f"{note_table(found)}\n\n**Each left out in turn**\n\n{note_table(shown, limit=SHOWN)}"
    )
