"""What every claim of the study is judged by: the measurements, the words of an answer, and when an effect is one.

An effect is called seen when it passes four standard errors. Where a control (the same network with random weights,
or windows whose tokens were shuffled over the windows) shows at least half of the effect too, the answer says so: then
what the model has learned of its context is not its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from estimators import DEFAULT_RESOLUTION
from estimators.contracts.conventions import SHUFFLED as SHUFFLE
from estimators.contracts.conventions import TWIN
from proxy.measurement.table import emergence_by_block, peak_emergence

TRAINED, RANDOM, SHUFFLED = CASES = ("trained", "random weights", "shuffled")  # the model, and its two controls
LISTS = ("country", "animal", "color")  # corpora whose windows are lists of entities; all others are text
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be decided here"
IN_CONTROL = "holds, but the control shows it too"
ERRORS = 4.0  # standard errors that an effect must pass
SHARE = 0.5  # share of an effect that makes a control show it too
DRAWS = 1000  # of an interval
LARGE = 10e6  # parameters from which a model counts as large, and is read on fewer windows


@dataclass
class Study:
    """The measurements; an empty table where something was not measured.

    Attributes:
        main: emergence table by sample propagation of all models and their controls on text and on lists.
        next: the same on text by the predictive observer.
        shots: emergence table of long lists, for several numbers of windows.
        next_shots: the same by the predictive observer, for one number of windows.
        trained: one row per model, or random twin, and trained estimator.
        preset: one row per model, or random twin, kind of pairs and seed, by the paper's MINE.
    """

    main: pd.DataFrame = field(default_factory=pd.DataFrame)
    next: pd.DataFrame = field(default_factory=pd.DataFrame)
    shots: pd.DataFrame = field(default_factory=pd.DataFrame)
    next_shots: pd.DataFrame = field(default_factory=pd.DataFrame)
    trained: pd.DataFrame = field(default_factory=pd.DataFrame)
    preset: pd.DataFrame = field(default_factory=pd.DataFrame)


def of_next(study: Study) -> Study:
    """What the predictive observer says, to be judged as what another one says."""
    return Study(main=study.next, shots=study.next_shots)


def by_scale(study: Study, *, large: bool) -> Study:
    """The part of the study on models of at least `LARGE` parameters, or on the others."""
    named = pd.concat([study.main, study.next])
    names = set(named.loc[(named["parameters"] >= LARGE) == large, "model"])
    parts = {name: getattr(study, name) for name in ("main", "next", "shots", "next_shots", "trained", "preset")}
    return Study(**{name: table if table.empty else table[table["model"].isin(names)] for name, table in parts.items()})


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


def with_controls_as_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Turn controls that stand as columns beside a model's rows into rows: of its twin, and of shuffled windows."""
    parts = [table]
    for control, place, mark in (("twin", "model", TWIN), ("shuffled", "corpus", SHUFFLE)):
        bits = f"{control}_ie_bits"
        if bits in table and table[bits].notna().any():
            rows = table[table[bits].notna()]
            parts.append(
                rows.assign(
                    **{place: rows[place].astype(str) + mark},
                    ie_bits=rows[bits],
                    ie_std_error=rows[f"{control}_ie_std_error"],
                )
            )
    return pd.concat(parts, ignore_index=True)


def with_cases(table: pd.DataFrame) -> pd.DataFrame:
    """Add `of` (the model) and `case` (`CASES`); the name of a corpus loses its mark."""
    if table.empty:
        return table
    twin = table["model"].str.endswith(TWIN)
    found = table.assign(of=table["model"].str.removesuffix(TWIN), case=np.where(twin, RANDOM, TRAINED))
    if "corpus" in table:
        corpus = table["corpus"].astype(object)
        found["case"] = found["case"].mask(corpus.str.endswith(SHUFFLE).astype(bool), SHUFFLED)
        found["corpus"] = corpus.str.removesuffix(SHUFFLE)
    return found


def only(table: pd.DataFrame, case: str) -> pd.DataFrame:
    """The rows of one case."""
    return table[table["case"] == case]


def by_case(found: pd.DataFrame, by: list[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """What names it, and the rows, of each group and case: the model before its controls."""
    for key, group in found.groupby(by, sort=False):
        for case in CASES:
            one = only(group, case)
            if not one.empty:
                yield {**dict(zip(by, key, strict=True)), "case": case}, one


def shared(numbers: pd.DataFrame, by: list[str], effect: str) -> bool:
    """Whether a control shows `SHARE` of an effect of its model, the one with the same `by`."""
    trained = only(numbers, TRAINED).set_index(by)[effect]
    controls = numbers[numbers["case"] != TRAINED].set_index(by)[effect]
    of = trained.reindex(controls.index)
    return bool(((controls >= SHARE * of) & (of > 0)).any())


def answer(seen: bool, refuted: bool, in_control: bool) -> str:
    """Word a verdict."""
    if seen:
        return IN_CONTROL if in_control else HOLDS
    return FAILS if refuted else UNKNOWN


def difference(late: pd.Series, early: pd.Series) -> tuple[float, float]:
    """Difference of two emergences and its standard error, both sides taken as independent."""
    return float(late["ie_bits"] - early["ie_bits"]), float(np.hypot(late["ie_std_error"], early["ie_std_error"]))


def interval(statistic: Callable[[NDArray[np.float64]], float], values: ArrayLike, errors: ArrayLike) -> str:
    """5 and 95 % quantiles of a statistic of values that are resampled within their standard errors."""
    rng = np.random.default_rng(0)
    sampled = rng.normal(np.asarray(values, float), np.asarray(errors, float), (DRAWS, *np.shape(values)))
    low, high = np.quantile([statistic(one) for one in sampled], (0.05, 0.95), method="inverted_cdf")
    return f"{low:.3g} to {high:.3g}"


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's correlation."""
    return float(pd.Series(np.asarray(a, float)).corr(pd.Series(np.asarray(b, float)), method="spearman"))


def peaks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """E at the highest block of every model, control and corpus, by size."""
    found = peak_emergence(table, resolution=resolution).rename(
        columns={"emergence_bits": "ie_bits", "emergence_bits_std_error": "ie_std_error"}
    )
    return with_cases(found).sort_values("parameters", kind="stable")


def blocks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """E(l) of every model, control and corpus, by block."""
    return with_cases(emergence_by_block(table, resolution=resolution)).sort_values("layer", kind="stable")


def curve(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """IE by position at the block where the last position's is highest, of each model, control, corpus and size."""
    near = table[table["resolution"].isna() | np.isclose(table["resolution"].astype(float), resolution)]
    parts = []
    for _, group in near.groupby(["model", "corpus", "windows"], sort=False):
        last = group[group["position"] == group["position"].max()]
        block = last.loc[last["ie_bits"].idxmax(), "layer"]
        parts.append(group[group["layer"] == block].sort_values("position"))
    return with_cases(pd.concat(parts, ignore_index=True)) if parts else near
