"""A sweep's own run in MLflow: its summary, for a reader who opens it first."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from estimators.contracts.cells import counted, escaped
from estimators.contracts.comparable import unlike_lines
from estimators.contracts.controls import is_shuffled, is_twin, varying
from estimators.contracts.peaks import flags
from tracking.mlflow.notes import note_table
from tracking.mlflow.tracker import NOTE, DataSource, Point, Tracker, finite, named, number
from tracking.reports.page import models_and_corpora, page
from tracking.reports.rendering import png
from tracking.reports.sweep_figures import SWEEP_FIGURES, SweepFigure
from tracking.results import JobResult, Results, flatten
from tracking.summary import alike, count_verdicts

SUMMARY = "summary.json"  # the artifact that MLflow shows as a table, and the tag that makes it do so
TABLES = "mlflow.loggedArtifacts"
SHOWN = 40  # rows of the summary that a description holds


def track_sweep(results: Results, tracker: Tracker, run_id: str, whole: str) -> None:
    """Log the summary of a sweep to its own run `run_id`, which counts as tracked with the digest `whole`."""
    record, table = results.record, results.table
    summary = results.summary
    several = len(summary["estimator"].unique()) > 1
    points = [
        Point(
            f"emergence_by_size/{row['corpus']}/{row['family']}" + (f"/{row['estimator']}" if several else ""),
            number(row["E"]),
            int(row["parameters"]),
        )
        for row in summary.to_dict("records")
        if not pd.isna(row["parameters"])
    ]
    points += [
        Point("jobs_done", len(results.jobs) - len(results.failures)),
        Point("jobs_failed", len(results.failures)),
        Point("jobs_missing", results.missing),
        Point("job_seconds", sum(float(job.record.get("seconds") or 0) for job in results.jobs)),
    ]
    points, unfit = finite(points)
    config = record.get("config") or {}
    tracker.log(
        run_id,
        params=named(flatten({"config": config, "seed": record.get("seed")})),
        tags={
            # Tags, not parameters: a sweep resumed elsewhere or later has others, and MLflow's parameters are final.
            **named(flatten({k: record.get(k) or {} for k in ("versions", "hardware")})),
            **({"mlflow.source.git.commit": str(record["git_revision"])} if record.get("git_revision") else {}),
            "models": ", ".join(sorted({job.model for job in results.jobs if not is_twin(job.model)})),
            "corpora": ", ".join(sorted({job.corpus for job in results.jobs if not is_shuffled(job.corpus)})),
            "verdict": count_verdicts(summary),
            TABLES: json.dumps([{"path": SUMMARY, "type": "table"}]),
            "families": ", ".join(sorted({str(job.record.get("family") or "") for job in results.jobs} - {""})),
            "estimator": ", ".join(sorted(summary["estimator"].astype(str).unique())),
            "kind": "sweep",
            "mlflow.source.name": "emergence sweep",
            "mlflow.source.type": "LOCAL",
            "flags": "; ".join(filter(None, [flags(table), *unfit])),
            NOTE: describe_sweep(results, summary, run_id),
        },
        points=points,
        sources=sorted({source_of(job) for job in results.jobs if job.record.get("corpus_hash")}),
        at=round(1000 * time.time()),  # MLflow shows the latest value, so that of the latest replay
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sweep_files(results, summary, folder)
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=whole, failed=bool(results.failures), ended=max(job.ended for job in results.jobs))


def write_sweep_files(results: Results, summary: pd.DataFrame, folder: Path) -> None:
    """Write what a sweep's own run keeps: sweep.json, the report, the tables, the figures."""
    (folder / "sweep.json").write_text(json.dumps(results.record, indent=1), encoding="utf-8")
    (folder / "report.html").write_text(page(results), encoding="utf-8")
    summary.to_csv(folder / "summary.csv", index=False)
    summary.to_json(folder / SUMMARY, orient="split", index=False, double_precision=4)  # shown digit by digit
    summary.to_parquet(folder / "summary.parquet", index=False)
    table = results.table
    if table.empty:
        return
    table.to_parquet(folder / "emergence.parquet", index=False)
    (folder / "figures").mkdir()
    for figure in drawn(results.figure_rows):
        (folder / "figures" / f"{figure.name}.png").write_bytes(png(figure.draw(results.figure_rows)))


def describe_sweep(results: Results, summary: pd.DataFrame, run_id: str) -> str:
    """Describe a sweep and its results in markdown, with its figures, for the UI."""
    done = len(results.jobs) - len(results.failures)
    lines = [
        f"{models_and_corpora(results)}: {counted(done, 'job')} done, {len(results.failures)} failed. E(l) = IE(l, T) "
        "in bits (arXiv 2405.12617) at its highest block:",
        "",
        *_summary(summary),
        "",
        *(f"{escaped(line)}\n" for line in unlike_lines(results.figure_rows)),
        *(f"![{f.title}]({artifact_link(run_id, f'figures/{f.name}.png')})" for f in drawn(results.figure_rows)),
        "",
        "Each model and corpus is a run below this one, with curves by layer, position and resolution. "
        "Start with report.html among the artifacts; summary.json is the table above, and the figures are beside it.",
    ]
    if results.missing:
        lines += ["", f"{counted(results.missing, 'job')} not ended yet."]
    if results.failures:
        lines += ["", "**Failures**", "", note_table(_reasons(results.failures), limit=10)]
    if results.empty:
        lines += ["", "**Done, but no value is a number**", "", note_table(_reasons(results.empty), limit=10)]
    return "\n".join(lines)


def _summary(summary: pd.DataFrame) -> list[str]:
    """Show the models of the largest emergence on every corpus, so that every corpus is shown."""
    corpora = max(summary["corpus"].nunique(), 1)
    shown = summary.groupby("corpus", sort=False).head(max(SHOWN // corpora, 1)).head(SHOWN)
    left = len(summary) - len(shown)
    columns, above = varying(shown.drop(columns=["family"], errors="ignore"))
    more = ["", f"{left} further rows are in summary.csv."] if left else []
    return [*([escaped(alike(above)), ""] if above else []), note_table(columns), *more]


def drawn(rows: pd.DataFrame) -> list[SweepFigure]:
    """Return the figures that some rows of a table give."""
    return [figure for figure in SWEEP_FIGURES if len(rows) and len(figure.rows(rows))]


def artifact_link(run_id: str, path: str) -> str:
    """Return the address of an artifact below a page of MLflow's user interface."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def _reasons(jobs: tuple[JobResult, ...]) -> pd.DataFrame:
    return pd.DataFrame([{"model": job.model, "corpus": job.corpus, "why": job.reason[:200]} for job in jobs])


def source_of(job: JobResult) -> DataSource:
    """Name the dataset that a job was measured on."""
    return DataSource(job.corpus, str(job.record["corpus_hash"]), str(job.record["corpus"]), "measured on")
