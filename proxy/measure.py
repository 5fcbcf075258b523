"""One model on one corpus: states to mutual information to the emergence table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from estimators import (
    DEFAULT_RESOLUTION,
    DEFAULT_RESOLUTIONS,
    MIEstimate,
    emergence,
    estimate_many,
    plug_in_entropy,
    sample_propagation,
)
from estimators import estimator as known_estimator
from estimators.base import InputError, Progress
from extraction import LanguageModel, States, Windows, extract
from proxy.schemas import EMERGENCE

PEAK_COLUMNS = (
    "model",
    "corpus",
    "family",
    "parameters",
    "emergence_bits",
    "emergence_bits_std_error",
    "peak_layer",
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
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure macro, micro and emergence of every block at every position, in bits.

    IE(l, t) = MI_macro(l, t) - (1/t) sum_{s<=t} MI_micro(l, s)   (arXiv 2405.12617, eq. 4 and 5).

    Args:
        model: the language model.
        windows: N distinct windows of T tokens with their counts.
        estimator: `sample-propagation`, or a trained one (`mine`, `infonce`, ...), which has no resolution.
        options: of a trained estimator, e.g. ``{"preset": "paper", "epochs": 200}``.
        resolutions: noise levels relative to the RMS norm of the layer's states; the whole curve is kept.
        queries: windows drawn (by their weight, seeded) to read the information of; all when N is not larger.
        project: dimensions that states are projected to when the model is wider.
        seed: governs projection, query sample and noise.
        progress: told of every finished block and position.

    Returns:
        The emergence table (`proxy.schemas.EMERGENCE`), one row per block x position x resolution.

    Raises:
        InputError: if an argument or the windows cannot be used.
    """
    trained = estimator != "sample-propagation"
    if trained:
        known_estimator(estimator, **(options or {}))  # a wrong name is said before any work
    with extract(model, windows, project=project, entering=trained, behaviour=False, seed=seed) as states:
        total = states.blocks * states.positions
        parts: list[pd.DataFrame] = []
        for block in range(states.blocks):
            rows = (
                _trained_block(states, windows, block, estimator, options or {}, seed)
                if trained
                else _propagated_block(states, windows, block, resolutions, queries, seed, model.device)
            )
            for row in rows:
                parts.append(row)
                if progress is not None:
                    progress(len(parts), total)
    table = pd.concat(parts, ignore_index=True)
    return EMERGENCE.conform(
        table.assign(
            model=model.name,
            revision=model.revision,
            family=model.family,
            parameters=model.parameters,
            corpus=windows.corpus,
            corpus_hash=windows.hash,
            estimator=estimator,
            windows=int(windows.weights.sum()),
            seed=seed,
        )
    )


def _propagated_block(
    states: States,
    windows: Windows,
    block: int,
    resolutions: Sequence[float],
    queries: int,
    seed: int,
    device: torch.device,
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position, a row per resolution, by sample propagation on the model's own `device`."""
    rng = np.random.default_rng([seed, 1])
    count = len(windows.weights)
    if queries < count:  # drawn by weight, so that each counts the same
        chosen = rng.choice(count, size=queries, p=windows.weights / windows.weights.sum())
        chosen_weights = None
    else:
        chosen = np.arange(count)
        chosen_weights = torch.from_numpy(windows.weights)
    scale = states.scale(block)
    _, token_of = windows.distinct_tokens()
    micro_states = states.micro_leaving(block).to(device)
    micro_columns: list[torch.Tensor] = []  # per position: (resolutions, q) pointwise bits
    micro_ceilings: list[float] = []
    micro_shifts: list[float] = []
    for position in range(1, states.positions + 1):
        started = time.perf_counter()
        present, token_row = np.unique(token_of[:, position - 1], return_inverse=True)
        micro = sample_propagation(
            micro_states[torch.from_numpy(present).to(device)],
            _grouped(token_row, windows.weights),
            resolutions=resolutions,
            scale=scale,
            seed=seed,
        )
        micro_columns.append(_at(micro, token_row[chosen]))
        micro_ceilings.append(plug_in_entropy(_grouped(token_row, windows.weights)))
        micro_shifts.append(_entropy_beyond_sample(token_row, windows.weights, chosen))

        rows, prefix_of, weights = windows.prefixes(position)
        asked, place = np.unique(prefix_of[chosen], return_inverse=True)
        macro = sample_propagation(
            states.leaving(block, position)[torch.from_numpy(rows)].to(device),
            torch.from_numpy(weights),
            resolutions=resolutions,
            scale=scale,
            queries=torch.from_numpy(asked),
            seed=seed,
        )
        macro_pointwise = _at(macro, place)
        # Of queries that are a sample, the known entropy replaces its sample mean: no mean passes its ceiling.
        macro_shift = _entropy_beyond_sample(prefix_of, windows.weights, chosen) if chosen_weights is None else 0.0
        micro_shift = float(np.mean(micro_shifts)) if chosen_weights is None else 0.0
        seconds = time.perf_counter() - started
        records = []
        for index, one in enumerate(macro):
            value = emergence(
                macro_pointwise[index],
                torch.stack([column[index] for column in micro_columns], dim=1),
                chosen_weights,
            )
            records.append(
                {
                    "layer": block,
                    "position": position,
                    "resolution": one.resolution,
                    "macro_bits": value.macro_bits + macro_shift,
                    "micro_bits": value.micro_bits + micro_shift,
                    "ie_bits": value.ie_bits + macro_shift - micro_shift,
                    "ie_std_error": value.std_error,
                    "ie_sample_std": value.sample_std,
                    "macro_ceiling_bits": one.ceiling_bits,
                    "micro_ceiling_bits": float(np.mean(micro_ceilings)),
                    "flags": ",".join(one.flags),
                    "seconds": seconds,
                }
            )
        yield pd.DataFrame(records)


def _trained_block(
    states: States, windows: Windows, block: int, estimator: str, options: Mapping[str, Any], seed: int
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position, a single row each, all problems of the block trained together."""
    started = time.perf_counter()
    positions = range(1, states.positions + 1)
    repeated = torch.from_numpy(np.repeat(np.arange(len(windows.weights)), windows.weights.astype(np.int64)))
    _, token_of = windows.distinct_tokens()
    tokens = torch.from_numpy(token_of)[repeated]
    entering, leaving = states.micro_entering(block), states.micro_leaving(block)
    macro_pairs = [(states.entering(block, t)[repeated], states.leaving(block, t)[repeated]) for t in positions]
    micro_pairs = [(entering[tokens[:, t - 1]], leaving[tokens[:, t - 1]]) for t in positions]
    varied = [bool((pair[1] != pair[1][0]).any()) for pair in micro_pairs]  # a constant token carries 0 bits
    problems = macro_pairs + [pair for pair, varies in zip(micro_pairs, varied, strict=True) if varies]
    # A trained method has no resolutions: one estimate a problem.
    found = cast("list[MIEstimate]", estimate_many(problems, method=estimator, seed=seed, **options))
    estimates = iter(found)
    macro = [next(estimates) for _ in positions]
    micro = [next(estimates) if varies else None for varies in varied]
    seconds = (time.perf_counter() - started) / len(macro)
    ceilings = []
    for t in positions:
        _, row = np.unique(token_of[:, t - 1], return_inverse=True)
        ceilings.append(plug_in_entropy(_grouped(row, windows.weights)))
    for t in positions:
        one = macro[t - 1]
        micro_bits = float(np.mean([0.0 if m is None else m.bits for m in micro[:t]]))
        errors = [one.std_error] + [None if m is None else m.std_error for m in micro[:t]]
        # Independent trainings: variances add, the t micro terms with weight 1/t.
        known = [e for e in errors[1:] if e is not None]
        error = None if errors[0] is None else float(np.sqrt(errors[0] ** 2 + sum(e**2 for e in known) / t**2))
        _, _, weights = windows.prefixes(t)
        ceiling = plug_in_entropy(torch.from_numpy(weights))
        flags = set(one.flags) | ({"above-ceiling"} if one.bits > ceiling else set())
        yield pd.DataFrame(
            [
                {
                    "layer": block,
                    "position": t,
                    "resolution": None,
                    "macro_bits": one.bits,
                    "micro_bits": micro_bits,
                    "ie_bits": one.bits - micro_bits,
                    "ie_std_error": error,
                    "ie_sample_std": None,
                    "macro_ceiling_bits": ceiling,
                    "micro_ceiling_bits": float(np.mean(ceilings[:t])),
                    "flags": ",".join(sorted(flags)),
                    "seconds": seconds,
                }
            ]
        )


def _grouped(group: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """Sum `weights` (n,) over equal entries of `group` (n,), as a float64 tensor."""
    return torch.from_numpy(np.bincount(group, weights=weights))


def _entropy_beyond_sample(group: np.ndarray, weights: np.ndarray, chosen: np.ndarray) -> float:
    """Return the entropy of `group` (n,) under `weights` less the mean of -log2 p over the `chosen` rows, in bits."""
    p = np.bincount(group, weights=weights) / weights.sum()
    surprise = -np.log2(p[group])
    return float((weights / weights.sum()) @ surprise - surprise[chosen].mean())


def _at(estimates: Sequence[MIEstimate], rows: np.ndarray) -> torch.Tensor:
    """Gather pointwise bits of every resolution at `rows`: (resolutions, len(rows))."""
    index = torch.from_numpy(rows)
    columns = []
    for one in estimates:
        if one.pointwise_bits is None:
            raise InputError(f"{one.method} gives no pointwise values, so no paired emergence; use another estimator.")
        columns.append(one.pointwise_bits[index])
    return torch.stack(columns)


def emergence_by_block(table: pd.DataFrame, *, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Return the rows of an emergence table that hold E(l) = IE(l, T): last position, one resolution.

    Args:
        table: an emergence table of any number of models and corpora.
        resolution: the one to read; rows without resolution (trained estimators) are taken as they are.

    Raises:
        InputError: if the table has no row at `resolution`.
    """
    table = table.reset_index(drop=True)  # tables that were put together may repeat their labels
    chosen = table[table["resolution"].isna() | np.isclose(table["resolution"].astype(float), resolution)]
    if chosen.empty:
        known = ", ".join(f"{value:g}" for value in sorted(table["resolution"].dropna().unique()))
        raise InputError(f"The emergence table has no resolution {resolution:g}; it holds {known or 'no rows'}.")
    return chosen[chosen["position"] == chosen.groupby(["model", "corpus"])["position"].transform("max")]


def peak_emergence(table: pd.DataFrame, *, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Summarise an emergence table: E(l) at its highest block.

    Returns:
        One row per model x corpus, by corpus, family and size: model, corpus, family, parameters, emergence_bits,
        emergence_bits_std_error, peak_layer.

    Raises:
        InputError: if the table has no row at `resolution`.
    """
    by_block = emergence_by_block(table, resolution=resolution)
    peak = by_block.loc[by_block.groupby(["model", "corpus"])["ie_bits"].idxmax()]
    return peak.assign(
        emergence_bits=peak["ie_bits"],
        emergence_bits_std_error=peak["ie_std_error"],
        peak_layer=peak["layer"],
    )[list(PEAK_COLUMNS)].sort_values(["corpus", "family", "parameters", "model"], ignore_index=True)
