"""Which figures a sweep has, with what to see in them and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from estimators.contracts.peaks import peaks
from tracking.reports.figures import (
    by_depth,
    by_position,
    by_resolution,
    by_size,
    depth_rows,
    position_rows,
    resolution_rows,
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
        """Return what is drawn as a table to read: a row per model and corpus, a column per step of `x` and its error.

        Errors are standard errors; bands and bars show 1.645 of them to each side.
        """
        rows = self.rows(table)
        if "ie_bits" not in rows:
            return rows
        wide = rows.pivot_table(
            index=["corpus", "model"], columns=self.x, values=["ie_bits", "ie_std_error"], observed=True
        )
        columns = {}
        for step in wide["ie_bits"].columns:
            columns[f"{self.x} {step:g}"] = wide["ie_bits", step]
            if ("ie_std_error", step) in wide:
                columns[f"± at {step:g}"] = wide["ie_std_error", step]
        return pd.DataFrame(columns).reset_index()


SWEEP_FIGURES = (
    SweepFigure(
        "emergence_by_depth",
        "Emergence by depth",
        "E(l) = IE(l, T) of every block, at the default resolution. Bands: 90 %.",
        by_depth,
        depth_rows,
        "layer",
    ),
    SweepFigure(
        "emergence_by_position",
        "Emergence by position",
        "IE(l, t) as the window grows, at each model's highest block. In lists of entities the paper reports a step "
        "up at each new demonstration. Bands: 90 %.",
        by_position,
        position_rows,
        "position",
    ),
    SweepFigure(
        "emergence_by_resolution",
        "Emergence by resolution",
        "The same peak at every noise level. Fine noise counts collisions and gives random networks high values too: "
        "a number is evidence of learning only where the twin with random weights (dashed) lies below it.",
        by_resolution,
        resolution_rows,
        "resolution",
    ),
    SweepFigure(
        "emergence_by_size",
        "Emergence by size",
        "Highest E(l) against parameters, with the least-squares line E = a + b log10 N over all models of a corpus. "
        "Bars: 90 %.",
        by_size,
        peaks,
        "parameters",
    ),
)
