"""`emergence fit`: from a reference table to a proxy with its errors on left-out models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import during, progress, screen, show
from proxy.cli.groups import MLFLOW, TrackingUri


def fit(
    references: Annotated[Path, typer.Argument(help="Reference table: model, family, features, target.")],
    target: Annotated[str, typer.Option(help="Column to estimate.")],
    out: Annotated[Path, typer.Option(help="New folder for the proxy and its card.")],
    mode: Annotated[
        str, typer.Option(help="`outputs`: from answers (closed models); `scale`: from smaller siblings and size.")
    ] = "outputs",
    groups: Annotated[str, typer.Option(help="Column whose rows are left out together.")] = "family",
    level: Annotated[float, typer.Option(help="Confidence of the intervals, between 0 and 1.")] = 0.9,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Bounds of the target: `0,100` or `0,1` (logit), `0,` (logarithm), `,` (none). By default shares "
            "and percentages are recognised by name and values."
        ),
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="Log to MLflow and register under this name.", rich_help_panel=MLFLOW)
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Register even a proxy that did no better than its best baseline.", rich_help_panel=MLFLOW
        ),
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Learn TARGET from reference models, leaving families out, and save the proxy with its card.

    At least 9 reference models are needed: with fewer no 90 % interval exists. Models of the table without a TARGET are
    no references; their estimates are printed.

    Example: `emergence fit references.parquet --target emergence_bits --out proxy`
    """
    from estimators.base import InputError
    from estimators.contracts.files import check_new_folder
    from extraction.tables import read_table
    from proxy.regression.proxy import fit_proxy

    check_new_folder(out, "proxy")
    refused = False  # a model without the target
    if register is not None:
        from tracking.mlflow.proxy_run import check_registration

        check_registration(register, tracking_uri)  # before any work
    table = read_table(references)
    with progress("Fitting with references left out in turn") as report:
        proxy = fit_proxy(
            table,
            target=target,
            groups=groups,
            mode=mode,
            level=level,
            bounds=parsed_bounds(bounds),
            progress=report,
        )
    with during(f"Drawing the card of {out}"):
        proxy.save(out)
    screen.print(proxy.verdict.sentence, style=None if proxy.verdict.useful else "red", highlight=False, soft_wrap=True)
    for remark in proxy.remarks:
        screen.print(f"Note: {remark}.", highlight=False, soft_wrap=True)
    screen.print(f"Chosen: {proxy.chosen}. Wrote {out} (card: {out / 'card.md'})", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(proxy.scores.to_json(orient="records", indent=1))
    else:
        show(proxy.scores, title=f"{target} of left-out references, by {proxy.unit}")
        unknown = table[table[target].isna()]
        try:
            estimates = proxy.predict(unknown) if len(unknown) else None
        except InputError as error:  # the proxy is learned and saved
            screen.print(f"No estimates of models without {target}: {error}", style="red", markup=False, soft_wrap=True)
            estimates, refused = None, True
        if estimates is not None:
            show(estimates.drop(columns="remarks"), title=f"{target} of models without it, estimated")
            for row in estimates.itertuples():
                screen.print(f"{row.model}: {row.remarks}.", markup=False, highlight=False, soft_wrap=True)
    if register is not None:
        from tracking import track_proxy

        tracked = track_proxy(
            out,
            model_code=Path(__file__).parents[1] / "regression" / "served.py",
            tracking_uri=tracking_uri,
            register=register,
            anyway=anyway,
            input_example=proxy.references[["model", *proxy.features]].head(2),
        )
        screen.print(f"Registered {register} version {tracked.version}: {tracked.model_uri}", highlight=False)
    if refused:
        raise typer.Exit(1)


def parsed_bounds(text: str | None) -> tuple[float | None, float | None] | None:
    """Read ``LOWER,UPPER`` where either may be empty; None for nothing.

    Raises:
        InputError: if it is anything else.

    >>> parsed_bounds("0,"), parsed_bounds(None)
    ((0.0, None), None)
    """
    from estimators.base import InputError
    from estimators.contracts.numbers import number

    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(f"--bounds takes two numbers with a comma, such as 0,1 or 0, (no upper); got {text!r}.")
    lower, upper = (number(part, "Each side of --bounds") if part.strip() else None for part in parts)
    if lower is not None and upper is not None and not lower < upper:
        raise InputError(f"--bounds takes the lower bound first, then a larger one; got {text!r}.")
    return lower, upper
