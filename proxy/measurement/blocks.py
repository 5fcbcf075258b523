"""The rows of the emergence table that one block gives, by sample propagation or a trained estimator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from estimators import MIEstimate, estimate_many, plug_in_entropy
from estimators.information_emergence import macro_less_micro
from estimators.positions import Queries, Symbols, WindowEmergence, choose_queries, window_emergence
from extraction import States, Windows
from extraction.states.budget import StateBudget
from proxy.measurement.costs import LEVEL, PAIR, plan_reading
from proxy.measurement.documents import FEW_DOCUMENTS, error_clusters, few_documents


def emergence_of_block(
    states: States,
    windows: Windows,
    block: int,
    queries: Queries,
    *,
    resolutions: Sequence[float],
    seed: int,
    device: torch.device,
    positions: Iterable[int] | None = None,
) -> Iterator[list[WindowEmergence]]:
    """Yield the emergence of what leaves a block, position by position, one value per resolution.

    Sample propagation runs on `device`. See `estimators.positions.window_emergence`.
    """
    _, token_of = windows.distinct_tokens()  # (N, T)
    alone = states.micro_leaving(block).to(device)  # (V, k)

    def tokens_at(position: int) -> Symbols:
        present, row = np.unique(token_of[:, position - 1], return_inverse=True)
        return Symbols(alone[torch.from_numpy(present).to(device)], row)

    def beginnings(position: int) -> Symbols:
        rows, prefix_of, _ = windows.prefixes(position)
        return Symbols(states.leaving(block, position)[torch.from_numpy(rows)].to(device), prefix_of)

    yield from window_emergence(
        (tokens_at(position) for position in range(1, states.positions + 1)),
        beginnings,
        windows.weights,
        queries,
        resolutions=resolutions,
        scale=states.scale(block),
        seed=(seed, block),
        positions=positions,
    )


@dataclass(frozen=True, slots=True)
class PropagationPlan:
    """What sample propagation reads of a model's states.

    Attributes:
        resolutions: noise levels relative to the RMS norm of the layer's states.
        queries: windows whose information is read, at most.
        positions: those that are read, from 1, ascending; the last is that of E.
    """

    resolutions: tuple[float, ...]
    queries: int
    positions: tuple[int, ...]


def plan_propagation(
    windows: Windows, *, blocks: int, features: int, resolutions: Sequence[float], queries: int, full: bool
) -> PropagationPlan:
    """Choose what is read of states: every position of at most `queries` windows, less where that is too expensive.

    >>> tokens = np.arange(16_000).reshape(2000, 8)
    >>> windows = Windows("mine", "text", tokens, np.ones(2000))
    >>> from functools import partial
    >>> plan = partial(plan_propagation, windows, features=256, resolutions=[0.18], queries=4000)
    >>> plan(blocks=30, full=False).positions, plan(blocks=150, full=False).positions
    ((1, 2, 3, 4, 5, 6, 7, 8), (1, 4, 8))
    """
    count, length = windows.tokens.shape
    alone = sum(len(np.unique(column)) for column in windows.tokens.T)
    each = 4.0 * features + PAIR + LEVEL * len(resolutions)  # both products, and what follows

    def cost(positions: tuple[int, ...], read: int) -> float:
        return float(blocks * read * (count * sum(t > 1 for t in positions) + alone) * each)

    positions, read, _ = plan_reading(cost, length, min(count, queries), full=full)
    return PropagationPlan(tuple(resolutions), read, positions)


def propagated_block(
    states: States,
    windows: Windows,
    block: int,
    plan: PropagationPlan,
    *,
    seed: int,
    device: torch.device,
    last: Callable[[pd.DataFrame], None] | None = None,
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position of `plan`, a row per resolution, by sample propagation on the model's own `device`.

    `last` is given the emergence of every window read at the last position (`proxy.schemas.WINDOWS`).
    """
    documents = error_clusters(windows)
    chosen = queries_of(windows, plan.queries, seed)
    same: dict[str, Any] = {
        "windows_read": len(np.unique(chosen.rows)),
        "documents": pd.NA if documents is None else len(np.unique(documents)),
    }
    flags = (FEW_DOCUMENTS,) if few_documents(windows, documents) else ()
    started = time.perf_counter()
    found = emergence_of_block(
        states,
        windows,
        block,
        chosen,
        resolutions=plan.resolutions,
        seed=seed,
        device=device,
        positions=plan.positions,
    )
    for values in found:
        seconds = time.perf_counter() - started
        if values[0].position == states.positions and last is not None:
            last(pd.concat([_of_windows(block, one, chosen, documents) for one in values], ignore_index=True))
        yield pd.DataFrame([_row(block, one, flags) for one in values]).assign(seconds=seconds, **same)
        started = time.perf_counter()


def queries_of(windows: Windows, most: int | None, seed: int) -> Queries:
    """Choose at most so many windows to evaluate; errors are taken over documents where there are enough."""
    return choose_queries(windows.weights, most, seed, error_clusters(windows))


def _row(block: int, one: WindowEmergence, flags: tuple[str, ...]) -> dict[str, Any]:
    return {
        "layer": block,
        "position": one.position,
        "resolution": one.resolution,
        "macro_bits": one.value.macro_bits,
        "micro_bits": one.value.micro_bits,
        "ie_bits": one.value.ie_bits,
        "ie_std_error": one.value.std_error,
        "ie_sample_std": one.value.sample_std,
        "macro_ceiling_bits": one.macro_ceiling_bits,
        "micro_ceiling_bits": one.micro_ceiling_bits,
        "flags": ",".join([*flags, *one.flags]),
    }


def _of_windows(block: int, one: WindowEmergence, chosen: Queries, documents: np.ndarray | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": block,
            "resolution": one.resolution,
            "window": chosen.rows,
            "share": chosen.share,
            "ie_bits": one.value.pointwise_bits.numpy().astype(np.float32),
            "document": pd.NA if documents is None else documents[chosen.rows],
        }
    )


def trained_block(
    states: States,
    windows: Windows,
    block: int,
    estimator: str,
    options: Mapping[str, Any],
    seed: int,
    budget: StateBudget,
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position, a single row each; problems that fit into `budget` are trained together."""
    started = time.perf_counter()
    positions = range(1, states.positions + 1)
    repeated = torch.from_numpy(np.repeat(np.arange(len(windows.weights)), windows.weights.astype(np.int64)))
    _, token_of = windows.distinct_tokens()
    tokens = torch.from_numpy(token_of)[repeated]
    entering, leaving = states.micro_entering(block), states.micro_leaving(block)
    present = [torch.from_numpy(np.unique(token_of[:, t - 1])) for t in positions]
    varied = [bool((leaving[ids] != leaving[ids[0]]).any()) for ids in present]  # a constant token carries 0 bits

    def pair(t: int, *, alone: bool) -> tuple[torch.Tensor, torch.Tensor]:
        if alone:
            return entering[tokens[:, t - 1]], leaving[tokens[:, t - 1]]
        return states.entering(block, t)[repeated], states.leaving(block, t)[repeated]

    asked = [(t, False) for t in positions] + [(t, True) for t, varies in zip(positions, varied, strict=True) if varies]
    size = 8 * len(repeated) * states.features  # bytes of a pair
    together = max(1, budget.bytes // size)
    found: list[MIEstimate] = []
    for first in range(0, len(asked), together):
        problems = [pair(t, alone=alone) for t, alone in asked[first : first + together]]
        # A trained method has no resolutions: one estimate a problem.
        found += cast("list[MIEstimate]", estimate_many(problems, method=estimator, seed=seed, **options))
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
        alone = np.array([0.0 if m is None else m.bits for m in micro[:t]])
        micro_bits, ie_bits = map(float, macro_less_micro(np.array(one.bits), alone))
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
                    "ie_bits": ie_bits,
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
