"""`emergence sweep`: many models on many corpora with Ray, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or a shipped sweep such as `demo`.")],
    results: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://...) for results; default: results/NAME.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join (`auto`: the one on this machine); default: start one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Measure all models of a config on all its corpora; run again, it does only what is missing.

    Example: `emergence sweep demo --results results/demo`
    """
    from proxy.cli.console import emit, screen
    from proxy.cli.watching import Watch
    from proxy.config import load_config
    from proxy.measure import peak_emergence
    from proxy.sweep import sweep as run_sweep

    settings = load_config(config)
    where = results or settings.storage or str(Path("results") / settings.name)
    with Watch(settings.name) as watch:
        outcome = run_sweep(settings, where, address=address, progress=watch.progress, watch=watch.event)
    table = outcome.table
    if len(table):
        emit(peak_emergence(table), None, as_json=as_json)
    screen.print(f"{len(outcome.done)} done, {len(outcome.failed)} failed; results in {where}", highlight=False)
    for record in outcome.failed:
        screen.print(
            f"Failed: {record['model']} on {record['corpus']} ({record['key']}): "
            f"{record['error_type']}: {record['error']}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if outcome.failed:
        raise typer.Exit(1)
