"""Reference tables that no one meant: refused in one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy import fit_proxy

Make = Callable[..., pd.DataFrame]


def _changed(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    return table.assign(**columns)


@pytest.mark.parametrize("value", [1e300, -1e300, 1.7e308, 1e101, np.inf])
@pytest.mark.parametrize("column", ["behaviour.b0", "bits"])
def test_values_whose_squares_overflow_are_refused(families: Make, value: float, column: str) -> None:
    table = families()
    table.loc[3, column] = value
    with pytest.raises(InputError, match=f"Column {column} holds"):
        fit_proxy(table, target="bits")


def test_large_values_are_fitted(families: Make) -> None:
    table = families()
    table["behaviour.b0"] *= 1e90
    assert len(fit_proxy(table, target="bits").validation)


def test_columns_that_look_alike_are_refused(families: Make) -> None:
    table = families()
    twice = pd.concat([table, table[["behaviour.b0"]]], axis=1)
    with pytest.raises(InputError, match=r"two columns named behaviour.b0"):
        fit_proxy(twice, target="bits")


@pytest.mark.parametrize("name", [("behaviour", "x"), 3, None])
def test_columns_whose_name_is_no_text_are_refused(families: Make, name: Any) -> None:
    table = families()
    table.columns = pd.Index([*table.columns[:-1], name], dtype=object)
    with pytest.raises(InputError, match="a column named"):
        fit_proxy(table, target="bits")


def test_negative_standard_errors_are_refused(families: Make) -> None:
    table = families()
    table["bits_std_error"] = [0.1] * (len(table) - 1) + [-1.0]
    with pytest.raises(InputError, match=r"A standard error is 0 or more; bits_std_error of family1-4 is -1"):
        fit_proxy(table, target="bits")


def test_more_columns_than_can_be_learned_from_are_refused_at_once(families: Make) -> None:
    with pytest.raises(InputError, match="at most 5,000 columns; the table has 20,000 for 12 rows"):
        fit_proxy(families(2, 6, features=20_000), target="bits")
