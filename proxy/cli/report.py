"""`emergence report`: a sweep or an emergence table as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import during, screen


def report(
    results: Annotated[
        str,
        typer.Argument(
            help="Results folder or URL of `emergence sweep`, finished or not; or an emergence table, as "
            "`emergence measure --out` writes it."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file; default report.html in the results folder, or here.")
    ] = None,
) -> None:
    """Write figures, tables, verdicts and flags into one HTML file that needs no network.

    Example: `emergence report results/demo --out demo.html`

    A table needs no sweep: `emergence report emergence.parquet --out emergence.html`
    """
    from extraction.tables import read_table
    from proxy.cli.fetching import local_results
    from proxy.schemas import EMERGENCE
    from tracking.reports.page import report as write

    if Path(results).is_file():
        table = read_table(Path(results), EMERGENCE)
        with during(f"Drawing the report of {results}"):
            written = write(table, out, display_name=Path(results).name)
        screen.print(f"Wrote {written}", highlight=False, soft_wrap=True)
        return
    if out is None and "://" in results:
        out = Path("report.html")
    with local_results(results) as folder:
        with during(f"Drawing the report of {results}"):
            written = write(folder, out, display_name=results)
        screen.print(f"Wrote {written}", highlight=False, soft_wrap=True)
