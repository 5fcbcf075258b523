"""`emergence promote`: a new champion among the registered proxies."""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.console import during, emit, screen
from proxy.cli.groups import TrackingUri


def promote(
    name: Annotated[str, typer.Argument(help="Name of the registered proxy.")],
    version: Annotated[str | None, typer.Option(help="Version to promote; default the candidate.")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Promote even if it beats neither a baseline nor the champion.")
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Give the alias `champion` to a registered proxy, and say what got better on models it had not seen.

    Refused when its mean absolute error is not smaller than that of its best baseline and that of the champion.

    Example: `emergence promote emergence-demo`
    """
    from tracking.mlflow.promotion import promote as give

    with during(f"Comparing versions of {name}"):
        done = give(name, version=version, anyway=anyway, tracking_uri=tracking_uri)
    emit(done.table, None, as_json=as_json)
    for remark in done.remarks:
        screen.print(f"Note: {remark}.", highlight=False, soft_wrap=True)
    was = f"instead of version {done.before}" if done.before else "the first one"
    screen.print(f"Version {done.version} of {name} is the champion now, {was}.", highlight=False, soft_wrap=True)
