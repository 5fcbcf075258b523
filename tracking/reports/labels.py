"""Names and numbers on figures: shortened to the room there is, and never overlapping."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

FONT = "DejaVu Sans"
SIZE, LEGEND_SIZE, TITLE_SIZE = 10, 9, 12  # points
LEGEND_GAPS = 5.5  # font sizes that line, gaps and column spacing of a legend's entry take
POINTS = 72  # per inch
ELLIPSIS = "…"


@contextmanager
def any_script() -> Iterator[None]:
    """Draw names in scripts that the font lacks as boxes, without a warning for each letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def text_width(text: str, size: float) -> float:
    """Return the width of a line of text in points."""
    return size * sum(map(_advance, text))


@lru_cache(maxsize=4096)
def _advance(letter: str) -> float:
    """Return how much a letter moves the pen on, as a share of the font's size; what the font lacks is a square."""
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    font = get_font(findfont(FONT))
    font.set_size(100, POINTS)
    with any_script():
        glyph = font.load_char(ord(letter))
    return float(glyph.linearHoriAdvance) / 65536 / 100


def shortened(text: str, room: float, size: float = SIZE) -> str:
    """Leave out the middle of a name that is wider than `room` points.

    >>> shortened("animal", 100), shortened("a/very/long/path/to/some/model-7B", 100)
    ('animal', 'a/very/l…model-7B')
    """
    if text_width(text, size) <= room:
        return text

    def short(kept: int) -> str:
        return text[: (kept + 1) // 2] + ELLIPSIS + text[len(text) - kept // 2 :]

    low, high = 0, len(text) - 1  # letters that fit, and that are too many
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(short(middle), size) <= room else (low, middle)
    return short(low)


def short_names(names: Sequence[str], room: float, size: float = SIZE) -> list[str]:
    """Shorten names to `room` points so that different ones stay different: what they have in common goes first.

    >>> short_names(["a/very/long/path/run-1/checkpoint.gguf", "a/very/long/path/run-2/checkpoint.gguf"], 100)
    ['…run-1…', '…run-2…']
    """
    short = [shortened(name, room, size) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    before, after = _shared(names), _shared([name[::-1] for name in names])
    before = names[0].rfind("/", 0, before) + 1 or before  # whole parts of a path
    cores = [name[before : max(len(name) - after, before + 1)] for name in names]
    short = [shortened(f"{ELLIPSIS}{core}{ELLIPSIS}", room, size) for core in cores]
    if len(set(short)) == len(set(names)):
        return short
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names), 1)}
    return [f"{numbers[name]} {shortened(name, room - 3 * size, size)}" for name in names]


def _shared(names: Sequence[str]) -> int:
    """Return how many letters all names begin with."""
    return next((at for at, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)


def count_label(count: float) -> str:
    """Write a large number in short form; matplotlib's own labels of powers of ten are formulas.

    >>> count_label(134_515_008), count_label(30_000), count_label(2e12)
    ('135M', '30k', '2T')
    """
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.3g}"


def size_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Choose round numbers of parameters from `low` to `high`, few enough that their labels lie apart.

    >>> [count_label(tick) for tick in size_ticks(2e3, 8e9)], [count_label(tick) for tick in size_ticks(1.35e8, 2.7e8)]
    (['10k', '100k', '1M', '10M', '100M', '1B'], ['150M', '200M', '250M'])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [round(step * 10.0**power, 6) for power in range(first, last + 1) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            return inside or [low, high][: 1 + (low < high)]
    stride = -(-len(inside) // most)
    return inside[::stride]


def label_sizes(axes: Axes, sizes: np.ndarray) -> None:
    """Make the horizontal axis logarithmic, with numbers of parameters in short form."""
    low, high = float(np.min(sizes)), float(np.max(sizes))
    axes.set_xscale("log")
    margin = max((high / low) ** 0.06, 1.15)
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(size_ticks(low / margin, high * margin)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: count_label(count)))
    axes.xaxis.set_minor_locator(NullLocator())


def label_steps(axes: Axes, steps: Sequence[float], room: float) -> None:
    """Make the horizontal axis logarithmic, `room` points wide, with a label at each step that has room."""
    axes.set_xscale("log")
    shown: list[float] = []
    span = math.log(steps[-1] / steps[0]) or 1.0
    for step in steps:
        wanted = text_width(f"{step:g}", SIZE) + SIZE
        if not shown or math.log(step / shown[-1]) / span * room >= wanted:
            shown.append(step)
    axes.set_xticks(shown, [f"{step:g}" for step in shown])
    axes.minorticks_off()


def legend_below(figure: Figure, lines: list[Any], names: list[str]) -> None:
    """Put one legend for all panels below them, with as many columns as the names leave room for."""
    if not names:
        return
    room = figure.get_figwidth() * POINTS - 2 * SIZE
    gaps = LEGEND_GAPS * LEGEND_SIZE
    names = short_names(names, room - gaps, LEGEND_SIZE)
    columns = max(1, min(len(names), int(room // (gaps + max(text_width(name, LEGEND_SIZE) for name in names)))))
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + rows * 1.5 * LEGEND_SIZE / POINTS)
    figure.legend(lines, names, loc="outside lower center", ncols=columns)
