"""Emergence by depth as one figure, from a table: for a script, a notebook or `emergence measure --plot`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from estimators.base import InputError
from estimators.contracts.controls import controls_as_columns
from estimators.contracts.files import check_new_file, replacing
from tracking.reports.figures import by_depth, depth_rows, forest, output_rows
from tracking.reports.page import report
from tracking.reports.rendering import png, svg_file

ENDINGS = (".png", ".svg", ".html")


def plot_depth(table: pd.DataFrame, out: str | PathLike[str] | None = None) -> Figure:
    """Draw E(l) by depth, a panel per corpus and estimator, with the controls as bands.

    A table that holds the output alone, as of a model behind an API, is drawn as a row per model with intervals.

    Args:
        table: an emergence table, as `measure` returns it and `emergence measure --out` writes it.
        out: file to write: .png, .svg, or .html for the whole report of the table.

    Returns:
        The figure, which a notebook shows.

    Raises:
        InputError: if the table has no finite emergence, or the file cannot be written.

    >>> from extraction import load_model, windows
    >>> from proxy import measure
    >>> model = load_model("gpt2-30k")
    >>> table = measure(model, windows("animal", model.tokenizer, count=200, prefix=model.prefix))
    >>> figure = plot_depth(table, scratch / "depth.svg")
    >>> [axes.get_title() for axes in figure.axes], (scratch / "depth.svg").is_file()
    (['animal'], True)
    """
    if out is not None:
        check_plot_path(out)
    rows = controls_as_columns(table) if len(table) else table
    if len(rows) and len(depth_rows(rows)):
        figure = by_depth(rows)
    elif len(rows) and len(output_rows(rows)):
        figure = forest(rows)
    else:
        raise InputError("The table holds no finite emergence, so there is nothing to draw.")
    if out is None:
        return figure
    path = Path(out)
    if path.suffix == ".html":
        report(table, path, display_name=path.stem)
        return figure
    data = png(figure) if path.suffix == ".png" else svg_file(figure)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another file.") from error
    return figure


def check_plot_path(out: str | PathLike[str]) -> None:
    """Make sure, before any work is done for it, that a figure can be written to `out`.

    Raises:
        InputError: if its ending is none of .png, .svg and .html, it is a folder, or its folder is missing.
    """
    check_new_file(Path(out), "figure", ENDINGS)
