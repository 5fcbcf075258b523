"""Values of a table as text: one formatter for the terminal, markdown and HTML."""

from __future__ import annotations

import re
from numbers import Integral

import pandas as pd

from estimators.contracts.secrets import printable

MISSING = "–"  # noqa: RUF001
# What would change how a cell or the table around it is shown; an underscore inside a word does not.
SPECIAL = re.compile(r"([\\`*\[\]<>|~]|(?<!\w)_|_(?!\w))")


def cell(value: object, number: str = ".3f", *, missing: str = MISSING, thousands: bool = False) -> str:
    """Format one value of a table.

    Args:
        value: the value.
        number: format of floats.
        missing: text for None, NaN and NA.
        thousands: whether to group the digits of whole numbers.

    >>> cell(1.23456), cell(-0.0001), cell(float("nan")), cell(1234567, thousands=True), cell("gpt2")
    ('1.235', '0.000', '–', '1,234,567', 'gpt2')
    """  # noqa: RUF002
    if pd.api.types.is_scalar(value) and pd.isna(value):  # type: ignore[call-overload]
        return missing
    if isinstance(value, float):
        return format(value, f"z{number}")  # no -0.000
    return f"{value:,}" if thousands and isinstance(value, Integral) else printable(str(value))


def markdown(frame: pd.DataFrame, number: str = ".3f", *, missing: str = MISSING, limit: int | None = None) -> str:
    r"""Format a table in markdown; no text in a cell can break out of it.

    Args:
        frame: the table.
        number: format of floats.
        missing: text for missing values.
        limit: rows shown; a line below the table says how many were left out.

    >>> print(markdown(pd.DataFrame({"model": ["a|b"], "bits": [0.5]})))
    | model | bits |
    | --- | --- |
    | a\|b | 0.500 |
    """

    def row(values: tuple[object, ...]) -> str:
        return f"| {' | '.join(escaped(cell(value, number, missing=missing)) for value in values)} |"

    shown = frame if limit is None else frame.head(limit)
    lines = [row(tuple(frame.columns)), "|" + " --- |" * len(frame.columns)]
    lines += [row(values) for values in shown.itertuples(index=False, name=None)]
    if len(shown) < len(frame):
        lines.append(f"\n{len(frame) - len(shown)} further rows: see the table among the artifacts.")
    return "\n".join(lines)


def escaped(text: str) -> str:
    r"""Escape a text for markdown, on one line.

    >>> print(escaped("gpt2_30k *new*"))
    gpt2_30k \*new\*
    """
    return SPECIAL.sub(r"\\\1", text.replace("\r", " ").replace("\n", " "))


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    >>> counted(1, "job"), counted(2, "job"), counted(0, "corpus", "corpora")
    ('1 job', '2 jobs', '0 corpora')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
