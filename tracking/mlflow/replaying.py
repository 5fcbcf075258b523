"""Replaying a sweep's results folder into a tracker; repeating it changes nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from estimators.base import EmergenceError, InputError, Progress
from estimators.contracts.controls import CONTROLS, is_shuffled, is_twin, varying
from estimators.contracts.files import locked
from estimators.contracts.peaks import at_end, at_peak, at_resolution, blocks_or_output, flags
from tracking.mlflow.notes import note_table
from tracking.mlflow.sweep_run import source_of, track_sweep
from tracking.mlflow.tracker import NOTE, Known, Point, Tracker, finite, named, number
from tracking.results import WINDOWS_FILE, JobResult, Results, digest, flatten, read_results
from tracking.summary import summary_table

PARENT = "sweep"  # the key of a sweep's own run
BITS = ("ie_bits", "macro_bits", "micro_bits")


@dataclass(frozen=True)
class TrackedSweep:
    """Where a sweep is tracked.

    Attributes:
        run_id: the sweep's own run.
        children: run of every job, by the job's key.
        new: runs written this time; 0 if all existed already.

    >>> TrackedSweep("a1b2", {"0123456789abcdef": "c3d4"}, new=2).run_id
    'a1b2'
    """

    run_id: str
    children: dict[str, str] = field(default_factory=dict)
    new: int = 0


def track(
    results: str | PathLike[str],
    *,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    progress: Progress | None = None,
    display_name: str | None = None,
) -> TrackedSweep:
    """Log a sweep's results folder to MLflow: a run for the sweep, one below it per model and corpus.

    What is already tracked is left as it is, so this can be repeated: after the server was down, after the sweep was
    resumed, or into another server.

    Args:
        results: folder that `emergence sweep` wrote, finished or not.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment; created if missing.
        progress: called after every job.
        display_name: what messages call the folder, where it is a copy of another place.

    Raises:
        InputError: if the folder is not a results folder, or the store cannot be used.
        EmergenceError: if the store failed halfway; nothing on disk is lost.

    >>> store = f"sqlite:///{scratch}/mlflow.db"
    >>> track(results, tracking_uri=store).new  # the sweep's run and that of its one job
    2
    >>> track(results, tracking_uri=store).new
    0
    """
    found = read_results(Path(results), display_name)
    from tracking.mlflow.adapter import MlflowTracker

    return replay(found, MlflowTracker(tracking_uri, experiment), progress=progress)


def replay(results: Results, tracker: Tracker, *, progress: Progress | None = None) -> TrackedSweep:
    """Log `results` through any tracker; see `track`.

    Raises:
        EmergenceError: if the tracker failed; says how much is tracked and how to continue.

    >>> from tracking.mlflow.adapter import MlflowTracker
    >>> from tracking.results import read_results
    >>> tracker = MlflowTracker(f"sqlite:///{scratch}/mlflow.db", "replayed")
    >>> replay(read_results(results), tracker).new  # the sweep's run and that of its one job
    2
    """
    if not results.jobs:
        raise InputError(f"No job of {results.where} has finished yet; track it once one has.")
    tracked: dict[str, tuple[str, bool]] = {}
    total = len(results.jobs) + 1
    with locked(results.folder), _resumable(results, tracked):
        known = tracker.known(results.key)
        parent = known.get(PARENT)
        started = min((job.started for job in results.jobs if job.started), default=0)
        run_id = (
            parent.run_id
            if parent
            else tracker.start(PARENT, results.name, sweep=results.key, parent=None, started=started)
        )

        def work(job: JobResult) -> tuple[str, bool]:
            return _track_job(results, job, tracker, run_id, known.get(job.key))

        for job, outcome in _each(results.jobs, work, tracker.writers):
            tracked[job.key] = outcome
            if progress is not None:
                progress(len(tracked), total)
        whole = digest(json.dumps([results.record, [job.digest for job in results.jobs]], sort_keys=True).encode())
        if parent is None or parent.digest != whole:
            track_sweep(results, tracker, run_id, whole)
    if progress is not None:
        progress(total, total)
    children = {job.key: tracked[job.key][0] for job in results.jobs}
    return TrackedSweep(run_id, children, sum(fresh for _, fresh in tracked.values()) + (parent is None))


@contextmanager
def _resumable(results: Results, tracked: dict[str, tuple[str, bool]]) -> Iterator[None]:
    """Add to an error how much is tracked and how to continue."""
    try:
        yield
    except InputError:
        raise
    except (EmergenceError, OSError) as error:
        what = error if isinstance(error, EmergenceError) else f"Files on this machine: {error.strerror or error}."
        raise EmergenceError(
            f"{what} {len(tracked)} of {len(results.jobs)} jobs are tracked; nothing is lost, so run "
            f"`emergence track {results.where}` again later."
        ) from error


def _each(
    jobs: tuple[JobResult, ...], work: Callable[[JobResult], tuple[str, bool]], writers: int
) -> Iterator[tuple[JobResult, tuple[str, bool]]]:
    """Do `work` on every job, `writers` at once, and yield what is done; the first failure ends it."""
    if writers == 1:
        yield from ((job, work(job)) for job in jobs)
        return
    pool = ThreadPoolExecutor(writers, thread_name_prefix="tracking")
    try:
        running = {pool.submit(work, job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _track_job(
    results: Results, job: JobResult, tracker: Tracker, parent: str, known: Known | None
) -> tuple[str, bool]:
    """Track one job unless it is there already; return its run and whether it was written."""
    if known is not None and known.digest == job.digest:
        return known.run_id, False
    if known is not None:  # left unfinished, or the job was run again and gave something else
        tracker.drop(known.run_id)
    run_id = tracker.start(job.key, job.name, sweep=results.key, parent=parent, started=job.started)
    record = job.record
    table = job.rows
    summary = results.summary
    summary = summary[(summary["model"] == job.model) & (summary["corpus"] == job.corpus)]
    if summary.empty:  # a control that was measured as a job of its own
        summary = summary_table(table)
    points, unfit = finite(job_points(table, summary, record))
    tags = {
        "sweep": results.name,
        "model": job.model,
        "corpus": job.corpus,
        "family": str(record.get("family") or ""),
        "estimator": ", ".join(summary["estimator"].astype(str)),
        "verdict": str(main["verdict"]) if (main := main_row(summary)) is not None else "",
        "control": "random weights" if is_twin(job.model) else "shuffled windows" if is_shuffled(job.corpus) else "",
        "status": "failed" if job.failed else "done",
        **{name: str(record.get(name) or "") for name in ("host", "device", "gpus")},
        "flags": "; ".join(filter(None, [flags(table), *unfit])),
        NOTE: describe_job(job, summary),
    }
    params = {
        **{name: record.get(name) for name in ("model", "revision", "family", "parameters", "corpus", "corpus_hash")},
        "config": record.get("config") or {},
    }
    tracker.log(
        run_id,
        params=named(flatten(params)),
        tags=tags,
        points=points,
        sources=[source_of(job)] if record.get("corpus_hash") else [],
        at=job.started,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if job.path is not None:
            shutil.copyfile(job.path, folder / "emergence.parquet")
        if job.windows_path is not None:
            shutil.copyfile(job.windows_path, folder / WINDOWS_FILE)
        (folder / "job.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        tracker.upload(run_id, folder)
    tracker.end(run_id, digest=job.digest, failed=job.failed, ended=job.ended)
    return run_id, True


def job_points(table: pd.DataFrame, summary: pd.DataFrame, record: dict[str, object]) -> Iterable[Point]:
    """Turn one job's rows into curves: E(l), macro and micro by layer, by position and by resolution.

    Layers are at the last position; positions and resolutions are at the block where E(l) peaks. The step of a
    resolution is 1000 rho. Of other than the default resolution there is E(l) alone, named by it; the rest is in the
    table. Of several estimators the one of `main_row` has these names, the others have their own in front.

    Args:
        table: the job's rows.
        summary: the job's rows of `summary_table`.
        record: the job's record.
    """
    if record.get("seconds") is not None:
        yield Point("seconds", float(str(record["seconds"])))
    main = main_row(summary)
    for row in summary.to_dict("records"):
        before = "" if main is None or row["estimator"] == main["estimator"] else f"{row['estimator']}/"
        rows = table[table["estimator"] == row["estimator"]]
        if row["block"] >= 0:  # the output is a single point
            yield from (point._replace(key=before + point.key) for point in _curves(rows))
        yield Point(f"{before}E", number(row["E"]))
        yield Point(f"{before}peak_block", number(row["block"]))
        for name, column in {"E_error": "±", "E_twin": "twin", "E_shuffled": "shuffled"}.items():
            if column in row and not pd.isna(row[column]):
                yield Point(before + name, number(row[column]))


def main_row(summary: pd.DataFrame) -> pd.Series | None:
    """Return the row of the estimator that stands for a job: predictive, else that of states, else the first."""
    for estimator in ("predictive", "sample-propagation"):
        if len(found := summary[summary["estimator"] == estimator]):
            return found.iloc[0]
    return summary.iloc[0] if len(summary) else None


def _curves(table: pd.DataFrame) -> Iterable[Point]:
    ends, peak = at_end(blocks_or_output(table)), at_peak(table)
    default = at_resolution(ends)
    at_peak_end = at_end(peak)
    curves = {
        "by_layer": (default, default["layer"]),
        "by_position": (rows := at_resolution(peak), rows["position"]),
        "by_resolution": (at_peak_end, 1000 * at_peak_end["resolution"].astype("Float64")),
    }
    for curve, (rows, steps) in curves.items():
        for name in (*BITS, *(f"{control}_ie_bits" for control in CONTROLS)):
            if name in rows:
                yield from _points(f"{curve}/{name}", rows[name], steps)
    for resolution, rows in ends.groupby("resolution"):
        if resolution != default["resolution"].iloc[0]:
            yield from _points(f"ie_by_layer/at_{resolution:g}", rows["ie_bits"], rows["layer"])


def _points(key: str, values: pd.Series, steps: pd.Series) -> Iterable[Point]:
    """Pair values with whole steps; where there is no step there is no point."""
    xs, ys = (column.to_numpy(dtype=float, na_value=np.nan) for column in (steps, values))
    return (Point(key, float(y), round(float(x))) for x, y in zip(xs, ys, strict=True) if not np.isnan(x))


def describe_job(job: JobResult, summary: pd.DataFrame) -> str:
    """Say in markdown what one job measured, or why it failed."""
    if job.failed:
        reason = note_table(pd.DataFrame([{"error": str(job.record.get(k))} for k in ("error_type", "error")]))
        return f"Failed; the traceback is in job.json among the artifacts.\n\n{reason}"
    if summary.empty:
        return f"Done, but {job.reason}."
    return (
        note_table(varying(summary)[0])
        + "\n\n`by_layer` at the last position, `by_position` and `by_resolution` at the highest block "
        "(step of a resolution: 1000 rho), `ie_by_layer` at the other resolutions; all rows are in emergence.parquet."
    )
