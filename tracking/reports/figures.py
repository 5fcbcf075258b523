"""The figures of a sweep and of a proxy, as matplotlib figures that need no screen."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullFormatter

from estimators.contracts.peaks import at_end, at_peak, at_resolution, measured, peaks
from tracking.reports.drawing import (
    COLOURS,
    LEGEND,
    MARKERS,
    SPREAD,
    count_label,
    curves,
    cycle,
    is_twin,
    legend_below,
    make_panels,
    numbers,
    styled,
)

SHOTS = {"country": 2, "animal": 2, "color": 2}  # tokens of a demonstration in the paper's lists: entity and comma
HUMAN = "human"  # the "model" of texts written by people


def by_depth(table: pd.DataFrame) -> Figure:
    """E(l) against relative depth (l + 1) / L: all models of a sweep, one panel per corpus.

    Args:
        table: emergence table.
    """
    rows = depth_rows(table)
    blocks = rows.groupby("model")["layer"].transform("max").astype(float) + 1
    rows = rows.assign(depth=(rows["layer"].astype(float) + 1) / blocks)
    return curves(rows, "depth", "depth (block / blocks)", "E(l) [bits]")


def depth_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_depth`."""
    return at_end(at_resolution(measured(table)))


def by_position(table: pd.DataFrame) -> Figure:
    """IE against position in the window, at the block where E(l) peaks."""
    figure = curves(position_rows(table), "position", "position t [tokens]", "IE(t) [bits]")
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
    return curves(
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
    x, y = np.log10(numbers(rows, "parameters")), numbers(rows, "emergence_bits")
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
    with styled():
        corpora = sorted(summary["corpus"].unique())
        figure, panels = make_panels(len(corpora))
        for axes, corpus in zip(panels, corpora, strict=True):
            rows = summary[summary["corpus"] == corpus]
            for family, colour, marker in zip(families, cycle(COLOURS), cycle(MARKERS), strict=False):
                some = rows[rows["family"].astype(str) == family]
                error = SPREAD * np.nan_to_num(numbers(some, "emergence_bits_std_error"))
                axes.errorbar(
                    numbers(some, "parameters"),
                    numbers(some, "emergence_bits"),
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
            axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: count_label(count)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if len(families) <= LEGEND:  # more would leave no room to draw in; the table names them
            legend_below(figure, panels, *panels[0].get_legend_handles_labels())
    return figure


def parity(frame: pd.DataFrame) -> Figure:
    """Estimate against truth with intervals; the diagonal is perfection.

    Args:
        frame: columns truth, estimate, lower, upper; optional family, model.
    """
    frame = frame[frame["truth"].notna() & frame["estimate"].notna()]
    families = frame["family"].astype(str) if "family" in frame else pd.Series("models", index=frame.index)
    with styled():
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axes = figure.subplots()
        names = sorted(families.unique())
        for family, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS), strict=False):
            rows = frame[families == family]
            truth, estimate = numbers(rows, "truth"), numbers(rows, "estimate")
            lower, upper = numbers(rows, "lower"), numbers(rows, "upper")
            axes.vlines(truth, lower, upper, color=colour, alpha=0.5)
            axes.plot(truth, estimate, marker, color=colour, label=family)
        low, high = _range(frame, ["truth", "estimate", "lower", "upper"])
        axes.plot([low, high], [low, high], color="#888888", ls=":")
        axes.set(xlabel="measured", ylabel="estimated (bars: interval)", xlim=(low, high), ylim=(low, high))
        if 1 < len(names) <= LEGEND:
            axes.legend(loc="upper left")
    return figure


def _range(frame: pd.DataFrame, columns: list[str]) -> tuple[float, float]:
    values = np.concatenate([numbers(frame, column) for column in columns])
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
    with styled():
        corpora = sorted(frame["corpus"].unique())
        rows = max(len(frame[frame["corpus"] == corpus]) for corpus in corpora)
        figure = Figure(figsize=(5.6 * len(corpora), 1.2 + 0.28 * rows), layout="constrained")
        runs = sorted(frame["run"].unique())
        for axes, corpus in zip(figure.subplots(1, len(corpora), squeeze=False).ravel(), corpora, strict=True):
            some = frame[frame["corpus"] == corpus].iloc[::-1]
            labels = [f"{row.model} ({row.run})" if len(runs) > 1 else row.model for row in some.itertuples()]
            error = SPREAD * np.nan_to_num(numbers(some, "std_error"))
            axes.axvline(0, color="#888888", lw=0.8)
            axes.errorbar(
                numbers(some, "difference"), range(len(some)), xerr=error, fmt="o", color=COLOURS[0], capsize=2
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
    values, human = numbers(rows, column), rows["model"].astype(str).str.lower().eq(HUMAN).to_numpy()
    with styled():
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
