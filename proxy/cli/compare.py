"""`emergence compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import during, emit, screen, show
from proxy.cli.groups import TrackingUri

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "difference": "difference",
    "std_error": "±",
    "p_corrected": "p",
    "emergence_bits": "E",
    "against_bits": "E before",
}
SHARED = ("run", "against", "corpus", "estimator", "resolution", "text", "unit", "errors", "verdict", "against_verdict")
SPARE = ("against_verdict", "text", "resolution", "E before", "errors", "E")  # left out first where a screen is narrow


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Results folders, emergence tables, or ids of MLflow runs; the first is the base."),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the differences here (.parquet, .csv, .json).")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the differences here (.png).")] = None,
    tracking_uri: TrackingUri = None,
    resolution: Annotated[
        float | None, typer.Option(help="Compare at the resolution nearest to this, above 0; default 0.18.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Compare runs with the first one: differences of E(l) at its peak with errors, and what changed in the settings.

    Where both sides read the same windows the error of a difference is paired: that of its values at single windows.
    Else (another seed or text) both sides are independent, each with its own sampling error. p is
    corrected for how many differences are looked at. Runs of different observers (estimator, resolution) are refused.

    Example: `emergence compare results/before results/after --figure change.png`

    A model behind an API beside open ones, by tables of `emergence measure`:
    `emergence compare open.parquet closed.parquet`
    """
    from estimators.contracts.conventions import DEFAULT_RESOLUTION
    from estimators.contracts.files import check_new_file, replacing
    from estimators.contracts.numbers import number
    from extraction.tables import check_table_path, read_table
    from proxy.schemas import EMERGENCE
    from tracking.comparison import compare as side_by_side
    from tracking.reports.rendering import png

    if out is not None:
        check_table_path(out)
    if figure is not None:
        check_new_file(figure, "figure", (".png",))
    chosen = DEFAULT_RESOLUTION if resolution is None else number(resolution, "--resolution", above=0)
    given = [read_table(run, EMERGENCE) if Path(run).is_file() else run for run in runs]
    named = [Path(run).stem if Path(run).is_file() else None for run in runs]
    with during(f"Comparing {len(runs)} runs"):
        found = side_by_side(given, names=named, tracking_uri=tracking_uri, resolution=chosen)
    if out is not None or as_json:
        emit(found.table, out, as_json=as_json)
    else:
        _show(found.table)
    for sentence in (*found.notes, found.words):
        screen.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if figure is not None:
        with replacing(figure) as temporary:
            temporary.write_bytes(png(found.figure))
        screen.print(f"Wrote {figure}", highlight=False, soft_wrap=True)
    if len(found.settings):
        show(found.settings, title="What changed", to=screen)
    else:
        screen.print("The settings are the same.", highlight=False)


def _show(table: pd.DataFrame) -> None:
    """Print the differences; what is the same for all of them stands above."""
    same = [name for name in SHARED if len(table[name].drop_duplicates()) == 1]
    known = [name for name in same if table[name].notna().all()]
    shared = "; ".join(f"{name.replace('_', ' ')} {table[name].iloc[0]}" for name in known)
    screen.print(f"All: {shared}." if shared else "", highlight=False, markup=False, soft_wrap=True)
    names = [name for name in ("model", "corpus", *COLUMNS, *SHARED) if name not in same]
    shown = table[list(dict.fromkeys(names))].rename(columns=COLUMNS)
    show(shown.assign(p=[chance(value) for value in shown["p"]]), spare=SPARE)


def chance(p: float) -> str:
    """Return a probability as a person reads it.

    >>> chance(0.0421), chance(2.5e-6), chance(float("nan"))
    ('0.042', '<.001', '')
    """
    return "" if p != p else "<.001" if p < 0.001 else f"{p:.3f}"
