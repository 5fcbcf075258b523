"""The figures of a sweep, as matplotlib figures that need no screen."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from estimators.contracts.comparable import unlike
from estimators.contracts.controls import CONTROLS, is_twin, summary
from estimators.contracts.peaks import MEASURED, at_end, at_peak, at_resolution, measured, peaks
from tracking.reports.drawing import (
    COLOURS,
    CONTROL_COLOURS,
    CONTROL_NAMES,
    LEGEND,
    MARKERS,
    PANEL,
    SPREAD,
    curves,
    cycle,
    entries,
    make_panels,
    numbers,
    parts,
    styled,
    title_of,
)
from tracking.reports.labels import POINTS, SIZE, label_sizes, legend_below, short_names, shortened, text_width

SHOTS = {"country": 2, "animal": 2, "color": 2}  # tokens of a demonstration in the paper's lists: entity and comma
HUMAN = "human"  # the "model" of texts written by people
LAW_ROOM = 260  # points that a line beside the fitted law takes at most
NAME_ROOM = 170  # points that a model's name beside a panel takes at most
WEIGHTS = "weights"  # how an open model is asked


def by_depth(table: pd.DataFrame) -> Figure:
    """E(l) against relative depth (l + 1) / L: all models, a panel per corpus and estimator, with their controls.

    Args:
        table: emergence table.
    """
    rows = depth_rows(table)
    blocks = rows.groupby("model")["layer"].transform("max").astype(float) + 1
    rows = rows.assign(depth=(rows["layer"].astype(float) + 1) / blocks)
    return curves(rows, "depth", "depth (block / blocks)", "E(l) [bits]")


def depth_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_depth`."""
    return at_end(at_resolution(_blocks(table)))


def _blocks(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of blocks; the output stands below them as layer -1."""
    rows = measured(table)
    return rows[rows["layer"].astype(float) >= 0]


def by_position(table: pd.DataFrame) -> Figure:
    """IE against position in the window, at the block where E(l) peaks."""
    rows = position_rows(table)
    figure = curves(rows, "position", "position t [tokens]", "IE(t) [bits]")
    for axes in figure.axes:
        tokens = SHOTS.get(re.split(r"\W", axes.get_title())[0])
        if tokens is not None:
            longest = int(rows["position"].max())
            axes.xaxis.set_major_locator(MultipleLocator(tokens * max(1, longest // (tokens * 10))))
            axes.set_xlabel(f"position t [tokens], a shot every {tokens}")
    return figure


def position_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_position`: none where only the last position was read."""
    rows = at_resolution(at_peak(_blocks(table)))
    return rows[rows.groupby(MEASURED)["position"].transform("nunique") > 1]


def by_resolution(table: pd.DataFrame) -> Figure:
    """E at its peak block against the noise level."""
    return curves(
        resolution_rows(table), "resolution", "resolution rho (noise / RMS norm)", "E [bits]", logarithmic=True
    )


def resolution_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_resolution`: none for estimators without a resolution, or read at a single one."""
    rows = at_end(at_peak(_blocks(table)))
    rows = rows[rows["resolution"].notna()]
    return rows[rows.groupby(MEASURED)["resolution"].transform("nunique") > 1]


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


def size_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_size`: peaks with their verdict, of trained models whose size is known."""
    found = peaks(table)
    about = summary(table)[[*MEASURED, "verdict", "windows", "prefix"]]
    found = found.merge(about, on=MEASURED, how="left")
    return found[found["parameters"].notna() & ~found["model"].map(is_twin).astype(bool)]


def by_size(table: pd.DataFrame) -> Figure:
    """Peak of E(l) against parameters, with 90 % error bars and the law fitted to what is not below its controls."""
    rows = size_rows(table)
    families = sorted(rows["family"].astype(str).unique())
    looks = dict(zip(families, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))
    with styled():
        shown = parts(rows)
        figure, panels = make_panels(len(shown))
        for axes, (title, some) in zip(panels, shown, strict=True):
            label_sizes(axes, numbers(rows, "parameters"))
            for family, (colour, marker) in looks.items():
                _points(axes, some[some["family"].astype(str) == family], colour, marker, family)
            _law(axes, some[some["verdict"].isin(["learned", "no controls"])])
            title_of(axes, title)
            axes.set(xlabel="parameters N", ylabel="peak of E(l) [bits]")
        if len(families) <= LEGEND:  # more would leave no room to draw in; the table names them
            named = entries(panels)
            legend_below(figure, list(named.values()), list(named))
    return figure


def _points(axes: Axes, rows: pd.DataFrame, colour: str, marker: str, label: str) -> None:
    """Draw the models of a family, hollow where they are not above their controls."""
    shown = rows["verdict"].isin(["learned", "no controls"])
    for some, face in ((rows[shown], colour), (rows[~shown], "none")):
        if len(some):
            error = SPREAD * np.nan_to_num(numbers(some, "emergence_bits_std_error"))
            values = numbers(some, "parameters"), numbers(some, "emergence_bits")
            axes.errorbar(*values, error, fmt=marker, color=colour, mfc=face, label=label, capsize=2)


def _law(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the fitted law, and say of how many models it is and whether they were measured alike."""
    law = size_law(rows)
    if law is None:
        return
    sizes = numbers(rows, "parameters")
    xs = np.geomspace(sizes.min(), sizes.max(), 50)
    axes.plot(xs, law[0] + law[1] * np.log10(xs), color="#888888", ls=":")
    label = f"E = {law[0]:.2f} {law[1]:+.2f} log10 N\nR² = {law[2]:.2f}, {len(rows)} models"
    for phrase in (differences := unlike(rows)):
        label += ("\nnot measured in the same way:\n" if phrase == differences[0] else "\n") + shortened(
            phrase, LAW_ROOM, 8
        )
    axes.annotate(label, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8)


def output_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `forest`: of the output alone, with their verdict, the largest emergence first."""
    rows = measured(table)
    rows = at_end(rows[rows["layer"].astype(float) < 0])
    if rows.empty:
        return pd.DataFrame()
    asked = rows["asked"].astype("string") if "asked" in rows else pd.Series(WEIGHTS, index=rows.index, dtype="string")
    rows = rows.assign(asked=asked.fillna(WEIGHTS), bits=rows["ie_bits"].astype(float))
    rows = rows.merge(summary(table)[[*MEASURED, "verdict"]], on=MEASURED, how="left")
    return rows.sort_values(["corpus", "estimator", "bits"], ascending=[True, True, False], ignore_index=True)


def forest(table: pd.DataFrame) -> Figure:
    """Emergence of the output, a row per model with 90 % bars and controls: models behind an API among open ones."""
    rows = output_rows(table)
    with styled():
        shown = parts(rows)
        most = max(len(some) for _, some in shown)
        figure, panels = make_panels(len(shown), height=1.3 + 0.27 * most)
        for axes, (title, some) in zip(panels, shown, strict=True):
            _forest_panel(axes, some.iloc[::-1])
            names = [label.get_text() for label in axes.get_yticklabels()]
            title_of(axes, title, taken=max(text_width(name, SIZE) for name in names))
        named = entries(panels)
        legend_below(figure, list(named.values()), list(named))
    return figure


def _forest_panel(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    closed = (rows["asked"] != WEIGHTS).to_numpy(dtype=bool)
    failed = ~rows["verdict"].isin(["learned", "no controls"]).to_numpy(dtype=bool)
    values, error = numbers(rows, "ie_bits"), SPREAD * np.nan_to_num(numbers(rows, "ie_std_error"))
    axes.axvline(0, color="#888888", lw=0.8)
    for name in CONTROLS:
        if f"{name}_ie_bits" in rows and rows[f"{name}_ie_bits"].notna().any():
            control, spread = (numbers(rows, f"{name}_ie_{what}") for what in ("bits", "std_error"))
            axes.barh(
                places,
                2 * SPREAD * np.nan_to_num(spread),
                left=control - SPREAD * np.nan_to_num(spread),
                height=0.6,
                color=CONTROL_COLOURS[name],
                alpha=0.45,
                label=CONTROL_NAMES[name],
            )
    for kind, colour, marker, label in (
        (~closed, COLOURS[0], "o", "from the weights"),
        (closed, COLOURS[1], "D", "through an API"),
    ):
        for some, face in ((kind & ~failed, colour), (kind & failed, "none")):
            if some.any():
                axes.errorbar(
                    values[some], places[some], xerr=error[some], fmt=marker, color=colour, mfc=face, capsize=2,
                    label=label,
                )  # fmt: skip
    axes.set_yticks(places, short_names(rows["model"].astype(str).tolist(), NAME_ROOM))
    axes.set(xlabel="E of the output [bits per token]", ylim=(-0.6, len(rows) - 0.4))


def differences(frame: pd.DataFrame) -> Figure:
    """Differences between runs with 90 % bars, one panel per corpus and unit, one row per model, estimator and run.

    Args:
        frame: columns run, model, corpus, estimator, difference, std_error, unit.
    """
    with styled():
        several = [name for name in ("estimator", "run") if len(frame[name].unique()) > 1]
        groups = frame.groupby(["corpus", "unit"], sort=True)
        rows = int(groups.size().max())
        figure = Figure(figsize=(5.6 * len(groups), 1.2 + 0.28 * rows), layout="constrained")
        for axes, ((corpus, unit), part) in zip(
            figure.subplots(1, len(groups), squeeze=False).ravel(), groups, strict=True
        ):
            some = part.iloc[::-1]
            labels = [
                f"{row['model']} ({', '.join(str(row[name]) for name in several)})" if several else str(row["model"])
                for row in some.to_dict("records")
            ]
            labels = short_names(labels, NAME_ROOM)
            error = SPREAD * np.nan_to_num(numbers(some, "std_error"))
            axes.axvline(0, color="#888888", lw=0.8)
            axes.errorbar(
                numbers(some, "difference"), range(len(some)), xerr=error, fmt="o", color=COLOURS[0], capsize=2
            )
            axes.set_yticks(range(len(some)), labels)
            against = shortened(str(frame["against"].iloc[0]), (PANEL - 2.5) * POINTS)
            title_of(axes, str(corpus), taken=max(text_width(label, SIZE) for label in labels))
            axes.set(xlabel=f"difference to {against} [{unit}]")
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
        axes.set_yticks(places, short_names(rows["model"].astype(str).tolist(), NAME_ROOM))
        axes.set(xlabel=shortened(column, 300))
    return figure
