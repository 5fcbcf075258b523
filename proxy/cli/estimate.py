"""`emergence estimate`: a saved proxy applied to the features of other models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import emit, screen


def estimate(
    proxy: Annotated[
        str, typer.Argument(help="Folder of a proxy, or in MLflow `models:/NAME@ALIAS` or the id of a run.")
    ],
    features: Annotated[Path, typer.Argument(help="Table of features, one row per model.")],
    out: Annotated[Path | None, typer.Option(help="Write the estimates here (.parquet, .csv, .json).")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; sqlite in the working folder by default.")
    ] = None,
    every_level: Annotated[
        bool, typer.Option("--every-level", help="Also give the 50, 80, 90 and 95 % intervals.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate the target of models from their features: estimate, interval, and whether they lie in the domain.

    Example: `emergence estimate proxy closed-features.parquet --out estimate.csv`
    """
    from extraction.tables import check_table_path, read_table
    from proxy.regression.load import load_proxy

    if out is not None:
        check_table_path(out)
    table = read_table(features)
    folder = Path(proxy)
    run_id = re.fullmatch("[0-9a-f]{32}", proxy) is not None and not folder.exists()
    if run_id or proxy.startswith(("models:/", "runs:/")):
        from tracking import download_proxy

        folder = download_proxy(f"runs:/{proxy}" if run_id else proxy, tracking_uri)
    fitted = load_proxy(folder)
    emit(fitted.predict(table, every_level=every_level), out, as_json=as_json)
    useful = fitted.verdict.useful
    screen.print(fitted.verdict.sentence, style=None if useful else "red", highlight=False, soft_wrap=True)
