"""The figures of a proxy and of estimates: how near they are to what was measured, and to what costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracking.reports.drawing import COLOURS, LEGEND, MARKERS, cycle, numbers, styled
from tracking.reports.figures import NAME_ROOM
from tracking.reports.labels import POINTS, legend_below, short_names, text_width

SMALL = 7  # points of the names beside points
BESIDE = 6  # pixels between a point and its name; a line leads to one that stands farther
LEADER = {"arrowstyle": "-", "color": "#888888", "lw": 0.5, "shrinkA": 0, "shrinkB": 3}


def parity(frame: pd.DataFrame) -> Figure:
    """Estimate against truth with intervals, each model named where its name has room; the diagonal is perfection.

    The farthest from the diagonal are named first.

    Args:
        frame: columns truth, estimate, lower, upper; optional family, model.
    """
    frame = frame[frame["truth"].notna() & frame["estimate"].notna()]
    families = frame["family"].astype(str) if "family" in frame else pd.Series("models", index=frame.index)
    with styled():
        figure = Figure(figsize=(6.0, 5.4), layout="constrained")
        axes = figure.subplots()
        names = sorted(families.unique())
        for family, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS), strict=False):
            rows = frame[families == family]
            truth, estimate = numbers(rows, "truth"), numbers(rows, "estimate")
            axes.vlines(truth, numbers(rows, "lower"), numbers(rows, "upper"), color=colour, alpha=0.5)
            axes.plot(truth, estimate, marker, color=colour, label=family)
        low, high = _range(frame, ["truth", "estimate", "lower", "upper"])
        axes.plot([low, high], [low, high], color="#888888", ls=":")
        axes.set(xlabel="measured", ylabel="estimated (bars: interval)", xlim=(low, high), ylim=(low, high))
        if 1 < len(names) <= LEGEND:
            legend_below(figure, *axes.get_legend_handles_labels())
        if "model" in frame:
            _name_points(figure, axes, frame)
    return figure


def _name_points(figure: Figure, axes: Axes, frame: pd.DataFrame) -> None:
    """Write each model's name beside its point, unless it would lie on another name or point."""
    figure.draw_without_rendering()  # lays out the axes, whose size says where there is room
    box = axes.get_window_extent()
    per_point = figure.dpi / POINTS  # pixels
    spots = axes.transData.transform(frame[["truth", "estimate"]].astype(float).to_numpy())  # (N, 2) pixels
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    misses = (frame["truth"].astype(float) - frame["estimate"].astype(float)).abs().to_numpy()
    names = short_names(frame["model"].astype(str).tolist(), NAME_ROOM / 2, SMALL)
    for row in np.argsort(-misses):
        name = names[row]
        size = (text_width(name, SMALL) + 3) * per_point, 1.5 * SMALL * per_point
        for near, dx, dy, place in _places(spots[row][0], spots[row][1], *size):
            if place[0] < box.x0 or place[1] < box.y0 or place[2] > box.x1 or place[3] > box.y1:
                continue
            if any(_overlap(place, other) for index, other in enumerate(taken) if index != row):
                continue
            taken.append(place)
            axes.annotate(
                name, frame[["truth", "estimate"]].astype(float).iloc[row], (dx / per_point, dy / per_point),
                textcoords="offset points", fontsize=SMALL, va="bottom", arrowprops=None if near else LEADER,
            )  # fmt: skip
            break


Box = tuple[float, float, float, float]


def _places(x: float, y: float, width: float, height: float) -> Iterator[tuple[bool, float, float, Box]]:
    """Yield where a name may stand, the nearest first: whether it touches, its lower left corner's offset, its box."""
    for gap in (BESIDE, 14, 24):
        for dx, dy in (
            (gap, -height / 2),
            (-width - gap, -height / 2),
            (gap, gap / 2),
            (gap, -height - gap / 2),
            (-width - gap, gap / 2),
            (-width - gap, -height - gap / 2),
        ):
            yield gap == BESIDE, dx, dy, (x + dx, y + dy, x + dx + width, y + dy + height)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _range(frame: pd.DataFrame, columns: list[str]) -> tuple[float, float]:
    values = np.concatenate([numbers(frame, column) for column in columns])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def beside_baselines(frame: pd.DataFrame, baselines: Mapping[str, str]) -> Figure:
    """Truth, estimate with its interval and what the baselines say, a row per left-out model, the largest truth on top.

    Args:
        frame: columns model, truth, estimate, lower, upper and one for each baseline.
        baselines: column of a baseline -> what the legend calls it; columns that the frame lacks are left out.
    """
    frame = frame[frame["truth"].notna()].sort_values("truth", kind="stable")
    with styled():
        figure = Figure(figsize=(6.4, 1.6 + 0.22 * len(frame)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(frame))
        axes.hlines(places, numbers(frame, "lower"), numbers(frame, "upper"), color=COLOURS[0], alpha=0.4, lw=3)
        axes.plot(numbers(frame, "truth"), places, "|", color="#000000", ms=11, mew=2, label="measured")
        axes.plot(numbers(frame, "estimate"), places, "o", color=COLOURS[0], label="estimated (bar: interval)")
        known = [(column, name) for column, name in baselines.items() if column in frame]
        for (column, name), colour, marker in zip(known, COLOURS[1:], "sD^vX", strict=False):
            axes.plot(numbers(frame, column), places, marker, color=colour, mfc="none", label=name)
        axes.set_yticks(places, short_names(frame["model"].astype(str).tolist(), NAME_ROOM))
        axes.set_ylim(-0.7, len(frame) - 0.3)
        legend_below(figure, *axes.get_legend_handles_labels())
    return figure
