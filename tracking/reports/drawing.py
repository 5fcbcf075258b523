"""How every figure is drawn: style, colours, panels, curves with their bands and the bands of their controls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from estimators.contracts.controls import CONTROLS, FAILED, is_twin
from estimators.contracts.conventions import TWIN
from tracking.reports.labels import (
    FONT,
    LEGEND_SIZE,
    POINTS,
    SIZE,
    TITLE_SIZE,
    label_steps,
    legend_below,
    shortened,
    text_width,
)
from tracking.summary import by_model

# Okabe & Ito's colours, distinguishable with colour blindness; one per family, sizes by line style and shade.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*X"
INK = "#123456"  # stands for the reader's own text colour in SVG
SPREAD = 1.645  # standard errors to each side of a 90 % band
LEGEND = 12  # models that a legend can name
PANEL = 4.8  # inches of a panel's width
CONTROL_COLOURS = {"twin": "#7A7A85", "shuffled": "#B59A1E"}
CONTROL_NAMES = {"twin": "control: random weights", "shuffled": "control: shuffled windows"}

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": TITLE_SIZE,
    "grid.alpha": 0.25,
    "figure.dpi": 120,
    "font.family": FONT,
    "font.size": SIZE,
    "legend.frameon": False,
    "legend.fontsize": LEGEND_SIZE,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "text.parse_math": False,  # names are data: a $ in one is no formula
    "svg.fonttype": "path",
    "svg.hashsalt": "emergence",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of this project."""
    with mpl.rc_context(STYLE):
        yield


def parts(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Part a table into what one panel can hold: a corpus as read by one estimator, with its title."""
    several = len(table["estimator"].unique()) > 1
    return [
        (f"{corpus}, {estimator}" if several else str(corpus), rows)
        for (corpus, estimator), rows in table.groupby(["corpus", "estimator"], sort=True)
    ]


def make_panels(count: int, *, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """Make `count` panels, at most two beside each other, each `height` inches high."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL * columns + 0.8, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def title_of(axes: Axes, title: str, more: str = "", *, taken: float = 0.0) -> None:
    """Set the title of a panel, shortened to the panel's width; `more` follows it in full.

    `taken` is the width in points that names beside the panel take of it.
    """
    room = (PANEL - 0.6) * POINTS - taken
    behind = f"  {more}" if more else ""
    corpus, comma, estimator = title.rpartition(", ")
    if comma and text_width(estimator, TITLE_SIZE) < room / 2:
        title, behind = corpus, comma + estimator + behind
    room = max(room - text_width(behind, TITLE_SIZE), 40)
    axes.set_title(shortened(title, room, TITLE_SIZE) + behind)


def colours_by_model(table: pd.DataFrame) -> dict[str, Any]:
    """One hue per family; within it the larger models are darker."""
    families: dict[str, list[str]] = {}
    for model, rows in by_model(table[~table["model"].map(is_twin).astype(bool)]):
        families.setdefault(str(rows["family"].iloc[0]), []).append(model)
    colours: dict[str, Any] = {}
    for hue, (_, models) in zip(cycle(COLOURS), sorted(families.items()), strict=False):
        base = np.array(mpl.colors.to_rgb(hue))
        for rank, model in enumerate(models):
            fade = 0.6 * (1 - (rank + 1) / len(models))
            colours[model] = tuple(base * (1 - fade) + fade)
    for twin in table["model"][table["model"].map(is_twin).astype(bool)].unique():
        colours[twin] = colours.get(twin.replace(TWIN, "", 1), "#7F7F7F")
    return colours


def cycle(items: Any) -> Iterator[Any]:
    """Repeat without end."""
    while True:
        yield from items


def curves(
    table: pd.DataFrame,
    x: str,
    xlabel: str,
    ylabel: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """Draw ie_bits with 90 % bands against column `x`: a panel per corpus and estimator, one line per model.

    Where controls were run, their 90 % bands over all models of the panel lie behind; a point that is not above its own
    controls is hollow.
    """
    with styled():
        shown = parts(table)
        figure, panels = make_panels(len(shown))
        colours = colours_by_model(table)
        for axes, (title, some) in zip(panels, shown, strict=True):
            _control_bands(axes, some, x)
            for model, rows in by_model(some):
                rows = rows.sort_values(x)
                xs, ys = numbers(rows, x), numbers(rows, "ie_bits")
                failed = rows["flags"].fillna("").astype(str).str.contains(FAILED).to_numpy(dtype=bool)
                look: dict[str, Any] = {"marker": "o", "color": colours[model]}
                line = "--" if is_twin(model) else "-"
                axes.plot(xs, ys, line, label=model, markevery=np.flatnonzero(~failed).tolist(), **look)
                if failed.any():
                    axes.plot(xs[failed], ys[failed], ls="none", mfc="none", **look)
                error = SPREAD * numbers(rows, "ie_std_error")
                axes.fill_between(xs, ys - error, ys + error, color=colours[model], alpha=0.18, lw=0)
            if logarithmic:
                label_steps(axes, sorted(set(numbers(some, x))), (PANEL - 1) * POINTS)
            axes.axhline(0, color="#888888", lw=0.8)
            models = some["model"].nunique()
            title_of(axes, title, f"({models} models, larger ones darker)" if models > LEGEND else "")
            axes.set(xlabel=xlabel, ylabel=ylabel)
        legend_below(figure, *_entries(panels, colours))
    return figure


def _control_bands(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    """Draw from the lowest to the highest 90 % band of each control, over all models."""
    for name in CONTROLS:
        column = f"{name}_ie_bits"
        if column not in rows or not rows[column].notna().any():
            continue
        known = rows[rows[column].notna()]
        grid = np.unique(numbers(known, x))
        low: list[np.ndarray] = []
        high: list[np.ndarray] = []
        for _, one in known.groupby("model"):
            one = one.sort_values(x)
            xs, value = numbers(one, x), numbers(one, column)
            error = SPREAD * np.nan_to_num(numbers(one, f"{name}_ie_std_error"))
            for side, values in ((low, value - error), (high, value + error)):
                side.append(np.interp(grid, xs, values, left=np.nan, right=np.nan))
        bottom, top = np.nanmin(low, axis=0), np.nanmax(high, axis=0)
        axes.fill_between(
            grid, bottom, top, color=CONTROL_COLOURS[name], alpha=0.3, lw=0.8, label=CONTROL_NAMES[name], zorder=0.5
        )


def _entries(panels: list[Axes], colours: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """Collect what a legend shows: the models, unless they are too many to name, then the controls."""
    found = entries(panels)
    models = [name for name in colours if name in found]
    order = (models if len(models) <= LEGEND else []) + [n for n in CONTROL_NAMES.values() if n in found]
    return [found[name] for name in order], order


def entries(panels: list[Axes]) -> dict[str, Any]:
    """Return what panels name, each name with the first of what is drawn for it."""
    found: dict[str, Any] = {}
    for axes in panels:
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, line)
    return found


def numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as floats, NaN where nothing is known."""
    return rows[column].to_numpy(dtype=float, na_value=np.nan)
