"""Tables other than a sweep's: emergence tables, features, and estimates of models that cannot be measured."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from estimators.base import InputError
from estimators.contracts.cells import escaped
from estimators.contracts.controls import varying
from tracking.mlflow.adapter import MlflowTracker
from tracking.mlflow.notes import note_table
from tracking.mlflow.sweep_run import SUMMARY, TABLES, artifact_link, drawn
from tracking.mlflow.tracker import NOTE, DataSource, Point, finite, number
from tracking.reports.figures import texts
from tracking.reports.page import table_page
from tracking.reports.proxy_figures import parity
from tracking.reports.rendering import png
from tracking.results import digest
from tracking.summary import alike, count_verdicts, figure_rows, summary_table

SHOWN = 40  # rows of a table that a description holds
READ = re.compile(r"small\..+\.ie_[\d.]+")  # columns of features that hold the emergence of texts, as a reader sees it


def track_estimates(
    frame: pd.DataFrame,
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    name: str = "estimates",
) -> str:
    """Log estimates of other models as one run; the same table is logged once.

    Args:
        frame: columns model, estimate, lower, upper; optionally truth, in_domain, remarks and baselines.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        name: name of the run.

    Returns:
        The run's id.

    Raises:
        InputError: if a column is missing or the store cannot be used.

    >>> frame = references.head(2)[["model"]].assign(estimate=[1.0, 2.0], lower=[0.5, 1.5], upper=[1.5, 2.5])
    >>> len(track_estimates(frame, tracking_uri=f"sqlite:///{scratch}/mlflow.db"))  # digits of the run's id
    32
    """
    missing = [column for column in ("model", "estimate", "lower", "upper") if column not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            f"Estimates to track have columns model, estimate, lower, upper and a row; missing: "
            f"{', '.join(missing) or 'rows'}."
        )
    tags = {"kind": "estimates", NOTE: note_table(frame, limit=SHOWN)}
    figures = {"parity.png": parity(frame)} if "truth" in frame and frame["truth"].notna().any() else {}
    return _track_table(frame, name, tags, figures, MlflowTracker(tracking_uri, experiment))


def track_features(
    frame: pd.DataFrame,
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    name: str = "features",
) -> str:
    """Log a table of features as one run with figures of how readers see human and model texts; logged once.

    Args:
        frame: column model and features, `small.<reader>.ie_<resolution>` among them; a row whose model is named human
            holds texts by people.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        name: name of the run.

    Returns:
        The run's id.

    Raises:
        InputError: if there is no column model or no row, or the store cannot be used.

    >>> store = f"sqlite:///{scratch}/mlflow.db"
    >>> run_id = track_features(references, tracking_uri=store)
    >>> track_features(references, tracking_uri=store) == run_id  # the same table is logged once
    True
    """
    if "model" not in frame.columns or frame.empty:
        raise InputError("Features to track have a column model and a row per model; see `emergence features`.")
    numeric = frame.select_dtypes("number").columns
    tags = {"kind": "features", NOTE: f"{len(frame)} models, {len(numeric)} features."}
    figures = {f"texts/{column}.png": texts(frame, column) for column in numeric if READ.fullmatch(column)}
    return _track_table(frame, name, tags, figures, MlflowTracker(tracking_uri, experiment))


def track_emergence(
    frame: pd.DataFrame,
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    name: str = "emergence",
) -> str:
    """Log an emergence table without a sweep as one run: report, figures, a row per model; logged once.

    Models behind an API are shown with the open ones that were read in the same way, as a figure with intervals.

    Args:
        frame: an emergence table, as `emergence measure --out` writes it.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        name: name of the run.

    Returns:
        The run's id.

    Raises:
        InputError: if the table has no rows of emergence, or the store cannot be used.

    >>> rows = pd.DataFrame({"model": "m", "corpus": "animal", "layer": [0, 1], "position": 8, "ie_bits": [0.5, 2.0]})
    >>> store = f"sqlite:///{scratch}/mlflow.db"
    >>> len(track_emergence(rows.assign(resolution=0.18), tracking_uri=store))  # digits of the run's id
    32
    """
    page = table_page(frame, name)
    rows = figure_rows(frame)
    summary = summary_table(rows)
    columns, above = varying(summary)

    def tags(run_id: str) -> dict[str, str]:
        images = [f"![{figure.title}]({artifact_link(run_id, f'figures/{figure.name}.png')})" for figure in drawn(rows)]
        note = [escaped(alike(above)), "", note_table(columns, limit=SHOWN), "", *images]
        verdict = {"verdict": count_verdicts(summary), TABLES: json.dumps([{"path": SUMMARY, "type": "table"}])}
        return {"kind": "emergence", "model": ", ".join(summary["model"].unique()), **verdict, NOTE: "\n".join(note)}

    named = ["model", "corpus", "estimator"] if len(summary["estimator"].unique()) > 1 else ["model", "corpus"]
    points = [
        Point("/".join([*(str(row[column]) for column in named), measure]), number(row[at]))
        for row in summary.to_dict("records")
        for measure, at in (("E", "E"), ("E_error", "±"), ("E_twin", "twin"), ("E_shuffled", "shuffled"))
        if at in row and not pd.isna(row[at])
    ]

    def write(folder: Path) -> None:
        frame.to_parquet(folder / "emergence.parquet", index=False)
        summary.to_json(folder / SUMMARY, orient="split", index=False)
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "figures").mkdir()
        for figure in drawn(rows):
            (folder / "figures" / f"{figure.name}.png").write_bytes(png(figure.draw(rows)))

    return _log_once(frame, name, MlflowTracker(tracking_uri, experiment), tags, points, write)


def _track_table(
    frame: pd.DataFrame,
    name: str,
    tags: dict[str, str],
    figures: dict[str, Figure],
    tracker: MlflowTracker,
) -> str:
    """Log a table with a column model: each number but those of words as a metric, table and figures as artifacts."""
    points = [
        Point(f"{row['model']}/{column}", float(row[column]))
        for row in frame.to_dict("records")
        for column in frame.select_dtypes("number").columns
        if not column.startswith("words.") and not pd.isna(row[column])  # thousands: they stay in the table
    ]

    def write(folder: Path) -> None:
        frame.to_csv(folder / "table.csv", index=False)
        frame.to_parquet(folder / "table.parquet", index=False)
        for path, figure in figures.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(png(figure))

    named = {**tags, "model": ", ".join(map(str, frame["model"]))}
    return _log_once(frame, name, tracker, lambda _: named, points, write)


def _log_once(
    frame: pd.DataFrame,
    name: str,
    tracker: MlflowTracker,
    tags: Callable[[str], dict[str, str]],
    points: list[Point],
    write: Callable[[Path], None],
) -> str:
    """Log a table as one run, unless it is there; `tags` gets the run's id, `write` the folder of the artifacts."""
    key = digest(frame.to_csv(index=False).encode())
    known = tracker.known(name).get(key)
    if known is not None and known.digest:
        return known.run_id
    if known is not None:
        tracker.drop(known.run_id)
    now = round(1000 * time.time())
    run_id = tracker.start(key, name, sweep=name, parent=None, started=now)
    points, unfit = finite(points)
    tracker.log(
        run_id,
        tags={**tags(run_id), "flags": "; ".join(unfit)},
        points=points,
        sources=[DataSource(name, key, "the table among the artifacts", "table")],
        at=now,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder)
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=key, failed=False, ended=round(1000 * time.time()))
    return run_id
