"""`emergence report`: a sweep as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import screen


def report(
    results: Annotated[str, typer.Argument(help="Results folder or URL of `emergence sweep`, finished or not.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; default report.html in the results folder, or here.")
    ] = None,
) -> None:
    """Write a sweep's figures, tables, flags and failures into one HTML file that needs no network.

    Example: `emergence report results/demo --out demo.html`
    """
    from proxy.cli.fetching import local_results
    from tracking.reports.page import report as write

    if out is None and "://" in results:
        out = Path("report.html")
    with local_results(results) as folder:
        screen.print(f"Wrote {write(folder, out, display_name=results)}", highlight=False, soft_wrap=True)
