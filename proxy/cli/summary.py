"""The summary that measuring ends with: a row per model and corpus, and E by depth of deep models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from proxy.cli.console import WIDE, screen, show

if TYPE_CHECKING:
    import pandas as pd

DEEP = 12  # blocks beyond which a line shows E by depth
BARS = "▁▂▃▄▅▆▇█"
PLAIN = "12345678"  # for terminals without those
HIDDEN = "·"  # a block that is not above its controls
LONGEST = 60  # characters of such a line
SPARE = ("path", "prefix", "windows", "block", "shuffled", "twin")  # left out first where a screen is narrow


def show_summary(table: pd.DataFrame, *, to: Console | None = None) -> None:
    """Print what an emergence table says, a table per observer, on stdout; what to know of it on stderr.

    Args:
        table: emergence table.
        to: console, for tests.
    """
    from estimators.contracts.comparable import unlike_lines
    from estimators.contracts.controls import summary, varying

    found = summary(table)
    shown, above = varying(found)
    for estimator, rows in found.groupby("estimator", sort=False):  # bits of different observers do not compare
        columns = shown.loc[rows.index].drop(columns="estimator", errors="ignore")
        show(columns, f"E at the highest block, {estimator}, bits", to=to, spare=SPARE)
    lines = depth_lines(table, to or Console())
    if lines:
        (to or Console()).print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    shared = "; ".join(f"{name} {value if str(value) else 'none'}" for name, value in above.items())
    if shared:
        screen.print(f"All: {shared}.", highlight=False, markup=False, soft_wrap=True)
    for line in unlike_lines(table):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    verdicts = set(found["verdict"])
    said = [text for verdict, text in MEANING.items() if verdict in verdicts]
    screen.print(" ".join([*said, *sink_words(table)]), highlight=False, markup=False, soft_wrap=True)


def sink_words(table: pd.DataFrame) -> list[str]:
    """Return a sentence per model whose rows hold attention sinks.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"model": "m", "layer": [0, 1], "flags": ["", "sink"], "prefix": ""})
    >>> sink_words(rows)[0].split(":")[0]
    'Attention sinks in 1 of 2 blocks of m'
    """
    from estimators.contracts.conventions import SINK

    rows = table[table["layer"].astype(float) >= 0]
    sunk = rows["flags"].fillna("").astype(str).str.split(",").map(lambda flags: SINK in flags).astype(bool)
    words = []
    for name, one in rows[sunk].groupby("model", sort=False):
        blocks = rows.loc[rows["model"] == name, "layer"].nunique()
        behind = one["prefix"].fillna("").astype(str).iloc[0]
        remedy = (
            f"although {behind!r} is put before them" if behind else "which --prefix auto or a special token may fix"
        )
        words.append(
            f"Attention sinks in {one['layer'].nunique()} of {blocks} blocks of {name}: states at a position, or of "
            f"tokens run alone, are over five times as large as the others and say little about their token, {remedy}."
        )
    return words


MEANING = {
    "learned": "Learned: above the random twin and the shuffled windows by four joint errors.",
    "not shown": "Not shown: not above its controls by four joint errors, though they are about 0.",
    "control failed": "Control failed: E is not above a control, and that control is above 0.",
    "no controls": "No controls were run; --controls (controls: true in a sweep) shows what a random network and "
    "shuffled windows give.",
}


def depth_lines(table: pd.DataFrame, console: Console) -> list[str]:
    """Return a line per model of more than `DEEP` blocks: E(l) from the first block to the last, on one scale."""
    from estimators.contracts.controls import FAILED, controls_as_columns
    from estimators.contracts.peaks import MEASURED, at_end, at_resolution, measured

    rows = at_end(at_resolution(measured(controls_as_columns(table))))
    rows = rows[rows["layer"].astype(float) >= 0]
    deep = rows[rows.groupby(MEASURED)["layer"].transform("nunique") > DEEP]
    if deep.empty:
        return []
    top = float(deep["ie_bits"].astype(float).max())
    bars = PLAIN if console.options.ascii_only else BARS
    several = [name for name in ("corpus", "estimator") if len(deep[name].unique()) > 1]
    width = min(LONGEST, (console.width if console.is_terminal else WIDE) - 20)
    lines = [f"E by block, from 0 to {max(top, 0.0):.2f} bits, the first block on the left"]
    for _, one in deep.groupby(MEASURED, sort=False):
        one = one.sort_values("layer")
        failed = one["flags"].fillna("").astype(str).str.contains(FAILED)
        values = [-1.0 if bad else float(value) for value, bad in zip(one["ie_bits"], failed, strict=True)]
        marks = "".join(bar(value, top, bars) for value in thinned(values, width))
        name = ", ".join(str(one[column].iloc[0]) for column in ("model", *several))
        lines.append(f"{marks} {name}")
    if any(HIDDEN in line for line in lines[1:]):
        lines.append(f"{HIDDEN} not above its controls, or below 0")
    return lines


def bar(value: float, top: float, bars: str) -> str:
    """Return the character for a value between 0 and `top`.

    >>> "".join(bar(value, 2.0, BARS) for value in (-1.0, 0.0, 1.0, 2.0))
    '·▁▅█'
    """
    if value < 0 or top <= 0:
        return HIDDEN
    return bars[min(int(value / top * len(bars)), len(bars) - 1)]


def thinned(values: list[float], most: int) -> list[float]:
    """Return at most `most` values, each the highest of as many neighbours as it takes.

    >>> thinned([1, 2, 3, 4, 5], 3)
    [2, 4, 5]
    """
    step = -(-len(values) // max(most, 1))
    return [max(values[start : start + step]) for start in range(0, len(values), step)]
