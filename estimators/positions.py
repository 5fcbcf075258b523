"""Information emergence of windows by sample propagation, position by position: the one computation of IE on arrays.

IE(t) = MI_macro(t) - (1/t) sum_{s<=t} MI_micro(s)   (arXiv 2405.12617, eq. 4 and 5)

The macro variable is the beginning x_1 ... x_t of a window and the state it leaves, the micro variables are its tokens
x_1, ..., x_t, each run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from estimators.base import InputError, MIEstimate
from estimators.entropy import plug_in_entropy
from estimators.information_emergence import Emergence, emergence
from estimators.propagation import sample_propagation

MOST_DRAWS = 256  # of noise for one row


@dataclass(frozen=True, slots=True)
class Symbols:
    """A discrete variable that every window shows, and the states that are a function of it.

    Attributes:
        states: (u, k) one state per distinct symbol.
        of_window: (n,) int64, the row of `states` that each window shows; every row is shown by some window.
    """

    states: torch.Tensor
    of_window: np.ndarray


@dataclass(frozen=True, slots=True)
class Queries:
    """The windows whose information is evaluated; every window is still a reference.

    Attributes:
        rows: (q,) int64, rows of the windows.
        share: (q,) float64, what each counts in a mean; they sum to 1.
        sampled: whether the rows are a sample of the windows, by weight.
        clusters: (q,) over what errors are taken: the document of each, or its window, which a sample may hold twice.
    """

    rows: np.ndarray
    share: np.ndarray
    sampled: bool
    clusters: np.ndarray


@dataclass(frozen=True, slots=True)
class WindowEmergence:
    """Information emergence of windows at one position and resolution.

    Attributes:
        position: t, from 1.
        resolution: noise level relative to `scale`.
        value: emergence, macro and micro information in bits. Where the queries are a sample, the known entropies
            replace their sample means, so that no mean passes its ceiling.
        macro_ceiling_bits: entropy of the beginnings of t tokens.
        micro_ceiling_bits: mean entropy of the tokens at positions 1 ... t.
        flags: of the macro estimate, see `MIEstimate`.
        pointwise_macro_bits: (q,) float64 macro information of each query; less `value.pointwise_bits`, the micro one.
    """

    position: int
    resolution: float
    value: Emergence
    macro_ceiling_bits: float
    micro_ceiling_bits: float
    flags: tuple[str, ...]
    pointwise_macro_bits: torch.Tensor = field(repr=False, compare=False)


def choose_queries(weights: np.ndarray, most: int | None, seed: int, documents: np.ndarray | None = None) -> Queries:
    """Choose the windows to evaluate: all of them, or `most` sampled by their weights (n,) with replacement.

    `documents` (n,) says which document each window is from: errors are then taken over documents, else over windows.

    >>> choose_queries(np.array([1.0, 3.0]), None, seed=0).share
    array([0.25, 0.75])
    """
    p = weights / weights.sum()
    if most is None or most >= len(weights):
        rows = np.arange(len(weights))
        return Queries(rows, p, sampled=False, clusters=rows if documents is None else documents)
    rows = np.random.default_rng([seed, 1]).choice(len(weights), size=most, p=p)
    clusters = rows if documents is None else documents[rows]
    return Queries(rows, np.full(most, 1 / most), sampled=True, clusters=clusters)


def window_emergence(
    micro: Iterable[Symbols],
    macro: Callable[[int], Symbols],
    weights: np.ndarray,
    queries: Queries,
    *,
    resolutions: Sequence[float],
    scale: float,
    seed: Sequence[int],
    positions: Iterable[int] | None = None,
) -> Iterator[list[WindowEmergence]]:
    """Yield the information emergence at one position after another, one value per resolution.

    Macro and each micro variable see noise of their own, so that their errors are independent. Where few symbols are
    shared by many windows, each has more noise draws, up to 256: the windows then share its Monte-Carlo error,
    which `Emergence.std_error` includes.

    Args:
        micro: of every position s = 1 ... T, the tokens there, each run alone.
        macro: gives, for a position t from 2 on, the beginnings x_1 ... x_t of the windows. The first token of a window
            has been run alone already: at t = 1 macro and micro are one variable.
        weights: (n,) how often each window counts.
        queries: from `choose_queries`.
        resolutions: noise levels relative to `scale`.
        scale: RMS norm that all variables are read against; see `sample_propagation`.
        seed: non-negative integers that, with position and variable, seed the noise.
        positions: those to yield; None for every one.

    Raises:
        InputError: if the states cannot be used; see `sample_propagation`.

    >>> tokens = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # (n=4, T=2)
    >>> alone = torch.tensor([[0.0], [1.0]])  # (V=2, k=1) each token run alone
    >>> both = torch.tensor([[0.0], [1.0], [1.0], [0.0]])  # (n=4, k=1): the network computes XOR
    >>> found = window_emergence(
    ...     [Symbols(alone, tokens[:, 0]), Symbols(0 * alone, tokens[:, 1])],  # the second token leaves no trace
    ...     lambda t: Symbols(both, np.arange(4)),
    ...     np.ones(4), choose_queries(np.ones(4), None, seed=0), resolutions=[0.01], scale=1.0, seed=[0])
    >>> [round(one.value.ie_bits, 3) for at_position in found for one in at_position]  # 1 - 1, then 1 - (1 + 0) / 2
    [0.0, 0.5]
    """
    wanted = None if positions is None else set(positions)
    micro_bits: list[torch.Tensor] = []  # per position: (r, q)
    ceilings: list[float] = []  # per position, bits
    shifts: list[float] = []  # per position, bits
    variances: list[np.ndarray] = []  # per position: (r,) Monte-Carlo variance that the spread over queries lacks
    for position, tokens in enumerate(micro, start=1):
        alone = sample_propagation(
            tokens.states,  # (V, k)
            _total(tokens, weights),  # (V,)
            resolutions=resolutions,
            scale=scale,
            draws=_draws(len(queries.rows), len(tokens.states)),
            seed=_stream(seed, position, 0),
        )
        variances.append(_variance(alone, tokens.of_window[queries.rows], queries.share))  # (r,)
        micro_bits.append(_pointwise(alone, tokens.of_window[queries.rows]))  # (r, q)
        ceilings.append(plug_in_entropy(_total(tokens, weights)))
        shifts.append(_entropy_beyond_sample(tokens, weights, queries))
        if wanted is not None and position not in wanted:
            continue
        if position == 1:
            whole, beginnings = alone, tokens
            macro_bits = micro_bits[0]  # (r, q)
            shared = np.zeros(len(whole))
        else:
            beginnings = macro(position)
            asked, place = np.unique(beginnings.of_window[queries.rows], return_inverse=True)  # (a,), (q,)
            whole = sample_propagation(
                beginnings.states,  # (P, k)
                _total(beginnings, weights),  # (P,)
                resolutions=resolutions,
                scale=scale,
                queries=torch.from_numpy(asked),
                draws=_draws(len(queries.rows), len(asked)),
                seed=_stream(seed, position, 1),
            )
            macro_bits = _pointwise(whole, place)  # (r, q)
            shared = _variance(whole, place, queries.share) + np.array(variances).sum(axis=0) / position**2  # (r,)
        macro_shift = _entropy_beyond_sample(beginnings, weights, queries)
        micro_shift = float(np.mean(shifts))
        over = None if queries.sampled else torch.from_numpy(weights)
        micro_each = torch.stack(micro_bits, dim=2)  # (r, q, t)
        found = []
        for index, one in enumerate(whole):
            value = emergence(
                macro_bits[index],
                micro_each[index],
                over,
                shared_variance=float(shared[index]),
                clusters=queries.clusters,
            )
            found.append(
                WindowEmergence(
                    position=position,
                    resolution=float(resolutions[index]),
                    value=replace(
                        value,
                        macro_bits=value.macro_bits + macro_shift,
                        micro_bits=value.micro_bits + micro_shift,
                        ie_bits=value.ie_bits + macro_shift - micro_shift,
                    ),
                    macro_ceiling_bits=plug_in_entropy(_total(beginnings, weights)),
                    micro_ceiling_bits=float(np.mean(ceilings)),
                    flags=one.flags,
                    pointwise_macro_bits=macro_bits[index].double(),
                )
            )
        yield found


def _total(symbols: Symbols, weights: np.ndarray) -> torch.Tensor:
    """Return how much the windows of each symbol weigh, (u,) float64."""
    return torch.from_numpy(np.bincount(symbols.of_window, weights=weights))


def _draws(windows: int, rows: int) -> int:
    """Return how often to draw the noise of each of `rows` that so many windows share.

    About as often as there are windows to a row, so that a few tokens are known as well as many windows are. At a
    single draw up to a quarter of the windows share a row, and the noise' part of the variance is short by as much.
    """
    return min(MOST_DRAWS, max(2, round(windows / rows))) if windows > 1.25 * rows else 1


def _stream(seed: Sequence[int], position: int, variable: int) -> int:
    """Return a seed of its own for each variable (0: micro, 1: macro), so that their errors are independent."""
    return int(np.random.SeedSequence([*seed, position, variable]).generate_state(1)[0])


def _variance(estimates: Sequence[MIEstimate], row: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return (r,) the Monte-Carlo variance of a mean beyond what the spread of its values shows.

    Queries of one row share its error: their mean has (sum p_i)^2 times its variance, their spread only sum p_i^2.

    Args:
        estimates: one per resolution, with the variance of each row.
        row: (q,) the row that each query shows.
        share: (q,) p_i of each query.
    """
    together = np.bincount(row, share) ** 2 - np.bincount(row, share**2)  # (u,) up to the last row shown
    factor = torch.from_numpy(together)
    return np.array(
        [
            0.0 if one.pointwise_variance is None else float(factor @ one.pointwise_variance[: len(factor)])
            for one in estimates
        ]
    )


def _entropy_beyond_sample(symbols: Symbols, weights: np.ndarray, queries: Queries) -> float:
    """Return the entropy of the symbols less its mean over the queries, in bits; 0 where these are all windows."""
    if not queries.sampled:
        return 0.0
    p = np.bincount(symbols.of_window, weights=weights) / weights.sum()  # (u,)
    surprise = -np.log2(p[symbols.of_window])  # (n,)
    return float((weights / weights.sum()) @ surprise - surprise[queries.rows].mean())


def _pointwise(estimates: Sequence[MIEstimate], rows: np.ndarray) -> torch.Tensor:
    """Gather the pointwise bits of every resolution at `rows` (q,): (r, q)."""
    found = [one.pointwise_bits for one in estimates]
    if any(bits is None for bits in found):
        raise InputError("The estimates have no pointwise values, so no paired emergence; use another estimator.")
    return torch.stack([bits for bits in found if bits is not None])[:, torch.from_numpy(rows)]
