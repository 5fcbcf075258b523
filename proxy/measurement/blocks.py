"""The rows of the emergence table that one block gives, by sample propagation or a trained estimator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from estimators import MIEstimate, emergence, estimate_many, plug_in_entropy, sample_propagation
from estimators.base import InputError
from extraction import States, Windows

MOST_DRAWS = 256  # of noise for one row


def propagated_block(
    states: States,
    windows: Windows,
    block: int,
    resolutions: Sequence[float],
    queries: int,
    seed: int,
    device: torch.device,
    last: Callable[[pd.DataFrame], None] | None = None,
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position, a row per resolution, by sample propagation on the model's own `device`.

    `last` is given the emergence of every window read at the last position (`proxy.schemas.WINDOWS`).
    """
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
    micro_noises: list[list[float]] = []  # per position, of each resolution: Monte-Carlo variance of the mean
    share = np.full(len(chosen), 1 / len(chosen)) if chosen_weights is None else windows.weights / windows.weights.sum()
    for position in range(1, states.positions + 1):
        started = time.perf_counter()
        present, token_row = np.unique(token_of[:, position - 1], return_inverse=True)
        micro = sample_propagation(
            micro_states[torch.from_numpy(present).to(device)],
            _grouped(token_row, windows.weights),
            resolutions=resolutions,
            scale=scale,
            draws=_draws(len(chosen), len(present)),
            seed=_stream(seed, block, position, 0),
        )
        micro_noises.append(_noise(micro, np.bincount(token_row[chosen], share, len(present))))
        micro_columns.append(_at(micro, token_row[chosen]))
        micro_ceilings.append(plug_in_entropy(_grouped(token_row, windows.weights)))
        micro_shifts.append(_entropy_beyond_sample(token_row, windows.weights, chosen))

        rows, prefix_of, weights = windows.prefixes(position)
        if position == 1:  # the first token has been run alone: macro and micro are one variable
            macro, place = micro, token_row[chosen]
            shared = [0.0] * len(macro)
        else:
            asked, place = np.unique(prefix_of[chosen], return_inverse=True)
            macro = sample_propagation(
                states.leaving(block, position)[torch.from_numpy(rows)].to(device),
                torch.from_numpy(weights),
                resolutions=resolutions,
                scale=scale,
                queries=torch.from_numpy(asked),
                draws=_draws(len(chosen), len(asked)),
                seed=_stream(seed, block, position, 1),
            )
            noises = np.array([_noise(macro, np.bincount(place, share)), *micro_noises])
            shared = noises[0] + noises[1:].sum(axis=0) / position**2
        macro_pointwise = _at(macro, place)
        # Of queries that are a sample, the known entropy replaces its sample mean: no mean passes its ceiling.
        macro_shift = _entropy_beyond_sample(prefix_of, windows.weights, chosen) if chosen_weights is None else 0.0
        micro_shift = float(np.mean(micro_shifts)) if chosen_weights is None else 0.0
        seconds = time.perf_counter() - started
        records = []
        of_windows = []
        for index, one in enumerate(macro):
            value = emergence(
                macro_pointwise[index],
                torch.stack([column[index] for column in micro_columns], dim=1),
                chosen_weights,
                shared_variance=float(shared[index]),
            )
            if position == states.positions and last is not None:
                of_windows.append(
                    pd.DataFrame(
                        {
                            "layer": block,
                            "resolution": one.resolution,
                            "window": chosen,
                            "share": share,
                            "ie_bits": value.pointwise_bits.numpy().astype(np.float32),
                        }
                    )
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
        if of_windows and last is not None:
            last(pd.concat(of_windows, ignore_index=True))
        yield pd.DataFrame(records)


def _draws(windows: int, rows: int) -> int:
    """Return how often to draw the noise of each of `rows` that so many windows share.

    About as often as there are windows to a row, so that a few tokens are known as well as many windows are. At a
    single draw up to a quarter of the windows share a row, and the noise' part of the variance is short by as much.
    """
    return min(MOST_DRAWS, max(2, round(windows / rows))) if windows > 1.25 * rows else 1


def _stream(seed: int, block: int, position: int, variable: int) -> int:
    """Return a seed of its own for each variable (0: micro, 1: macro), so that their errors are independent."""
    return int(np.random.SeedSequence([seed, block, position, variable]).generate_state(1)[0])


def _noise(estimates: Sequence[MIEstimate], share: np.ndarray) -> list[float]:
    """Return, per resolution, the Monte-Carlo variance of the mean of pointwise bits whose rows have these shares."""
    squares = torch.from_numpy(share**2)
    return [0.0 if one.pointwise_variance is None else float(squares @ one.pointwise_variance) for one in estimates]


def trained_block(
    states: States,
    windows: Windows,
    block: int,
    estimator: str,
    options: Mapping[str, Any],
    seed: int,
    memory_gb: float,
) -> Iterable[pd.DataFrame]:
    """Yield one frame per position, a single row each; problems that fit into `memory_gb` are trained together."""
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
    together = max(1, int(memory_gb * 1e9) // size)
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
