"""Estimates of models that could not be measured, beside the truth where it is known."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pandas as pd

from estimators.base import InputError
from tracking.figures import parity
from tracking.mlflow_tracker import MlflowTracker
from tracking.rendering import png
from tracking.results import digest
from tracking.summary import markdown
from tracking.sweeps import NOTE
from tracking.tracker import Point, finite, metric_name


def track_estimates(
    frame: pd.DataFrame,
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    parent_run_id: str | None = None,
    name: str = "estimates",
) -> str:
    """Log estimates of other models as one run; the same table is logged once.

    Args:
        frame: columns model, estimate, lower, upper; optionally truth, in_domain, remarks and baselines.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        parent_run_id: run of the sweep or proxy they belong to.
        name: name of the run.

    Returns:
        The run's id.

    Raises:
        InputError: if a column is missing or the store cannot be used.
    """
    missing = [column for column in ("model", "estimate", "lower", "upper") if column not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            f"Estimates to track have columns model, estimate, lower, upper and a row; missing: "
            f"{', '.join(missing) or 'rows'}."
        )
    key = digest(frame.to_csv(index=False).encode())
    tracker = MlflowTracker(tracking_uri, experiment)
    known = tracker.known("estimates").get(key)
    if known is not None and known.digest:
        return known.run_id
    now = round(1000 * time.time())
    run_id = known.run_id if known else tracker.start(key, name, sweep="estimates", parent=parent_run_id, started=now)
    numeric = frame.select_dtypes("number").columns
    points, unfit = finite(
        Point(metric_name(f"{row['model']}/{column}"), float(row[column]))
        for row in frame.to_dict("records")
        for column in numeric
        if not pd.isna(row[column])
    )
    tags = {
        "kind": "estimates",
        "model": ", ".join(map(str, frame["model"])),
        "flags": "; ".join(unfit),
        NOTE: markdown(frame),
    }
    tracker.log(run_id, tags=tags, points=points, at=now)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        frame.to_csv(folder / "estimates.csv", index=False)
        if "truth" in frame and frame["truth"].notna().any():
            (folder / "parity.png").write_bytes(png(parity(frame)))
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=key, failed=False, ended=round(1000 * time.time()))
    return run_id
