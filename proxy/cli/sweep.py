"""`emergence sweep`: many models on many corpora with Ray, resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import emit, screen, show
from proxy.cli.summary import show_summary

if TYPE_CHECKING:
    import pandas as pd

    from proxy.sweeps.config import SweepConfig
    from proxy.sweeps.plan import Plan

JSON_NAMES = {
    "E": "emergence_bits",
    "±": "emergence_bits_std_error",
    "twin": "twin_bits",
    "shuffled": "shuffled_bits",
    "block": "peak_layer",
}


def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or a shipped sweep such as `demo`.")],
    results: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://...) of the results; default: the config's, results/NAME.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join (`auto`: the one on this machine); default: start one.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of workers to request; an autoscaling cluster grows for them. Default: as many as fit now.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; default: the config's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: jobs, memory, time, what does not fit; start nothing.")
    ] = False,
    log: Annotated[
        str | None, typer.Option(metavar="KEY", help="Print the log and traceback of the job with this key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, or the plan, as JSON on stdout.")] = False,
) -> None:
    """Measure all models of a config on all its corpora; run again, it does only what is missing.

    Results are written as they are finished, one record and table per model and corpus, and merged into
    emergence.parquet. A job that fails is recorded with its traceback and listed at the end (exit code 1).

    Example: `emergence sweep demo --results results/demo`
    """
    from proxy.sweeps.config import load_config

    settings = load_config(config)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    where = results or settings.storage or f"results/{settings.name}"
    if log is not None:
        _show_log(where, log)
    elif dry_run:
        _show_plan(settings, where, address, as_json)
    else:
        _run(settings, where, address, as_json)


def _run(settings: SweepConfig, where: str, address: str | None, as_json: bool) -> None:
    from estimators import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
    from estimators.contracts.cells import counted
    from estimators.contracts.controls import summary
    from proxy.cli.stopping import kept, this_command
    from proxy.cli.watching import Watch
    from proxy.sweeps.cluster import Cluster
    from proxy.sweeps.run import sweep as run_sweep
    from proxy.sweeps.store.summary import end_rows

    _announce_tracking(settings, where)
    with (
        Watch(settings.name) as watch,
        kept(lambda: watch.stop(where, this_command())),
    ):
        outcome = run_sweep(
            settings,
            where,
            cluster=Cluster(address, on_dashboard=watch.dashboard),
            progress=watch.progress,
            on_event=watch.event,
        )
    done = len(outcome.done)
    if outcome.rows:
        known = settings.measurement.resolutions or DEFAULT_RESOLUTIONS
        nearest = min(known, key=lambda resolution: abs(resolution - DEFAULT_RESOLUTION))
        rows = end_rows(outcome.results, resolution=nearest)
        if as_json:
            emit(summary(rows).rename(columns=JSON_NAMES), None, as_json=True)
        else:
            show_summary(rows)
    screen.print(
        f"{counted(done, 'job')} done, {len(outcome.failed)} failed, {outcome.rows} rows; results in {where}",
        highlight=False,
        soft_wrap=True,
    )
    for record in outcome.failed:
        screen.print(
            f"Failed: {record['model']} on {record['corpus']}: {record['error_type']}: {record['error']} "
            f"(emergence sweep {settings.name} --results {where} --log {record['key']})",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    tracked = _track(settings, where)
    if outcome.failed or not tracked:
        raise typer.Exit(1)


def _track(settings: SweepConfig, where: str) -> bool:
    """Log the results if the config says so; False if that failed, which costs no result."""
    if settings.tracking is None:
        return True
    from estimators.base import EmergenceError
    from proxy.cli.fetching import local_results
    from tracking import track

    chosen = settings.tracking
    try:
        with local_results(where) as folder:
            track(folder, tracking_uri=chosen.uri, experiment=chosen.experiment, display_name=where)
    except (EmergenceError, OSError) as error:
        _warn(f"Not tracked: {error} The results are complete; track them later: emergence track {where}", "red")
        return False
    return True


def _announce_tracking(settings: SweepConfig, where: str) -> None:
    """Say before the work begins that the store does not answer; results come first, so the sweep runs all the same."""
    if settings.tracking is None:
        return
    from estimators.base import InputError
    from tracking.mlflow.store import check_store

    try:
        check_store(settings.tracking.uri)
    except InputError as error:
        _warn(f"{error} The sweep runs all the same; track it later: emergence track {where}", "yellow")


def _warn(text: str, style: str) -> None:
    screen.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _show_plan(settings: SweepConfig, where: str, address: str | None, as_json: bool) -> None:
    from proxy.sweeps.jobs import require_reachable
    from proxy.sweeps.plan import plan

    planned = plan(settings, where, address=address)
    _print_plan(planned, where, as_json)
    require_reachable(planned.absent)  # after the plan, which may be of use all the same


def _print_plan(planned: Plan, where: str, as_json: bool) -> None:
    import json
    import sys

    from estimators.contracts.cells import counted
    from proxy.cli.watching import duration

    if as_json:
        summary = {
            "jobs": planned.jobs,
            "done": planned.done,
            "rejected": planned.rejected,
            "workers": planned.workers,
            "seconds": planned.seconds,
            "remarks": planned.remarks,
            "absent": planned.absent,
            "models": json.loads(planned.models.to_json(orient="records")),
        }
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return
    show(plan_rows(planned.models))
    basis = "from the jobs done" if planned.measured else "a rough estimate from sizes"
    redo = f", {planned.rejected} to do again" if planned.rejected else ""
    screen.print(
        f"{counted(planned.jobs, 'job')}, {planned.done} done{redo}; {counted(planned.workers, 'worker')} at once; "
        f"about {duration(planned.seconds)} ({basis}); results in {where}",
        highlight=False,
        soft_wrap=True,
    )
    for remark in planned.remarks:
        screen.print(remark, style="yellow", markup=False, highlight=False, soft_wrap=True)


def plan_rows(models: pd.DataFrame) -> pd.DataFrame:
    """Return the models of a plan as a person reads them, without what is the same for all and says nothing.

    >>> import pandas as pd
    >>> rows = {"model": ["a", "b"], "version": ["1", "2"], "parameters": [10, 2_000_000], "jobs": 2, "done": 0}
    >>> rows |= {"cpus": 1, "gpus": 0.0, "memory_gb": [1.0, 2.5], "minutes": [0.1, 5.95], "fits": ["yes", "NO"]}
    >>> print(plan_rows(pd.DataFrame(rows)).to_string(index=False))
    model  parameters  jobs memory  time fits
        a          10     2 1.0 GB   6 s  yes
        b     2000000     2 2.5 GB 6 min   NO
    """
    from proxy.cli.watching import duration

    shown = models.assign(
        gpus=[f"{count:g}" for count in models["gpus"]],
        memory=[f"{size:.1f} GB" for size in models["memory_gb"]],
        time=[duration(60 * minutes) for minutes in models["minutes"]],
    )
    told = [name for name, usual in {"done": 0, "cpus": 1, "gpus": "0"}.items() if (shown[name] != usual).any()]
    return shown[["model", "parameters", "jobs", *told, "memory", "time", "fits"]]


def _show_log(where: str, key: str) -> None:
    from estimators.base import InputError
    from estimators.contracts.secrets import printable
    from proxy.sweeps.store.results import ResultsStore
    from proxy.sweeps.store.storage import open_storage

    record = ResultsStore(open_storage(where, writable=False)).record(key)
    if record is None:
        raise InputError(
            f"No record of a job {key} in {where}; the keys are the names of the files in its jobs folder."
        )
    typer.echo(f"{record['model']} on {record['corpus']}: {record['status']} on {record['host']}, {record['started']}")
    for part in ("log", "traceback"):
        if record.get(part):
            typer.echo(printable(str(record[part]).rstrip()))
