"""`emergence estimate`: a saved proxy applied to the features of other models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import emit


def estimate(
    proxy: Annotated[str, typer.Argument(help="Folder of a proxy, `models:/NAME@ALIAS` or `runs:/ID/...` in MLflow.")],
    features: Annotated[Path, typer.Argument(help="Table of features, one row per model.")],
    out: Annotated[Path | None, typer.Option(help="Write the estimates here (.parquet, .csv, .json).")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; sqlite in the working folder by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate the target of models from their features: estimate, interval, and whether they lie in the domain.

    Example: `emergence estimate proxy closed-features.parquet --out estimate.csv`
    """
    from extraction.tables import check_table_path, read_table
    from proxy.saving import load_proxy

    if out is not None:
        check_table_path(out)
    table = read_table(features)
    if proxy.startswith(("models:/", "runs:/")):
        from tracking import download_proxy

        folder = download_proxy(proxy, tracking_uri)
    else:
        folder = Path(proxy)
    emit(load_proxy(folder).predict(table), out, as_json=as_json)
