"""`emergence estimate`: a saved proxy applied to the features of other models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import during, emit, screen, show
from proxy.cli.groups import COST, MLFLOW, SERVER, Concurrency, KeyEnv, MaxCost, Prices, Tokenizer, TrackingUri
from proxy.cli.unused import refuse

if TYPE_CHECKING:
    import pandas as pd


# Panels of --help.
BANK = "References"
SAVED = "A saved proxy"


def estimate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model at an API, or a table of its output rows or answers; with FEATURES the folder of a "
            "proxy, `models:/NAME@ALIAS` or the id of a run.",
        ),
    ],
    features: Annotated[
        Path | None, typer.Argument(help="Table of features, one row per model, for a saved proxy.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for card, tables and figure, MODEL-estimate by default; of a saved proxy a table."),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(help="Folder of a reference bank; default: the one that ships.", rich_help_panel=BANK),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus of the bank; default: its first.", rich_help_panel=BANK)
    ] = None,
    estimator: Annotated[
        str, typer.Option(help="Estimator of the blocks: predictive or sample-propagation.", rich_help_panel=BANK)
    ] = "predictive",
    base_url: Annotated[
        str | None,
        typer.Option(help="Server; default OPENAI_BASE_URL, else OpenAI's own.", rich_help_panel=SERVER),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Send the requests without confirmation.", rich_help_panel=SERVER)
    ] = False,
    key_env: KeyEnv = "OPENAI_API_KEY",
    tokenizer: Tokenizer = None,
    control: Annotated[
        bool, typer.Option(help="Ask for shuffled windows too, as a control.", rich_help_panel=SERVER)
    ] = True,
    prices: Prices = None,
    max_cost: MaxCost = None,
    max_calls: Annotated[
        int | None,
        typer.Option(min=1, help="Limit on calls in all; fewer windows are then asked for.", rich_help_panel=COST),
    ] = None,
    concurrency: Concurrency = 8,
    track: Annotated[bool, typer.Option("--track", help="Log the estimate to MLflow.", rich_help_panel=MLFLOW)] = False,
    tracking_uri: TrackingUri = None,
    every_level: Annotated[
        bool,
        typer.Option("--every-level", help="Also give the 50, 80, 90 and 95 % intervals.", rich_help_panel=SAVED),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate the emergence of a model whose weights are closed, from what it says next.

    Shows the bill, asks the model what the bank's proxy needs, and gives its output's emergence as measured and that of
    its blocks as estimated. Of a table of its answers (`emergence collect`) to the prompts that the bank's references
    answered, only the blocks are estimated. With FEATURES it applies a proxy that `emergence fit` saved instead.

    Example: `emergence estimate gpt-4o-mini --yes`
    """
    if features is not None:
        why = "for a model at an API, not for a saved proxy with FEATURES; leave it out."
        refuse(why, panels=(BANK, SERVER, COST))
        refuse("for a model at an API; emergence track logs a table of estimates.", names=("track",))
        saved_proxy(subject, features, out, tracking_uri, every_level=every_level, as_json=as_json)
        return
    from proxy.cli.estimate_closed import ClosedModel, estimate_closed, track_estimate

    refuse("for a saved proxy; give a table of FEATURES as well, or leave it out.", panels=(SAVED,))
    given = ClosedModel(
        base_url=base_url,
        key_env=key_env,
        tokenizer=tokenizer,
        control=control,
        prices=prices,
        max_cost=max_cost,
        max_calls=max_calls,
        concurrency=concurrency,
        yes=yes,
    )
    found = estimate_closed(subject, given, bank=bank, corpus=corpus, estimator=estimator, out=out, as_json=as_json)
    if track and found is not None:
        track_estimate(found, tracking_uri)


def saved_proxy(
    proxy: str, features: Path, out: Path | None, tracking_uri: str | None, *, every_level: bool, as_json: bool
) -> None:
    """Apply a saved proxy to a table of features."""
    from extraction.tables import check_table_path, read_table
    from proxy.regression.folds import rows_needed
    from proxy.regression.intervals import LEVELS
    from proxy.regression.load import load_proxy

    if out is not None:
        check_table_path(out)
    table = read_table(features)
    folder = Path(proxy)
    run_id = re.fullmatch("[0-9a-f]{32}", proxy) is not None and not folder.exists()
    if run_id or proxy.startswith(("models:/", "runs:/")):
        from tracking import download_proxy

        folder = download_proxy(f"runs:/{proxy}" if run_id else proxy, tracking_uri)
    with during(f"Loading the proxy {proxy}"):
        fitted = load_proxy(folder)
    with during(f"Estimating {len(table)} models"):
        estimates = fitted.predict(table, every_level=every_level)
    if out is not None or as_json:
        emit(estimates, out, as_json=as_json)
    else:
        show(by_level(estimates) if every_level else estimates.drop(columns="remarks"))
    groups = fitted.intervals.groups
    for level in (level for level in LEVELS if every_level and rows_needed(level) > groups):
        screen.print(f"No {level:.0%} interval: it takes {rows_needed(level)} references, left out in turn; this proxy "
                     f"has {groups}.", highlight=False, soft_wrap=True)  # fmt: skip
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
