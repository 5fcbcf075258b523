"""The figures of a sweep and of a proxy, as matplotlib figures that need no screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from tracking.summary import at_end, at_peak, at_resolution, by_model, measured, peaks

# Okabe & Ito's colours, distinguishable with colour blindness; one per family, sizes by line style and shade.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*X"
INK = "#123456"  # stands for the reader's own text colour in SVG
SPREAD = 1.645  # standard errors to each side of a 90 % band
LEGEND = 12  # models that a legend can name
SHOTS = {"country": 2, "animal": 2, "color": 2}  # tokens of a demonstration in the paper's lists: entity and comma
HUMAN = "human"  # the "model" of texts written by people
TWIN = "~random"  # equals extraction.twin.SUFFIX, which tracking does not import: no torch here

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
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


def _panels(count: int, *, wide: bool = True) -> tuple[Figure, list[Axes]]:
    """Make `count` panels, at most two beside each other."""
    columns = min(count, 2) if wide else 1
    rows = -(-count // columns)
    figure = Figure(figsize=(4.8 * columns + 0.8, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _colours(table: pd.DataFrame) -> dict[str, Any]:
    """One hue per family; within it the larger models are darker."""
    families: dict[str, list[str]] = {}
    for model, rows in by_model(table[~table["model"].map(is_twin)]):
        families.setdefault(str(rows["family"].iloc[0]), []).append(model)
    colours: dict[str, Any] = {}
    for hue, (_, models) in zip(_cycle(COLOURS), sorted(families.items()), strict=False):
        base = np.array(mpl.colors.to_rgb(hue))
        for rank, model in enumerate(models):
            fade = 0.6 * (1 - (rank + 1) / len(models))
            colours[model] = tuple(base * (1 - fade) + fade)
    for twin in table["model"][table["model"].map(is_twin)].unique():
        colours[twin] = colours.get(twin.replace(TWIN, "", 1), "#7F7F7F")
    return colours


def _cycle(items: Any) -> Iterator[Any]:
    while True:
        yield from items


def _lines(
    table: pd.DataFrame,
    x: str,
    xlabel: str,
    ylabel: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """Draw ie_bits with 90 % bands against column `x`: one panel per corpus, one line per model."""
    with _style():
        corpora = sorted(table["corpus"].unique())
        figure, panels = _panels(len(corpora))
        colours = _colours(table)
        for axes, corpus in zip(panels, corpora, strict=True):
            for model, rows in by_model(table[table["corpus"] == corpus]):
                rows = rows.sort_values(x)
                xs, ys = _numbers(rows, x), _numbers(rows, "ie_bits")
                line = "--" if is_twin(model) else "-"
                axes.plot(xs, ys, line, marker="o", color=colours[model], label=model)
                error = SPREAD * _numbers(rows, "ie_std_error")
                axes.fill_between(xs, ys - error, ys + error, color=colours[model], alpha=0.18, lw=0)
            if logarithmic:
                axes.set_xscale("log")
                ticks = sorted(set(_numbers(table, x)))
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            axes.axhline(0, color="#888888", lw=0.8)
            axes.set(title=corpus, xlabel=xlabel, ylabel=ylabel)
        _legend(figure, panels, colours)
    return figure


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows[column].to_numpy(dtype=float, na_value=np.nan)


def _legend(figure: Figure, panels: list[Axes], colours: dict[str, Any]) -> None:
    if len(colours) > LEGEND:
        panels[0].set_title(f"{panels[0].get_title()}  ({len(colours)} models, larger ones darker)")
        return
    entries = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = [name for name in colours if name in entries]
    _below(figure, panels, [entries[name] for name in order], order)


def _below(figure: Figure, panels: list[Axes], lines: list[Any], names: list[str]) -> None:
    figure.legend(lines, names, loc="outside lower center", ncols=3 if len(panels) == 1 else 6)


def is_twin(model: str) -> bool:
    """Whether a model is the random-weights twin of another; what tells jobs of one name apart may follow the mark."""
    return model.endswith(TWIN) or f"{TWIN} " in model


def by_depth(table: pd.DataFrame) -> Figure:
    """E(l) against relative depth (l + 1) / L: all models of a sweep, one panel per corpus.

    Args:
        table: emergence table.
    """
    rows = depth_rows(table)
    blocks = rows.groupby("model")["layer"].transform("max").astype(float) + 1
    rows = rows.assign(depth=(rows["layer"].astype(float) + 1) / blocks)
    return _lines(rows, "depth", "depth (block / blocks)", "E(l) [bits]")


def depth_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_depth`."""
    return at_end(at_resolution(measured(table)))


def by_position(table: pd.DataFrame) -> Figure:
    """IE against position in the window, at the block where E(l) peaks."""
    figure = _lines(position_rows(table), "position", "position t [tokens]", "IE(t) [bits]")
    for axes in figure.axes:
        tokens = SHOTS.get(axes.get_title().split(" ")[0])
        if tokens is not None:
            axes.xaxis.set_major_locator(MultipleLocator(tokens))
            axes.set_xlabel(f"position t [tokens], a shot every {tokens}")
    return figure


def position_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_position`."""
    return at_resolution(at_peak(table))


def by_resolution(table: pd.DataFrame) -> Figure:
    """E at its peak block against the noise level; random-weights twins are dashed."""
    return _lines(
        resolution_rows(table), "resolution", "resolution rho (noise / RMS norm)", "E [bits]", logarithmic=True
    )


def resolution_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_resolution`: none for estimators without a resolution."""
    rows = at_end(at_peak(table))
    return rows[rows["resolution"].notna()]


def size_law(rows: pd.DataFrame) -> tuple[float, float, float] | None:
    """Fit E = a + b log10(parameters) by least squares.

    Args:
        rows: of `peaks`, one corpus.

    Returns:
        (a, b, R2), or None with fewer than three sizes.
    """
    x, y = np.log10(_numbers(rows, "parameters")), _numbers(rows, "emergence_bits")
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(set(x)) < 3:
        return None
    slope, start = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - float(((y - start - slope * x) ** 2).sum()) / spread if spread else 1.0
    return float(start), float(slope), r2


def by_size(table: pd.DataFrame) -> Figure:
    """Peak of E(l) against parameters, with 90 % error bars and the fitted law per corpus."""
    summary = peaks(table)
    summary = summary[summary["parameters"].notna() & ~summary["model"].map(is_twin)]
    families = sorted(summary["family"].astype(str).unique())
    with _style():
        corpora = sorted(summary["corpus"].unique())
        figure, panels = _panels(len(corpora))
        for axes, corpus in zip(panels, corpora, strict=True):
            rows = summary[summary["corpus"] == corpus]
            for family, colour, marker in zip(families, _cycle(COLOURS), _cycle(MARKERS), strict=False):
                some = rows[rows["family"].astype(str) == family]
                error = SPREAD * np.nan_to_num(_numbers(some, "emergence_bits_std_error"))
                axes.errorbar(
                    _numbers(some, "parameters"),
                    _numbers(some, "emergence_bits"),
                    error,
                    fmt=marker,
                    color=colour,
                    label=family,
                    capsize=2,
                )
            law = size_law(rows)
            if law:
                xs = np.geomspace(rows["parameters"].min(), rows["parameters"].max(), 50)
                label = f"E = {law[0]:.2f} {law[1]:+.2f} log10 N\nR² = {law[2]:.2f}"
                axes.plot(xs, law[0] + law[1] * np.log10(xs), color="#888888", ls=":")
                axes.annotate(label, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8)
            axes.set(title=corpus, xlabel="parameters N", ylabel="peak of E(l) [bits]", xscale="log")
        if len(families) <= LEGEND:  # more would leave no room to draw in; the table names them
            _below(figure, panels, *panels[0].get_legend_handles_labels())
    return figure


def parity(frame: pd.DataFrame) -> Figure:
    """Estimate against truth with intervals; the diagonal is perfection.

    Args:
        frame: columns truth, estimate, lower, upper; optional family, model.
    """
    frame = frame[frame["truth"].notna() & frame["estimate"].notna()]
    families = frame["family"].astype(str) if "family" in frame else pd.Series("models", index=frame.index)
    with _style():
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axes = figure.subplots()
        names = sorted(families.unique())
        for family, colour, marker in zip(names, _cycle(COLOURS), _cycle(MARKERS), strict=False):
            rows = frame[families == family]
            truth, estimate = _numbers(rows, "truth"), _numbers(rows, "estimate")
            lower, upper = _numbers(rows, "lower"), _numbers(rows, "upper")
            axes.vlines(truth, lower, upper, color=colour, alpha=0.5)
            axes.plot(truth, estimate, marker, color=colour, label=family)
        low, high = _range(frame, ["truth", "estimate", "lower", "upper"])
        axes.plot([low, high], [low, high], color="#888888", ls=":")
        axes.set(xlabel="measured", ylabel="estimated (bars: interval)", xlim=(low, high), ylim=(low, high))
        if len(names) > 1:
            axes.legend(loc="upper left")
    return figure


def _range(frame: pd.DataFrame, columns: list[str]) -> tuple[float, float]:
    values = np.concatenate([_numbers(frame, column) for column in columns])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def differences(frame: pd.DataFrame) -> Figure:
    """Differences between runs with 90 % bars, one panel per corpus, one row per model and run.

    Args:
        frame: columns run, model, corpus, difference, std_error.
    """
    with _style():
        corpora = sorted(frame["corpus"].unique())
        rows = max(len(frame[frame["corpus"] == corpus]) for corpus in corpora)
        figure = Figure(figsize=(5.6 * len(corpora), 1.2 + 0.28 * rows), layout="constrained")
        runs = sorted(frame["run"].unique())
        for axes, corpus in zip(figure.subplots(1, len(corpora), squeeze=False).ravel(), corpora, strict=True):
            some = frame[frame["corpus"] == corpus].iloc[::-1]
            labels = [f"{row.model} ({row.run})" if len(runs) > 1 else row.model for row in some.itertuples()]
            error = SPREAD * np.nan_to_num(_numbers(some, "std_error"))
            axes.axvline(0, color="#888888", lw=0.8)
            axes.errorbar(
                _numbers(some, "difference"), range(len(some)), xerr=error, fmt="o", color=COLOURS[0], capsize=2
            )
            axes.set_yticks(range(len(some)), labels)
            axes.set(title=corpus, xlabel=f"difference to {frame['against'].iloc[0]} [bits]")
    return figure


def texts(frame: pd.DataFrame, column: str) -> Figure:
    """One feature of the texts of every model, ordered, with those written by people picked out.

    Args:
        frame: columns model and `column`; the model `human` stands for people.
        column: the feature, for instance the emergence of the texts as a reader model sees it.
    """
    rows = frame[frame[column].notna()].sort_values(column)
    values, human = _numbers(rows, column), rows["model"].astype(str).str.lower().eq(HUMAN).to_numpy()
    with _style():
        figure = Figure(figsize=(6.4, 1.4 + 0.2 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(rows))
        axes.plot(values[~human], places[~human], "o", color=COLOURS[0], label="models")
        if human.any():
            axes.plot(values[human], places[human], "D", color=COLOURS[1], label="people")
            axes.axvline(float(values[human].mean()), color=COLOURS[1], ls=":")
            axes.legend(loc="lower right")
        axes.set_yticks(places, rows["model"].astype(str).tolist())
        axes.set(xlabel=column)
    return figure
