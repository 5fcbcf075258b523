"""Replaying a sweep's results folder into a tracker, as often as one likes."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from estimators.base import EmergenceError, InputError, Progress
from tracking.rendering import png
from tracking.reporting import page
from tracking.results import Job, Results, digest, flatten, read_results
from tracking.summary import at_end, at_peak, at_resolution, flags, markdown, measured, peaks
from tracking.sweep_figures import SWEEP_FIGURES
from tracking.tracker import Corpus, Known, Point, Tracker, finite, metric_name

PARENT = "sweep"  # the key of a sweep's own run
BITS = ("ie_bits", "macro_bits", "micro_bits")
NOTE = "mlflow.note.content"  # the tag the MLflow UI shows as description


@dataclass(frozen=True)
class TrackedSweep:
    """Where a sweep is tracked.

    Attributes:
        run_id: the sweep's own run.
        children: run of every job, by the job's key.
        new: runs written this time; 0 when all had been there.
    """

    run_id: str
    children: dict[str, str] = field(default_factory=dict)
    new: int = 0


def track(
    results: Path,
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    progress: Progress | None = None,
) -> TrackedSweep:
    """Log a sweep's results folder to MLflow: a run for the sweep, one below it per model and corpus.

    What is tracked already is left alone, so this can be repeated: after the server was down, after the sweep was
    resumed, or into another server.

    Args:
        results: folder that `emergence sweep` wrote, finished or not.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment, made if it is not there.
        progress: told of every job.

    Raises:
        InputError: if the folder is no results folder, or the store cannot be used.
        EmergenceError: if the store failed on the way; nothing on disk is lost.
    """
    found = read_results(results)
    from tracking.mlflow_tracker import MlflowTracker

    return replay(found, MlflowTracker(tracking_uri, experiment), progress=progress)


def replay(results: Results, tracker: Tracker, *, progress: Progress | None = None) -> TrackedSweep:
    """Log `results` through any tracker; see `track`.

    Raises:
        EmergenceError: if the tracker failed; says how far it came and how to go on.
    """
    if not results.jobs:
        raise InputError(f"No job of {results.folder} has ended yet; track it when the sweep has got further.")
    children: dict[str, str] = {}
    new = 0
    with results.lock():
        try:
            known = tracker.known(results.key)
            parent = known.get(PARENT)
            whole = digest(json.dumps([results.record, [job.digest for job in results.jobs]], sort_keys=True).encode())
            started = min((job.started for job in results.jobs if job.started), default=0)
            run_id = (
                parent.run_id
                if parent
                else tracker.start(PARENT, results.name, sweep=results.key, parent=None, started=started)
            )
            for done, job in enumerate(results.jobs):
                children[job.key], fresh = _track_job(results, job, tracker, run_id, known.get(job.key))
                new += fresh
                if progress is not None:
                    progress(done + 1, len(results.jobs) + 1)
            if parent is None or parent.digest != whole:
                _track_sweep(results, tracker, run_id, whole)
                new += parent is None
        except InputError:
            raise
        except EmergenceError as error:
            raise EmergenceError(
                f"{error} {len(children)} of {len(results.jobs)} jobs are tracked; nothing is lost, so run "
                f"`emergence track {results.folder}` again later."
            ) from error
    if progress is not None:
        progress(len(results.jobs) + 1, len(results.jobs) + 1)
    return TrackedSweep(run_id, children, new)


def _track_job(results: Results, job: Job, tracker: Tracker, parent: str, known: Known | None) -> tuple[str, bool]:
    """Track one job unless it is there already; return its run and whether it was written."""
    if known is not None and known.digest == job.digest:
        return known.run_id, False
    if known is not None:  # left unfinished, or the job was run again and gave something else
        tracker.drop(known.run_id)
    run_id = tracker.start(job.key, job.name, sweep=results.key, parent=parent, started=job.started)
    record = job.record
    table = job.rows
    points, unfit = finite(job_points(table, record))
    estimator = str(table["estimator"].iloc[0]) if "estimator" in table and len(table) else ""
    tags = {
        "model": job.model,
        "corpus": job.corpus,
        "family": str(record.get("family") or ""),
        "estimator": estimator,
        "status": "failed" if job.failed else "done",
        "host": str(record.get("host") or ""),
        "flags": "; ".join(filter(None, [flags(table), *unfit])),
        NOTE: describe_job(job, table),
    }
    params = {
        **{name: record.get(name) for name in ("model", "revision", "family", "parameters", "corpus", "corpus_hash")},
        "config": record.get("config") or {},
    }
    tracker.log(
        run_id,
        params={metric_name(name): value for name, value in flatten(params).items()},
        tags=tags,
        points=points,
        corpora=[_corpus(job)] if record.get("corpus_hash") else [],
        at=job.started,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if job.path is not None:
            shutil.copyfile(job.path, folder / "emergence.parquet")
        (folder / "job.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=job.digest, failed=job.failed, ended=job.ended)
    return run_id, True


def _corpus(job: Job) -> Corpus:
    return Corpus(job.corpus, str(job.record["corpus_hash"]), str(job.record["corpus"]), "measured on")


def job_points(table: pd.DataFrame, record: dict[str, object]) -> Iterable[Point]:
    """Turn one job's rows into curves: E(l), macro and micro by layer, by position and by resolution.

    Layers are at the last position; positions and resolutions are at the block where E(l) peaks. The step of a
    resolution is 1000 rho. Of other than the default resolution there is E(l) alone, named by it; the rest is in the
    table.
    """
    if record.get("seconds") is not None:
        yield Point("seconds", float(str(record["seconds"])))
    if table.empty:
        return
    default = at_resolution(table)
    resolution = default["resolution"].iloc[0]
    peak = at_peak(table)
    for name in BITS:
        if name not in table:
            continue
        for row in at_end(default).to_dict("records"):
            yield Point(f"by_layer/{name}", _number(row[name]), int(row["layer"]))
        for row in at_resolution(peak).to_dict("records") if len(peak) else ():
            yield Point(f"by_position/{name}", _number(row[name]), int(row["position"]))
        for row in at_end(peak).to_dict("records") if len(peak) else ():
            if not pd.isna(row["resolution"]):
                yield Point(f"by_resolution/{name}", _number(row[name]), round(1000 * row["resolution"]))
    for row in at_end(table).to_dict("records"):
        if not pd.isna(row["resolution"]) and row["resolution"] != resolution:
            yield Point(f"ie_by_layer/at_{row['resolution']:g}", _number(row["ie_bits"]), int(row["layer"]))
    for row in peaks(table).to_dict("records"):
        yield Point("emergence_bits", _number(row["emergence_bits"]))
        yield Point("peak_layer", _number(row["peak_layer"]))
        if not pd.isna(row["emergence_bits_std_error"]):
            yield Point("emergence_bits_std_error", _number(row["emergence_bits_std_error"]))


def _number(value: object) -> float:
    return float("nan") if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]


def _track_sweep(results: Results, tracker: Tracker, run_id: str, whole: str) -> None:
    record, table = results.record, measured(results.table)
    summary = peaks(table)
    points = [
        Point(
            metric_name(f"emergence_by_size/{row['corpus']}/{row['family']}"),
            _number(row["emergence_bits"]),
            int(row["parameters"]),
        )
        for row in summary.to_dict("records")
        if not pd.isna(row["parameters"])
    ]
    points += [
        Point("jobs_done", len(results.jobs) - len(results.failures)),
        Point("jobs_failed", len(results.failures)),
        Point("job_seconds", sum(float(job.record.get("seconds") or 0) for job in results.jobs)),
    ]
    points, unfit = finite(points)
    config = record.get("config") or {}
    tracker.log(
        run_id,
        params={
            metric_name(name): value for name, value in flatten({"config": config, "seed": record.get("seed")}).items()
        },
        tags={
            # Tags, not parameters: a sweep resumed elsewhere or later has others, and MLflow's parameters are final.
            **{
                metric_name(n): v
                for n, v in flatten({k: record.get(k) or {} for k in ("versions", "hardware")}).items()
            },
            **({"mlflow.source.git.commit": str(record["git_revision"])} if record.get("git_revision") else {}),
            "models": ", ".join(sorted({job.model for job in results.jobs})),
            "corpora": ", ".join(sorted({job.corpus for job in results.jobs})),
            "families": ", ".join(sorted({str(job.record.get("family") or "") for job in results.jobs} - {""})),
            "kind": "sweep",
            "mlflow.source.name": "emergence sweep",
            "mlflow.source.type": "LOCAL",
            "flags": "; ".join(filter(None, [flags(table), *unfit])),
            NOTE: describe_sweep(results, summary),
        },
        points=points,
        corpora=sorted({_corpus(job) for job in results.jobs if job.record.get("corpus_hash")}),
        at=round(1000 * time.time()),  # MLflow shows the latest value, so that of the latest replay
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sweep_files(results, summary, folder)
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=whole, failed=bool(results.failures), ended=max(job.ended for job in results.jobs))


def write_sweep_files(results: Results, summary: pd.DataFrame, folder: Path) -> None:
    """Write what a sweep's own run keeps: sweep.json, the report, the tables, the figures."""
    shutil.copyfile(results.folder / "sweep.json", folder / "sweep.json")
    (folder / "report.html").write_text(page(results), encoding="utf-8")
    summary.to_csv(folder / "summary.csv", index=False)
    table = results.table
    if table.empty:
        return
    table.to_parquet(folder / "emergence.parquet", index=False)
    (folder / "figures").mkdir()
    for figure in SWEEP_FIGURES:
        if len(figure.rows(table)):
            (folder / "figures" / f"{figure.name}.png").write_bytes(png(figure.draw(table)))


def describe_sweep(results: Results, summary: pd.DataFrame) -> str:
    """Say in markdown what a sweep is and what came out, for someone who opens the UI."""
    done = len(results.jobs) - len(results.failures)
    lines = [
        f"{len({job.model for job in results.jobs})} models on {len({job.corpus for job in results.jobs})} corpora: "
        f"{done} jobs done, {len(results.failures)} failed. E(l) = IE(l, T) in bits (arXiv 2405.12617) at its highest "
        "block:",
        "",
        markdown(_short(summary)),
        "",
        "Each model and corpus is a run below this one, with curves by layer, position and resolution. "
        "Start with report.html among the artifacts; figures and tables are beside it.",
    ]
    if results.failures:
        failures = pd.DataFrame(
            [
                {
                    "model": job.model,
                    "corpus": job.corpus,
                    "failed": f"{job.record.get('error_type')}: {job.record.get('error')}"[:200],
                }
                for job in results.failures
            ]
        )
        lines += ["", "**Failures**", "", markdown(failures, 10)]
    return "\n".join(lines)


def _short(summary: pd.DataFrame) -> pd.DataFrame:
    """Keep the columns of a summary that fit a description, the largest emergence first within a corpus."""
    columns = ["model", "corpus", "parameters", "emergence_bits", "emergence_bits_std_error", "peak_layer"]
    names = {"emergence_bits": "E [bits]", "emergence_bits_std_error": "± std error", "peak_layer": "block"}
    return summary.sort_values(["corpus", "emergence_bits"], ascending=[True, False])[columns].rename(columns=names)


def describe_job(job: Job, table: pd.DataFrame) -> str:
    """Say in markdown what one job measured, or why it failed."""
    if job.failed:
        reason = markdown(pd.DataFrame([{"error": str(job.record.get(k))} for k in ("error_type", "error")]))
        return f"Failed; the traceback is in job.json among the artifacts.\n\n{reason}"
    return (
        markdown(_short(peaks(table)))
        + "\n\n`by_layer` at the last position, `by_position` and `by_resolution` at the highest block "
        "(step of a resolution: 1000 rho), `ie_by_layer` at the other resolutions; all rows are in emergence.parquet."
    )
