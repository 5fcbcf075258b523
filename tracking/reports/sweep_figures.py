"""Which figures a sweep has, with what to see in them and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from estimators.contracts.controls import CONTROLS
from tracking.reports.figures import (
    by_depth,
    by_position,
    by_resolution,
    by_size,
    depth_rows,
    forest,
    output_rows,
    position_rows,
    resolution_rows,
    size_rows,
)


@dataclass(frozen=True)
class SweepFigure:
    """A figure of a sweep.

    Attributes:
        name: of its file.
        title: its heading.
        caption: what to see in it.
        draw: from an emergence table to the figure.
        rows: from an emergence table to the rows that are drawn.
        x: column of `rows` along the horizontal axis.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[pd.DataFrame], Figure]
    rows: Callable[[pd.DataFrame], pd.DataFrame]
    x: str

    def data(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return what is drawn as a table to read.

        A row per model, corpus and, where there are several, estimator; a column per step of `x` and its error. Errors
        are standard errors; bands and bars show 1.645 of them to each side.
        """
        rows = self.rows(table)
        if self.x in ("parameters", "model"):
            return rows[[name for name in COLUMNS if name in rows and rows[name].notna().any()]]
        named = ["corpus", "estimator", "model"] if len(rows["estimator"].unique()) > 1 else ["corpus", "model"]
        values = {"": "ie_bits", "± at ": "ie_std_error"}
        values |= {f"{name} at ": f"{name}_ie_bits" for name in CONTROLS if f"{name}_ie_bits" in rows}
        wide = rows.pivot_table(index=named, columns=self.x, values=list(values.values()), observed=True)
        columns = {}
        for step in wide["ie_bits"].columns:
            for start, value in values.items():
                if (value, step) in wide:
                    columns[f"{start or self.x + ' '}{step:g}"] = wide[value, step]
        return pd.DataFrame(columns).reset_index()


# What is shown of figures with one point per model.
COLUMNS = (
    "corpus",
    "estimator",
    "model",
    "asked",
    "parameters",
    "emergence_bits",
    "emergence_bits_std_error",
    "ie_bits",
    "ie_std_error",
    "twin_ie_bits",
    "twin_ie_std_error",
    "shuffled_ie_bits",
    "shuffled_ie_std_error",
    "verdict",
    "peak_layer",
    "windows",
)

HOLLOW = "Hollow points are not above their own controls by four joint errors."

SWEEP_FIGURES = (
    SweepFigure(
        "emergence_by_depth",
        "Emergence by depth",
        "E(l) = IE(l, T) of every block, at the default resolution. Bands: 90 %; those of the controls reach from the "
        f"lowest to the highest over all models of the panel. {HOLLOW}",
        by_depth,
        depth_rows,
        "layer",
    ),
    SweepFigure(
        "emergence_of_the_output",
        "Emergence of the output",
        "Emergence of the next-token distribution alone, of models behind an API and of open ones read in the same "
        "way, without a lens."
        f" Bars: 90 %; shaded: 90 % of the controls. {HOLLOW}",
        forest,
        output_rows,
        "model",
    ),
    SweepFigure(
        "emergence_by_position",
        "Emergence by position",
        "IE(l, t) as the window grows, at each model's highest block. In lists of entities the paper reports a step "
        f"up at each new demonstration. Bands: 90 %. {HOLLOW}",
        by_position,
        position_rows,
        "position",
    ),
    SweepFigure(
        "emergence_by_resolution",
        "Emergence by resolution",
        "The same peak at every noise level. Fine noise counts collisions and gives random networks high values too: "
        "a number is evidence of learning only where the controls are below it.",
        by_resolution,
        resolution_rows,
        "resolution",
    ),
    SweepFigure(
        "emergence_by_size",
        "Emergence by size",
        "Highest E(l) against parameters, with the least-squares line E = a + b log10 N over the models of a corpus "
        f"that are not below their controls. Bars: 90 %. {HOLLOW}",
        by_size,
        size_rows,
        "parameters",
    ),
)
