"""One model on one corpus: states to mutual information to the emergence table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from estimators import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
from estimators.base import InputError, Progress
from estimators.contracts.conventions import SINK
from estimators.contracts.numbers import number
from estimators.contracts.peaks import at_end, blocks_or_output, complete, peaks
from extraction import LanguageModel, Likelihoods, Projection, States, Windows, extract, spill_notice
from extraction.models.head import Head, find_head
from extraction.states.budget import DEFAULT_BUDGET, StateBudget
from extraction.states.extracting import spilling
from extraction.states.raw import raw_bytes, raw_states
from extraction.states.sinks import Sinks
from proxy.measurement.blocks import PropagationPlan, plan_propagation, propagated_block, trained_block
from proxy.measurement.costs import LOGIT
from proxy.measurement.names import (
    DEFAULT_ESTIMATOR,
    PREDICTIVE_WINDOWS,
    SCORED,
    check_options,
    estimator_names,
    is_output,
    trained_options,
)
from proxy.measurement.output import (
    Contexts,
    NextTokenData,
    OnWindows,
    contexts_of,
    naming,
    open_output,
    output_of_states,
    output_rows,
)
from proxy.measurement.predictive import PredictiveReader
from proxy.schemas import EMERGENCE, WINDOWS

# On a narrow screen pandas leaves out columns in the middle: what a reader looks for stands first and last.
PEAK_COLUMNS = (
    "model",
    "corpus",
    "corpus_hash",
    "family",
    "parameters",
    "peak_layer",
    "emergence_bits_std_error",
    "emergence_bits",
)
AT_OUTPUT = "predictive of the output"  # among the parts of a measurement; its rows name the estimator
QUERIES = 4000  # windows whose information is read; every window is still a reference


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """How sample propagation reads states.

    Attributes:
        resolutions: noise levels relative to the RMS norm of the layer's states; the whole curve is kept.
        queries: windows sampled (by their weight, seeded) to read the information of; all when there are not more.
            Where many windows of many blocks are to be compared, fewer positions and queries are read unless
            the option `full` is set, see `proxy.measurement.costs`.
        project: features that wider states are projected to, for trained estimators too; None keeps all.

    Raises:
        InputError: if there are fewer than 2 queries, no feature, or a resolution that is not a number above 0.

    >>> Propagation(resolutions=(0.18,)).queries
    4000
    """

    resolutions: Sequence[float] = DEFAULT_RESOLUTIONS
    queries: int = QUERIES
    project: int | None = 256

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        number(self.queries, "queries", least=2, whole=True)
        if self.project is not None:
            number(self.project, "project", least=1, whole=True)
        for resolution in self.resolutions:
            number(resolution, "resolution", above=0)


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Callbacks of a measurement; all are optional.

    Attributes:
        notice: called before any work with a sentence on how much will be spilled and where, if anything will.
        likelihoods: called with what the model's head says along the windows, from the same pass; None: the head is not
            run for it.
        windows: called at the end with the emergence of each window that was read (`proxy.schemas.WINDOWS`), in the
            block where each estimator's is highest; can be paired with another model's on the same corpus. Not called
            if there are only trained estimators, which have none.
        continuations: called with how single windows were continued (`proxy.schemas.CONTINUATIONS`), once per reading
            of the output that provides it.
        progress: called with the work done and the total.

    >>> kept = []
    >>> Listeners(notice=kept.append).windows is None
    True
    """

    notice: Callable[[str], None] | None = None
    likelihoods: Callable[[Likelihoods], None] | None = None
    windows: Callable[[pd.DataFrame], None] | None = None
    continuations: OnWindows | None = None
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
            the window itself; a trained one (`mine`, `infonce`, ...); a reading of the output (`predictive-20`,
            `output-20`, `output-2-of-20`, `output-2`, see `proxy.measurement.output`); or several, separated by commas:
            all but trained ones are then read from one pass.
        options: of a trained estimator, e.g. ``{"preset": "paper", "epochs": 200}``; of the others ``{"full": True}``,
            to read a large model at every position and on more windows.
        propagation: resolutions, queries and projection of sample propagation.
        seed: seed of projection, query sample, noise and the folds of the predictive observer.
        budget: how many states are held in memory, and where more are spilled.
        listeners: called while it runs.

    Returns:
        The emergence table (`proxy.schemas.EMERGENCE`), one row per estimator x block x position x resolution; only
        sample propagation has resolutions. A reading of the output has one row, of the layer -1; where such readings
        are taken beside `predictive`, that of the output, without a lens, is one more.

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
    given = options or {}
    check_options(names, given)
    work = _Work(model, windows, propagation, bool(given.get("full")), seed, budget, listeners)
    parts: dict[str, list[pd.DataFrame]] = {}
    readings = [name for name in names if is_output(name)]
    shared = work.together(names)
    apart = [[name] for name in names if name not in shared and name not in readings]
    passes = [part for part in (shared, *apart, [] if shared else readings) if part]
    for place, together in enumerate(passes):
        if together is shared:
            parts |= work.shared(together, len(passes))
        elif together is readings:
            parts |= work.output(readings, place, len(passes))
        else:
            parts[together[0]] = work.extracted(together[0], trained_options(given), place, len(passes))
    work.finish()
    tables = [_table(model, windows, name, seed, parts[name]) for name in names]
    if AT_OUTPUT in parts:
        tables.append(_table(model, windows, AT_OUTPUT, seed, parts[AT_OUTPUT]))
    return EMERGENCE.conform(pd.concat(tables, ignore_index=True))


def _part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return a listener that takes the work of one of several parts of equal length."""
    if progress is None or parts == 1:
        return progress
    return lambda done, total: progress(number * total + done, parts * total)


@dataclass(frozen=True)
class _Work:
    """One model on one corpus, read by one observer after the other.

    Attributes:
        of_windows: the emergence of single windows, in each observer's highest block.
        passed_on: the likelihoods that were passed on.
    """

    model: LanguageModel
    windows: Windows
    propagation: Propagation
    full: bool
    seed: int
    budget: StateBudget
    listeners: Listeners
    of_windows: list[pd.DataFrame] = field(default_factory=list)
    passed_on: list[Likelihoods] = field(default_factory=list)

    @cached_property
    def _head(self) -> Head:
        return find_head(self.model)

    def together(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that are read from one pass, which keeps states as the model makes them."""
        readings = [name for name in names if is_output(name)]
        states = ["sample-propagation"] if "sample-propagation" in names else []
        if "predictive" in names:
            return ["predictive", *readings, *(states if len(self.windows) <= PREDICTIVE_WINDOWS else [])]
        spilled = self.budget.spilled(raw_bytes(self.model, self.windows))
        if not (states and readings) or spilled > self.budget.spill_gb * 1e9:
            return []  # projected states are smaller
        try:
            _ = self._head
        except InputError:  # its output can be had from a run of the whole model only
            return []
        return [*states, *readings]

    def shared(self, names: Sequence[str], passes: int) -> dict[str, list[pd.DataFrame]]:
        """Read all of `names` from one pass."""
        model, windows = self.model, self.windows
        reader = None
        if "predictive" in names:
            if len(windows) > PREDICTIVE_WINDOWS:  # they are in random order
                windows = windows.select(np.arange(PREDICTIVE_WINDOWS))
            reader = PredictiveReader(model, windows, seed=self.seed, full=self.full)  # refuses what cannot be read
        whole = windows is self.windows
        readings = [name for name in names if is_output(name)]
        plan = self._plan() if "sample-propagation" in names else None
        contexts = contexts_of(windows, model.tokenizer, seed=self.seed) if readings else None
        size = raw_bytes(model, windows)
        if self.listeners.notice is not None and self.budget.spilled(size):
            self.listeners.notice(spilling(model, size, self.budget))
        alone = len(windows.distinct_tokens()[0])
        length = windows.tokens.shape[1]
        # Progress is in steps of equal work: the run of a sequence is one.
        sequences = len(windows) + alone
        front = len(windows.prefix)
        forward = 2.0 * (model.parameters or 1) * (len(windows) * (front + length) + alone * (front + 1))
        logits = model.vocabulary * (2.0 * model.width + LOGIT)
        reading = 0 if reader is None else max(1, round(reader.flops / forward * sequences))
        saying = max(1, round(sequences * logits / forward * sequences)) if readings else 0
        again = 0 if plan is None else len(model.blocks) * len(plan.positions)
        total = (sequences + reading + saying + again) * passes  # as if each other pass took as long

        def step(offset: int, size: int) -> Progress | None:
            progress = self.listeners.progress
            return None if progress is None else lambda done, of: progress(offset + size * done // max(1, of), total)

        with raw_states(
            model,
            windows,
            likelihoods=self.listeners.likelihoods is not None and whole,
            budget=self.budget,
            progress=step(0, sequences),
        ) as states:
            self._tell(states.likelihoods)
            found: dict[str, list[pd.DataFrame]] = {}
            if reader is not None:
                highest = _Highest()
                rows = reader.rows(states, step(sequences, reading), self._listening(highest))
                found["predictive"] = _flagged(list(rows), states.sinks)
                self._keep("predictive", highest)
            if contexts is not None:
                head = self._head if reader is None else reader.head
                tell = step(sequences + reading, saying)
                said = output_of_states(model, contexts, windows, states, head, tell)
                found |= self._read(said, contexts, readings)
                if reader is not None:
                    found[AT_OUTPUT] = self._read(said, contexts, [SCORED])[SCORED]
            if plan is not None:
                tell = step(sequences + reading + saying, again)
                with states.normalised(Projection(self.propagation.project, self.seed)) as normal:
                    found["sample-propagation"] = self._propagated(normal, plan, tell)
        return found

    def output(self, names: Sequence[str], number: int, of: int) -> dict[str, list[pd.DataFrame]]:
        """Read the output alone, from a pass of its own, which keeps no states."""
        contexts = contexts_of(self.windows, self.model.tokenizer, seed=self.seed)
        progress = _part_of(self.listeners.progress, number, of)
        said = open_output(self.model, contexts, prefix=self.windows.prefix, progress=progress)
        return self._read(said, contexts, names)

    def _read(self, said: NextTokenData, contexts: Contexts, names: Sequence[str]) -> dict[str, list[pd.DataFrame]]:
        on_windows = naming(self.listeners.continuations, self.model.name)
        return {name: [output_rows(said, contexts, [name], seed=self.seed, on_windows=on_windows)] for name in names}

    def finish(self) -> None:
        """Pass to the listeners what is still due."""
        if self.listeners.likelihoods is not None and not self.passed_on:
            with extract(self.model, self.windows, projection=Projection(1, self.seed), budget=self.budget) as some:
                self._tell(some.likelihoods)
        if self.listeners.windows is not None and self.of_windows:
            self.listeners.windows(WINDOWS.conform(pd.concat(self.of_windows, ignore_index=True)))

    def extracted(self, name: str, options: Mapping[str, Any], number: int, of: int) -> list[pd.DataFrame]:
        """Read sample propagation or a trained estimator from a pass of its own, which keeps projected states."""
        trained = name != "sample-propagation"
        project = self.propagation.project
        notice = spill_notice(self.model, self.windows, project=project, entering=trained, budget=self.budget)
        if self.listeners.notice is not None and notice:
            self.listeners.notice(notice)
        progress = _part_of(self.listeners.progress, number, of)
        with extract(
            self.model,
            self.windows,
            projection=Projection(project, self.seed),
            entering=trained,
            likelihoods=self.listeners.likelihoods is not None and not self.passed_on,
            budget=self.budget,
        ) as states:
            self._tell(states.likelihoods)
            if not trained:
                return self._propagated(states, self._plan(), progress)
            parts: list[pd.DataFrame] = []
            for block in range(states.blocks):
                for row in trained_block(states, self.windows, block, name, options, self.seed, self.budget):
                    parts.append(row)
                    if progress is not None:
                        progress(len(parts), states.blocks * states.positions)
            return _flagged(parts, states.sinks)

    def _plan(self) -> PropagationPlan:
        how, width = self.propagation, self.model.width
        return plan_propagation(
            self.windows,
            blocks=len(self.model.blocks),
            features=width if how.project is None else min(how.project, width),
            resolutions=how.resolutions,
            queries=how.queries,
            full=self.full,
        )

    def _propagated(self, states: States, plan: PropagationPlan, progress: Progress | None) -> list[pd.DataFrame]:
        parts: list[pd.DataFrame] = []
        highest = _Highest()
        for block in range(states.blocks):
            for row in propagated_block(
                states,
                self.windows,
                block,
                plan,
                seed=self.seed,
                device=self.model.device,
                last=self._listening(highest),
            ):
                parts.append(row)
                if progress is not None:
                    progress(len(parts), states.blocks * len(plan.positions))
        self._keep("sample-propagation", highest)
        return _flagged(parts, states.sinks)

    def _listening(self, highest: _Highest) -> Callable[[pd.DataFrame], None] | None:
        return None if self.listeners.windows is None else highest.add

    def _keep(self, name: str, highest: _Highest) -> None:
        self.of_windows.extend(rows.assign(estimator=name) for rows in highest.found.values())

    def _tell(self, likelihoods: Likelihoods | None) -> None:
        if self.listeners.likelihoods is not None and likelihoods is not None:
            self.passed_on.append(likelihoods)
            self.listeners.likelihoods(likelihoods)


def _flagged(parts: list[pd.DataFrame], sinks: Sinks | None) -> list[pd.DataFrame]:
    """Flag the rows that are computed from states at attention sinks."""
    if sinks is None:
        return parts
    for rows in parts:
        found = [sinks.at(int(layer), int(t)) for layer, t in zip(rows["layer"], rows["position"], strict=True)]
        flags = rows["flags"].fillna("").astype(str)
        rows["flags"] = np.where(found, np.where(flags != "", flags + "," + SINK, SINK), flags)
    return parts


def _table(
    model: LanguageModel, windows: Windows, estimator: str, seed: int, parts: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    found = pd.concat(parts, ignore_index=True).assign(
        model=model.name,
        path=None if model.path is None else str(model.path),
        revision=model.revision,
        family=model.family,
        parameters=model.parameters,
    )
    if is_output(estimator) or estimator == AT_OUTPUT:  # says of which windows it is
        return EMERGENCE.conform(found)
    return EMERGENCE.conform(
        found.assign(
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
    resolutions = table["resolution"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    chosen = table[np.isnan(resolutions) | np.isclose(resolutions, resolution)]
    if chosen.empty:
        known = ", ".join(f"{value:g}" for value in sorted(table["resolution"].dropna().unique()))
        raise InputError(f"The emergence table has no resolution {resolution:g}; it holds {known or 'no rows'}.")
    return at_end(blocks_or_output(chosen))


def peak_emergence(
    table: pd.DataFrame, *, resolution: float = DEFAULT_RESOLUTION, estimator: str | None = None
) -> pd.DataFrame:
    """Summarise an emergence table: E(l) at its highest block.

    Args:
        table: an emergence table of any number of models and corpora.
        resolution: the one to read, of estimators that have one.
        estimator: whose rows; None: the only one's, or of several `predictive`.

    Returns:
        One row per model x corpus, by corpus, family and size: model, corpus, corpus_hash, family, parameters,
        peak_layer, emergence_bits_std_error, emergence_bits.

    Raises:
        InputError: if the table has no row at `resolution`, or several estimators and none was named.

    >>> table = pd.DataFrame({"model": "m", "corpus": "c", "layer": [0, 1], "position": 8, "resolution": 0.18,
    ...                       "ie_bits": [0.2, 0.5]})
    >>> peak_emergence(EMERGENCE.conform(table))[["model", "peak_layer", "emergence_bits"]].values.tolist()
    [['m', 1, 0.5]]
    """
    known = sorted(complete(table)["estimator"].dropna().unique())
    chosen = estimator or (known[0] if len(known) == 1 else DEFAULT_ESTIMATOR)
    if known and chosen not in known:
        raise InputError(
            f"The emergence table holds {', '.join(known)}, not {chosen}; name one of them by `estimator`."
        )
    if len(known) > 1:
        table = table[table["estimator"] == chosen]
    found = peaks(emergence_by_block(table, resolution=resolution), resolution)
    return found[list(PEAK_COLUMNS)].sort_values(["corpus", "family", "parameters", "model"], ignore_index=True)
