"""Tables in the descriptions that MLflow shows."""

from __future__ import annotations

import re

import pandas as pd

from estimators.contracts.cells import markdown

GAP = "&nbsp;&nbsp;"  # MLflow sets columns without space between them, and trims what is not an entity


def note_table(frame: pd.DataFrame, *, limit: int | None = None) -> str:
    r"""Format a table in markdown for a description.

    Args:
        frame: the table.
        limit: rows shown; a line below the table says how many were left out.

    >>> print(note_table(pd.DataFrame({"model": ["gpt2-30k"], "E": [0.5]})).replace(GAP, "__"))
    | model__ | E__ |
    | --- | --- |
    | gpt2-30k__ | 0.500__ |
    """
    head, rule, *rows = markdown(frame, limit=limit).split("\n")
    spaced = [re.sub(r"(?<!\\) \|", f"{GAP} |", line) if line.startswith("|") else line for line in (head, *rows)]
    return "\n".join([spaced[0], rule, *spaced[1:]])
