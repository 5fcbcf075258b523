"""What every claim of the study is judged by: the measurements, the words of an answer, and when an effect is one.

An effect is called seen when it passes four standard errors. Where a control (the same network with random weights,
or shuffled text) shows at least half of the effect too, the answer says so: then training is not its cause.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from estimators import DEFAULT_RESOLUTION
from extraction.twin import SUFFIX
from proxy.measure import peak_emergence

LISTS = ("country", "animal", "color")  # corpora whose windows are lists of entities; all others are text
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told here"
IN_CONTROL = "holds, but the control shows it too"
ERRORS = 4.0  # standard errors that an effect must pass
SHARE = 0.5  # share of an effect that makes a control show it too


@dataclass
class Study:
    """The measurements; an empty table where something was not measured.

    Attributes:
        main: emergence table of all models and their twins on text and on lists.
        shots: emergence table of long lists, for several numbers of windows.
        shuffled: emergence table on shuffled text.
        trained: one row per model and trained estimator.
        preset: one row per model and kind of pairs, by the paper's MINE.
    """

    main: pd.DataFrame
    shots: pd.DataFrame = field(default_factory=pd.DataFrame)
    shuffled: pd.DataFrame = field(default_factory=pd.DataFrame)
    trained: pd.DataFrame = field(default_factory=pd.DataFrame)
    preset: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, judged.

    Attributes:
        title: the claim in a few words.
        rule: when it holds.
        verdict: one of the four answers.
        remark: what a reader should know of it.
        numbers: the numbers it rests on.
        figure: file name of its figure; empty if it has none.
    """

    title: str
    rule: str
    verdict: str
    remark: str
    numbers: pd.DataFrame
    figure: str = ""


def with_twins(table: pd.DataFrame) -> pd.DataFrame:
    """Add `of` (the model) and `twin` (whether the row is of its random twin)."""
    if table.empty:
        return table
    twin = table["model"].str.endswith(SUFFIX)
    return table.assign(twin=twin, of=table["model"].str.removesuffix(SUFFIX))


def answer(seen: bool, refuted: bool, in_control: bool) -> str:
    """Word a verdict."""
    if seen:
        return IN_CONTROL if in_control else HOLDS
    return FAILS if refuted else UNKNOWN


def difference(late: pd.Series, early: pd.Series) -> tuple[float, float]:
    """Difference of two emergences and its standard error, both sides taken as independent."""
    return float(late["ie_bits"] - early["ie_bits"]), float(np.hypot(late["ie_std_error"], early["ie_std_error"]))


def peaks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """E at the highest block of every model, twin and corpus, by size."""
    found = peak_emergence(table, resolution=resolution).rename(
        columns={"emergence_bits": "ie_bits", "emergence_bits_std_error": "ie_std_error"}
    )
    return with_twins(found).sort_values("parameters")


def curve(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """IE by position at the block where the last position's is highest, of each model, corpus and number of windows."""
    near = table[np.isclose(table["resolution"].astype(float), resolution)]
    parts = []
    for _, group in near.groupby(["model", "corpus", "windows"], sort=False):
        last = group[group["position"] == group["position"].max()]
        block = last.loc[last["ie_bits"].idxmax(), "layer"]
        parts.append(group[group["layer"] == block].sort_values("position"))
    return pd.concat(parts, ignore_index=True) if parts else near
