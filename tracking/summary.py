"""Rows and columns of a sweep that its figures and descriptions show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from estimators.contracts.cells import cell
from estimators.contracts.controls import VERDICTS, controls_as_columns, summary
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


# Columns of a summary in the order in which they are read.
SHOWN = (
    "model",
    "corpus",
    "E",
    "±",
    "verdict",
    "twin",
    "shuffled",
    "block",
    "estimator",
    "resolution",
    "prefix",
    "windows",
    "family",
    "parameters",
    "path",
)


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise a table for people: a row per model, corpus and estimator, the highest E first within a corpus.

    Args:
        table: emergence table, or its `figure_rows`.

    Returns:
        The columns of `SHOWN`, empty for an empty table.
    """
    if table.empty or measured(table).empty:
        return pd.DataFrame(columns=list(SHOWN))
    found = peaks(table).merge(summary(table).drop(columns=["block", "E", "±"]), on=MEASURED)
    found = found.rename(columns={"emergence_bits": "E", "emergence_bits_std_error": "±", "peak_layer": "block"})
    found = found.sort_values(["corpus", "estimator", "E"], ascending=[True, True, False], ignore_index=True)
    return found[[name for name in SHOWN if name in found]]


def alike(above: Mapping[str, object]) -> str:
    """Say what is the same in all rows of a summary, for the line above it.

    >>> alike({"corpus": "animal", "windows": 2000, "prefix": ""})
    'All rows: corpus animal, windows 2,000.'
    """
    said = ", ".join(f"{name} {cell(value, thousands=True)}" for name, value in above.items() if str(value))
    return f"All rows: {said}." if said else ""


def count_verdicts(summary: pd.DataFrame) -> str:
    """Say how often each verdict was given.

    >>> count_verdicts(pd.DataFrame({"verdict": ["learned", "not shown", "learned"]}))
    '2 learned, 1 not shown'
    """
    counts = summary["verdict"].value_counts()
    return ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
