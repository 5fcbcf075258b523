"""One model on one corpus: states to mutual information to the emergence table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from estimators import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
from estimators import estimator as known_estimator
from estimators.base import InputError, Progress
from estimators.contracts.peaks import at_end, complete, peaks
from extraction import Behaviour, LanguageModel, Windows, extract, spill_notice
from extraction.states.budget import DEFAULT_BUDGET, StateBudget
from proxy.measurement.blocks import propagated_block, trained_block
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


def measure(
    model: LanguageModel,
    windows: Windows,
    *,
    estimator: str = "sample-propagation",
    options: Mapping[str, Any] | None = None,
    resolutions: Sequence[float] = DEFAULT_RESOLUTIONS,
    queries: int = QUERIES,
    project: int | None = 256,
    seed: int = 0,
    budget: StateBudget = DEFAULT_BUDGET,
    on_notice: Callable[[str], None] | None = None,
    on_behaviour: Callable[[Behaviour], None] | None = None,
    on_windows: Callable[[pd.DataFrame], None] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure macro, micro and emergence of every block at every position, in bits.

    IE(l, t) = MI_macro(l, t) - (1/t) sum_{s<=t} MI_micro(l, s)   (arXiv 2405.12617, eq. 4 and 5).

    Args:
        model: the language model.
        windows: N distinct windows of T tokens with their counts.
        estimator: `sample-propagation`; `predictive`, what the states tell about the next token; or a trained one
            (`mine`, `infonce`, ...). All but the first have no resolution.
        options: of a trained estimator, e.g. ``{"preset": "paper", "epochs": 200}``.
        resolutions: noise levels relative to the RMS norm of the layer's states; the whole curve is kept.
        queries: windows sampled (by their weight, seeded) to read the information of; all when N is not larger.
        project: dimensions that states are projected to when the model is wider.
        seed: governs projection, query sample and noise.
        budget: how many states are held in memory, and where more are spilled.
        on_notice: called before any work with a sentence on how much will be spilled and where, if anything will.
        on_behaviour: called with what the model's head says along the windows, from the same pass; None: the head is
            not run.
        on_windows: called at the end with the emergence of each window that was read (`proxy.schemas.WINDOWS`), which
            pairs with another model's on the same corpus; not called for trained estimators, which have none.
        progress: called after every block and position.

    Returns:
        The emergence table (`proxy.schemas.EMERGENCE`), one row per block x position x resolution.

    Raises:
        InputError: if an argument or the windows cannot be used.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> table = measure(model, windows("animal", model.tokenizer, count=50), resolutions=(0.18,))
    >>> len(table)  # 4 blocks x 10 positions x 1 resolution
    40
    """
    if estimator == "predictive":
        if options:
            raise InputError("The predictive observer has no options; leave them out.")
        return _predictive(model, windows, seed, budget, on_behaviour, on_windows, progress)
    trained = estimator != "sample-propagation"
    if trained:
        known_estimator(estimator, **(options or {}))  # a wrong name is said before any work
    notice = spill_notice(model, windows, project=project, entering=trained, budget=budget)
    if on_notice is not None and notice:
        on_notice(notice)
    with extract(
        model,
        windows,
        project=project,
        entering=trained,
        behaviour=on_behaviour is not None,
        seed=seed,
        budget=budget,
    ) as states:
        if on_behaviour is not None and states.behaviour is not None:
            on_behaviour(states.behaviour)
        total = states.blocks * states.positions
        parts: list[pd.DataFrame] = []
        highest = _Highest()
        last = None if on_windows is None else highest.add
        for block in range(states.blocks):
            rows = (
                trained_block(states, windows, block, estimator, options or {}, seed, budget)
                if trained
                else propagated_block(states, windows, block, resolutions, queries, seed, model.device, last)
            )
            for row in rows:
                parts.append(row)
                if progress is not None:
                    progress(len(parts), total)
    if on_windows is not None and highest.found:
        on_windows(WINDOWS.conform(pd.concat(highest.found.values(), ignore_index=True)))
    return _table(model, windows, estimator, seed, parts)


def _predictive(
    model: LanguageModel,
    windows: Windows,
    seed: int,
    budget: StateBudget,
    on_behaviour: Callable[[Behaviour], None] | None,
    on_windows: Callable[[pd.DataFrame], None] | None,
    progress: Progress | None,
) -> pd.DataFrame:
    highest = _Highest()
    rows = predictive_rows(
        model,
        windows,
        seed=seed,
        budget=budget,
        progress=progress,
        on_windows=None if on_windows is None else highest.add,
    )
    table = _table(model, windows, "predictive", seed, list(rows))
    if on_windows is not None and highest.found:
        on_windows(WINDOWS.conform(pd.concat(highest.found.values(), ignore_index=True)))
    if on_behaviour is not None:
        with extract(model, windows, project=1, behaviour=True, seed=seed, budget=budget) as states:
            assert states.behaviour is not None  # noqa: S101  # it was asked for
            on_behaviour(states.behaviour)
    return table


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
