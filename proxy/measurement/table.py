"""One model on one corpus: states to mutual information to the emergence table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from estimators import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
from estimators.base import InputError, Progress
from estimators.contracts.peaks import at_end, complete, peaks
from extraction import LanguageModel, Likelihoods, Projection, Windows, extract, spill_notice
from extraction.states.budget import DEFAULT_BUDGET, StateBudget
from proxy.measurement.blocks import propagated_block, trained_block
from proxy.measurement.names import DEFAULT_ESTIMATOR, check_options, estimator_names
from proxy.measurement.predictive import predictive_rows
from proxy.schemas import EMERGENCE, WINDOWS

# On a narrow screen pandas leaves out columns in the middle: what a reader looks for stands first and last.
PEAK_COLUMNS = (
    "model",
    "emergence_bits",  # in front, so that a narrow screen shows it
    "emergence_bits_std_error",
    "peak_layer",
    "corpus",
    "family",
    "parameters",
    "corpus_hash",
)
QUERIES = 4000  # windows whose information is read; every window is still a reference


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """How sample propagation reads states.

    Attributes:
        resolutions: noise levels relative to the RMS norm of the layer's states; the whole curve is kept.
        queries: windows sampled (by their weight, seeded) to read the information of; all when there are not more.
        project: features that wider states are projected to, for trained estimators too; None keeps all.

    >>> Propagation(resolutions=(0.18,)).queries
    4000
    """

    resolutions: Sequence[float] = DEFAULT_RESOLUTIONS
    queries: int = QUERIES
    project: int | None = 256


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """What is called while a measurement runs; each may be left out.

    Attributes:
        notice: called before any work with a sentence on how much will be spilled and where, if anything will.
        likelihoods: called with what the model's head says along the windows, from the same pass; None: the head is not
            run for it.
        windows: called at the end with the emergence of each window that was read (`proxy.schemas.WINDOWS`), in the
            block where each estimator's is highest; pairs with another model's on the same corpus. Not called if there
            are only trained estimators, which have none.
        progress: called with the work that is done and all there is.

    >>> kept = []
    >>> Listeners(notice=kept.append).windows is None
    True
    """

    notice: Callable[[str], None] | None = None
    likelihoods: Callable[[Likelihoods], None] | None = None
    windows: Callable[[pd.DataFrame], None] | None = None
    progress: Progress | None = None


def measure(
    model: LanguageModel,
    windows: Windows,
    *,
    estimator: str = DEFAULT_ESTIMATOR,
    options: Mapping[str, Any] | None = None,
    propagation: Propagation = Propagation(),
    seed: int = 0,
    budget: StateBudget = DEFAULT_BUDGET,
    listeners: Listeners = Listeners(),
) -> pd.DataFrame:
    """Measure macro, micro and emergence of every block at every position, in bits.

    IE(l, t) = MI_macro(l, t) - (1/t) sum_{s<=t} MI_micro(l, s)   (arXiv 2405.12617, eq. 4 and 5).

    Args:
        model: the language model.
        windows: N distinct windows of T tokens with their counts.
        estimator: `predictive`, what the states tell about the next token; `sample-propagation`, what they tell about
            the window itself; a trained one (`mine`, `infonce`, ...); or several, separated by commas.
        options: of a trained estimator, e.g. ``{"preset": "paper", "epochs": 200}``.
        propagation: resolutions, queries and projection of sample propagation.
        seed: governs projection, query sample, noise and how windows are dealt to the parts of the predictive observer.
        budget: how many states are held in memory, and where more are spilled.
        listeners: called while it runs.

    Returns:
        The emergence table (`proxy.schemas.EMERGENCE`), one row per estimator x block x position x resolution; only
        sample propagation has resolutions.

    Raises:
        InputError: if an argument or the windows cannot be used.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> table = measure(model, windows("python-docs", model.tokenizer, count=200, prefix=model.prefix))
    >>> len(table)  # 4 blocks x 8 positions
    32
    >>> animals = windows("animal", model.tokenizer, count=50)
    >>> curve = Propagation(resolutions=(0.18, 0.5))
    >>> len(measure(model, animals, estimator="sample-propagation", propagation=curve))  # 4 blocks x 10 positions x 2
    80
    """
    names = estimator_names(estimator)
    check_options(names, options or {})
    tables: list[pd.DataFrame] = []
    values: list[pd.DataFrame] = []
    for number, name in enumerate(names):
        highest = _Highest()
        asked = replace(
            listeners,
            windows=None if listeners.windows is None else highest.add,
            likelihoods=None if number else listeners.likelihoods,
            progress=_part_of(listeners.progress, number, len(names)),
        )
        if name == "predictive":
            parts = _predictive(model, windows, seed, budget, asked)
        else:
            parts = _by_states(model, windows, name, options or {}, propagation, seed, budget, asked)
        tables.append(_table(model, windows, name, seed, parts))
        values += [rows.assign(estimator=name) for rows in highest.found.values()]
    if listeners.windows is not None and values:
        listeners.windows(WINDOWS.conform(pd.concat(values, ignore_index=True)))
    return EMERGENCE.conform(pd.concat(tables, ignore_index=True))


def _part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return a listener that takes the work of one of several parts of equal length."""
    if progress is None or parts == 1:
        return progress
    return lambda done, total: progress(number * total + done, parts * total)


def _by_states(
    model: LanguageModel,
    windows: Windows,
    estimator: str,
    options: Mapping[str, Any],
    propagation: Propagation,
    seed: int,
    budget: StateBudget,
    listeners: Listeners,
) -> list[pd.DataFrame]:
    """Rows by sample propagation or a trained estimator, both of normalised states."""
    trained = estimator != "sample-propagation"
    project = propagation.project
    notice = spill_notice(model, windows, project=project, entering=trained, budget=budget)
    if listeners.notice is not None and notice:
        listeners.notice(notice)
    with extract(
        model,
        windows,
        projection=Projection(project, seed),
        entering=trained,
        likelihoods=listeners.likelihoods is not None,
        budget=budget,
    ) as states:
        if listeners.likelihoods is not None and states.likelihoods is not None:
            listeners.likelihoods(states.likelihoods)
        total = states.blocks * states.positions
        parts: list[pd.DataFrame] = []
        for block in range(states.blocks):
            rows = (
                trained_block(states, windows, block, estimator, options, seed, budget)
                if trained
                else propagated_block(
                    states,
                    windows,
                    block,
                    propagation.resolutions,
                    propagation.queries,
                    seed,
                    model.device,
                    listeners.windows,
                )
            )
            for row in rows:
                parts.append(row)
                if listeners.progress is not None:
                    listeners.progress(len(parts), total)
    return parts


def _predictive(
    model: LanguageModel, windows: Windows, seed: int, budget: StateBudget, listeners: Listeners
) -> list[pd.DataFrame]:
    rows = predictive_rows(
        model, windows, seed=seed, budget=budget, progress=listeners.progress, on_windows=listeners.windows
    )
    parts = list(rows)
    if listeners.likelihoods is not None:
        with extract(model, windows, projection=Projection(1, seed), likelihoods=True, budget=budget) as states:
            assert states.likelihoods is not None  # noqa: S101  # it was asked for
            listeners.likelihoods(states.likelihoods)
    return parts


def _table(
    model: LanguageModel, windows: Windows, estimator: str, seed: int, parts: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    return EMERGENCE.conform(
        pd.concat(parts, ignore_index=True).assign(
            model=model.name,
            path=None if model.path is None else str(model.path),
            revision=model.revision,
            family=model.family,
            parameters=model.parameters,
            corpus=windows.corpus,
            corpus_hash=windows.hash,
            estimator=estimator,
            windows=int(windows.weights.sum()),
            seed=seed,
            asked="weights",
            prefix=model.tokenizer.decode(list(windows.prefix)) if windows.prefix else "",
        )
    )


class _Highest:
    """Keeps, of the values of windows that blocks give, those of the block with the highest mean at each resolution."""

    def __init__(self) -> None:
        self.found: dict[str, pd.DataFrame] = {}
        self._means: dict[str, float] = {}

    def add(self, block: pd.DataFrame) -> None:
        for resolution, rows in block.groupby("resolution", dropna=False, sort=False):
            key = str(resolution)
            mean = float(rows["share"].to_numpy(float) @ rows["ie_bits"].to_numpy(float))
            if mean > self._means.get(key, -math.inf):
                self.found[key], self._means[key] = rows, mean


def emergence_by_block(table: pd.DataFrame, *, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Return the rows of an emergence table that hold E(l) = IE(l, T): last position, one resolution.

    Args:
        table: an emergence table of any number of models and corpora.
        resolution: the one to read; rows without resolution (trained estimators) are taken as they are.

    Raises:
        InputError: if the table has no row at `resolution`.
    """
    table = complete(table).reset_index(drop=True)  # tables that were put together may repeat their labels
    chosen = table[table["resolution"].isna() | np.isclose(table["resolution"].astype(float), resolution)]
    if chosen.empty:
        known = ", ".join(f"{value:g}" for value in sorted(table["resolution"].dropna().unique()))
        raise InputError(f"The emergence table has no resolution {resolution:g}; it holds {known or 'no rows'}.")
    return at_end(chosen)


def peak_emergence(table: pd.DataFrame, *, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Summarise an emergence table: E(l) at its highest block.

    Returns:
        One row per model x corpus, by corpus, family and size: model, emergence_bits,
        emergence_bits_std_error, peak_layer, corpus, family, parameters, corpus_hash.

    Raises:
        InputError: if the table has no row at `resolution`.

    >>> table = pd.DataFrame({"model": "m", "corpus": "c", "layer": [0, 1], "position": 8, "resolution": 0.18,
    ...                       "ie_bits": [0.2, 0.5]})
    >>> peak_emergence(EMERGENCE.conform(table))[["model", "peak_layer", "emergence_bits"]].values.tolist()
    [['m', 1, 0.5]]
    """
    found = peaks(emergence_by_block(table, resolution=resolution), resolution)
    return found[list(PEAK_COLUMNS)].sort_values(["corpus", "family", "parameters", "model"], ignore_index=True)
