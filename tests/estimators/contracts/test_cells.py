"""Values as text: what is missing, and that nothing breaks out of a markdown table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.contracts.cells import cell, markdown


@pytest.mark.parametrize("value", [None, pd.NA, float("nan"), np.float32("nan"), pd.NaT])
def test_what_is_missing_is_a_dash(value: object) -> None:
    assert cell(value) == "–"  # noqa: RUF001
    assert cell(value, missing="") == ""


def test_numbers_take_the_format_and_whole_ones_stay_whole() -> None:
    assert [cell(np.float64(1 / 3)), cell(1 / 3, ".4g"), cell(7), cell(12345, thousands=True)] == [
        "0.333",
        "0.3333",
        "7",
        "12,345",
    ]


@given(st.text(max_size=30))
def test_markdown_cells_stay_in_their_cell(text: str) -> None:
    head, rule, row = markdown(pd.DataFrame({"a": [text], "b": [1.0]}), limit=5).split("\n")
    bare = row.replace("\\\\", "").replace("\\|", "")
    assert bare.count("|") == 3
    assert "<" not in bare.replace("\\<", "")
    assert (head, rule) == ("| a | b |", "| --- | --- |")


def test_a_long_table_says_what_it_leaves_out() -> None:
    lines = markdown(pd.DataFrame({"a": range(5)}), limit=2).splitlines()
    assert lines[2:4] == ["| 0 |", "| 1 |"]
    assert lines[-1] == "3 further rows: see the table among the artifacts."
