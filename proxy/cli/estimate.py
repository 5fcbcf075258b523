"""`emergence estimate`: a saved proxy applied to the features of other models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import emit, screen, show

if TYPE_CHECKING:
    import pandas as pd


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
    estimates = fitted.predict(table, every_level=every_level)
    if out is not None or as_json:
        emit(estimates, out, as_json=as_json)
    else:
        show(by_level(estimates) if every_level else estimates.drop(columns="remarks"))
    for row in estimates.itertuples():
        screen.print(f"{row.model}: {row.remarks}.", markup=False, highlight=False, soft_wrap=True)
    useful = fitted.verdict.useful
    screen.print(fitted.verdict.sentence, style=None if useful else "red", highlight=False, soft_wrap=True)


def by_level(estimates: pd.DataFrame) -> pd.DataFrame:
    """Turn the columns lower_50, upper_50 ... into a row per model and level, which fits a screen."""
    import pandas as pd

    levels = [name.removeprefix("lower_") for name in estimates.columns if name.startswith("lower_")]
    parts = [
        pd.DataFrame(
            {
                "model": estimates["model"],
                "estimate": estimates["estimate"],
                "level": f"{level} %",
                "lower": estimates[f"lower_{level}"],
                "upper": estimates[f"upper_{level}"],
            }
        )
        for level in levels
    ]
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
