"""How every figure is drawn: style, colours, panels, curves with their bands, legends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from estimators.contracts.conventions import TWIN
from tracking.summary import by_model

# Okabe & Ito's colours, distinguishable with colour blindness; one per family, sizes by line style and shade.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*X"
INK = "#123456"  # stands for the reader's own text colour in SVG
SPREAD = 1.645  # standard errors to each side of a 90 % band
LEGEND = 12  # models that a legend can name

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 120,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
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


def make_panels(count: int, *, wide: bool = True) -> tuple[Figure, list[Axes]]:
    """Make `count` panels, at most two beside each other."""
    columns = min(count, 2) if wide else 1
    rows = -(-count // columns)
    figure = Figure(figsize=(4.8 * columns + 0.8, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def colours_by_model(table: pd.DataFrame) -> dict[str, Any]:
    """One hue per family; within it the larger models are darker."""
    families: dict[str, list[str]] = {}
    for model, rows in by_model(table[~table["model"].map(is_twin)]):
        families.setdefault(str(rows["family"].iloc[0]), []).append(model)
    colours: dict[str, Any] = {}
    for hue, (_, models) in zip(cycle(COLOURS), sorted(families.items()), strict=False):
        base = np.array(mpl.colors.to_rgb(hue))
        for rank, model in enumerate(models):
            fade = 0.6 * (1 - (rank + 1) / len(models))
            colours[model] = tuple(base * (1 - fade) + fade)
    for twin in table["model"][table["model"].map(is_twin)].unique():
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
    """Draw ie_bits with 90 % bands against column `x`: one panel per corpus, one line per model."""
    with styled():
        corpora = sorted(table["corpus"].unique())
        figure, panels = make_panels(len(corpora))
        colours = colours_by_model(table)
        for axes, corpus in zip(panels, corpora, strict=True):
            for model, rows in by_model(table[table["corpus"] == corpus]):
                rows = rows.sort_values(x)
                xs, ys = numbers(rows, x), numbers(rows, "ie_bits")
                line = "--" if is_twin(model) else "-"
                axes.plot(xs, ys, line, marker="o", color=colours[model], label=model)
                error = SPREAD * numbers(rows, "ie_std_error")
                axes.fill_between(xs, ys - error, ys + error, color=colours[model], alpha=0.18, lw=0)
            if logarithmic:
                axes.set_xscale("log")
                ticks = sorted(set(numbers(table, x)))
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            axes.axhline(0, color="#888888", lw=0.8)
            axes.set(title=corpus, xlabel=xlabel, ylabel=ylabel)
        _legend(figure, panels, colours)
    return figure


def count_label(count: float) -> str:
    """Write a large number as people say it; matplotlib's own labels of powers of ten are formulas.

    >>> count_label(134_515_008), count_label(30_000), count_label(2e12)
    ('135M', '30k', '2T')
    """
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.3g}"


def numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as floats, NaN where nothing is known."""
    return rows[column].to_numpy(dtype=float, na_value=np.nan)


def _legend(figure: Figure, panels: list[Axes], colours: dict[str, Any]) -> None:
    if len(colours) > LEGEND:
        panels[0].set_title(f"{panels[0].get_title()}  ({len(colours)} models, larger ones darker)")
        return
    entries = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = [name for name in colours if name in entries]
    legend_below(figure, panels, [entries[name] for name in order], order)


def legend_below(figure: Figure, panels: list[Axes], lines: list[Any], names: list[str]) -> None:
    """Put one legend for all panels below them."""
    figure.legend(lines, names, loc="outside lower center", ncols=3 if len(panels) == 1 else 6)


def is_twin(model: str) -> bool:
    """Whether a model is the random-weights twin of another; what tells jobs of one name apart may follow the mark."""
    return model.endswith(TWIN) or f"{TWIN} " in model
