"""`emergence report`: a sweep as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import screen


def report(
    results: Annotated[Path, typer.Argument(help="Results folder of `emergence sweep`, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="The file; default report.html in the results folder.")] = None,
) -> None:
    """Write a sweep's figures, tables, flags and failures into one HTML file that needs no network.

    Example: `emergence report results/demo --out demo.html`
    """
    from tracking.reporting import report as write

    screen.print(f"Wrote {write(results, out)}", highlight=False, soft_wrap=True)
