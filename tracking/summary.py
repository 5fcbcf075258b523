"""Rows and columns of a sweep that its figures and descriptions show."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from estimators.contracts.controls import controls_as_columns
from estimators.contracts.peaks import MEASURED, at_end, measured, peaks


def figure_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that figures and summaries are made of: the last positions, and the blocks where E(l) peaks.

    `peaks`, `at_peak`, `at_end` and what is built on them give the same from these few rows as from all. Controls that
    were measured as models and corpora of their own become columns of the models they belong to.
    """
    if table.empty:
        return table
    table = measured(controls_as_columns(table)).reset_index(drop=True)
    last = at_end(table)
    highest = last.merge(peaks(last)[[*MEASURED, "peak_layer"]], on=MEASURED)[[*MEASURED, "peak_layer"]]
    peak = table.merge(highest.drop_duplicates(), on=MEASURED, how="left")["peak_layer"]
    return table[table.index.isin(last.index) | (table["layer"] == peak).to_numpy(dtype=bool, na_value=False)]


def by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the models from the smallest to the largest, each with its rows."""
    if table.empty:
        return
    sizes = table.assign(parameters=table["parameters"].astype("Float64").fillna(-1.0))
    order = sizes.groupby("model")["parameters"].max().reset_index().sort_values(["parameters", "model"])
    groups = dict(iter(table.groupby("model")))
    for model in order["model"]:
        yield str(model), groups[model]


def short(summary: pd.DataFrame) -> pd.DataFrame:
    """Keep the columns of a summary that fit a description, the largest emergence first within a corpus."""
    columns = ["model", "corpus", "parameters", "emergence_bits", "emergence_bits_std_error", "peak_layer"]
    names = {"emergence_bits": "E [bits]", "emergence_bits_std_error": "± std error", "peak_layer": "block"}
    return summary.sort_values(["corpus", "emergence_bits"], ascending=[True, False])[columns].rename(columns=names)
