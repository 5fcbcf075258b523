"""`emergence calibrate`: every estimator on known truths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import emit, progress, screen

if TYPE_CHECKING:
    from estimators.truths import KnownTruth


def calibrate(
    truths: Annotated[
        Path | None,
        typer.Option(
            help="Folder of .npz files with arrays x, y and mutual_information_bits; default: the built-in problems."
        ),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Estimator to run; repeatable. Default: every applicable one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the built-in problems and the estimators.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table here (.parquet, .csv or .json).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Ask every estimator about problems of known truth and print truth, estimate, error and verdict.

    Exits with 1 if a default estimator (sample-propagation, infonce) is off by more than its stated error, four
    standard errors: also where it calls itself unreliable, and where as a lower bound it may lie below the truth.

    Example:
        emergence calibrate --method sample-propagation --method infonce
    """
    from dataclasses import asdict

    import pandas as pd

    from estimators.calibration import applicable
    from estimators.calibration import calibrate as run
    from estimators.truths import built_in_truths, folder_truths
    from extraction.tables import check_table_path

    if out is not None:
        check_table_path(out)

    def problems() -> Iterator[KnownTruth]:  # one at a time: together they take a gigabyte
        return built_in_truths(seed) if truths is None else folder_truths(truths)

    total = sum(len(applicable(problem, method)) for problem in problems())
    rows = []
    with progress("Calibrating") as report:
        for row in run(problems(), method, seed=seed):
            rows.append(row)
            report(len(rows), total)
    frame = pd.DataFrame([asdict(row) for row in rows], columns=[*_columns()])
    emit(frame, out, as_json=as_json)
    failed = [row for row in rows if row.failed]
    for row in failed:
        screen.print(
            f"Off: {row.method} on {row.problem}: {row.estimate:.3f} bits, truth {row.truth:.3f}, "
            f"standard error {row.std_error or 0:.3f}.",
            style="red",
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(1)


def _columns() -> list[str]:
    from dataclasses import fields

    from estimators.calibration import Calibration

    return [field.name for field in fields(Calibration)]
