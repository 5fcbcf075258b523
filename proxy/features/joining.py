"""Features of several sources in one table: each name belongs to one feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from estimators.base import InputError

Value = TypeVar("Value")


def combine(*parts: Mapping[str, Value]) -> dict[str, Value]:
    """Return the features of all parts.

    Raises:
        InputError: if two parts have a feature of one name, of which the later would replace the earlier.

    >>> combine({"nll": 2.0}, {"length": 5.0})
    {'nll': 2.0, 'length': 5.0}
    """
    found: dict[str, Value] = {}
    for part in parts:
        check_apart("The features", found, part)
        found |= part
    return found


def check_apart(what: str, known: Iterable[object], new: Iterable[object]) -> None:
    """Refuse new columns that have the name of a known feature.

    Args:
        what: has the new columns, as a sentence begins.
        known: names of features.
        new: names of the new columns.

    Raises:
        InputError: naming them.

    >>> check_apart("The table of scores", ["behaviour.empty"], ["win_rate"])
    """
    both = sorted({*map(str, known)} & {*map(str, new)})
    if both:
        raise InputError(f"{what} to be added have names that other columns have: {', '.join(both[:3])}; rename them.")
