"""What is known of next-token distributions: the k most probable tokens of each, or counts of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from estimators.base import InputError

ABSENT = -1  # no symbol
ABSENT_LOGPROB = -9999.0  # what some APIs write for a token they do not show
MOST_MASS = 1.001  # shown probabilities that add up to more are none; servers round
ALL_SHOWN = 1e-6  # residual below which all of the mass is shown
MOST_IMPOSSIBLE = 0.05  # share of contexts with impossible masses that a measurement tolerates: left out and flagged
MOST_RENORMALISED = 0.5  # share of contexts that may show all of their mass


@dataclass(frozen=True, eq=False)
class Shown:
    """What is known of C next-token distributions.

    Attributes:
        symbols: (C, k) int64, each row's shown tokens, all different; `ABSENT` where a row shows fewer.
        shares: (C, k) float64, their probabilities, or shares of `samples` draws; 0 where absent.
        samples: draws per context, (C,); None: `shares` are probabilities.
    """

    symbols: np.ndarray
    shares: np.ndarray
    samples: np.ndarray | None = None

    @property
    def residual(self) -> np.ndarray:
        """(C,) probability that is not shown."""
        rest: np.ndarray = np.clip(1.0 - self.shares.sum(axis=1), 0.0, None)
        return rest

    def take(self, rows: np.ndarray) -> Shown:
        """Return the contexts of these rows."""
        return Shown(self.symbols[rows], self.shares[rows], None if self.samples is None else self.samples[rows])

    def top(self, k: int) -> Shown:
        """Return the `k` most probable symbols of each row."""
        order = np.argsort(-self.shares, axis=1, kind="stable")[:, :k]
        return replace(
            self,
            symbols=np.take_along_axis(self.symbols, order, axis=1),
            shares=np.take_along_axis(self.shares, order, axis=1),
        )


def shown_probabilities(rows: Sequence[Sequence[tuple[int, float]]], k: int) -> Shown:
    """Gather the `k` most probable symbols of every context from (symbol, natural log probability) pairs.

    Two tokens with one symbol, such as two ids of one string, are one: their probabilities add up. What is
    -9999 or less is not shown.

    Raises:
        InputError: if a log probability is not a number.

    >>> shown = shown_probabilities([[(7, math.log(0.5)), (7, math.log(0.25)), (1, -9999.0)]], k=2)
    >>> shown.symbols.tolist(), shown.shares.round(3).tolist()
    ([[7, -1]], [[0.75, 0.0]])
    """
    symbols = np.full((len(rows), k), ABSENT, np.int64)
    shares = np.zeros((len(rows), k))
    for place, row in enumerate(rows):
        merged: dict[int, float] = {}
        for symbol, logprob in row:
            if math.isnan(logprob):
                raise InputError(f"Log probabilities must be numbers; context {place} has NaN for symbol {symbol}.")
            if logprob > ABSENT_LOGPROB:
                merged[symbol] = merged.get(symbol, 0.0) + math.exp(min(logprob, 700.0))
        best = sorted(merged.items(), key=lambda pair: -pair[1])[:k]
        for column, (symbol, share) in enumerate(best):
            symbols[place, column], shares[place, column] = symbol, share
    return Shown(symbols, shares)


def shown_samples(rows: Sequence[Sequence[int]]) -> Shown:
    """Gather the draws of every context into shares.

    Raises:
        InputError: if a context has none.

    >>> shown_samples([[3, 3, 5]]).shares.round(2).tolist()
    [[0.67, 0.33]]
    """
    if not rows or min(map(len, rows)) < 1:
        raise InputError("Every context needs at least one sample of its next token; leave out those without.")
    k = max(len(set(row)) for row in rows)
    symbols = np.full((len(rows), k), ABSENT, np.int64)
    shares = np.zeros((len(rows), k))
    for place, row in enumerate(rows):
        values, counts = np.unique(np.asarray(row, np.int64), return_counts=True)
        symbols[place, : len(values)], shares[place, : len(values)] = values, counts / len(row)
    return Shown(symbols, shares, np.array([len(row) for row in rows], np.int64))


def mass_flags(shown: Shown) -> tuple[np.ndarray, tuple[str, ...]]:
    """Check that the shown masses are probabilities of whole distributions.

    The rule: contexts whose masses add up to more than 1.001 are left out, and more than 5 % of such refuse the
    measurement; if more than half of the contexts show all of their mass although they show only k symbols, the server
    has renormalised it to the shown ones, which is refused as well; above 5 % it is flagged.

    Returns:
        (C,) whether each context can be used, and flags: ``impossible-masses``, ``renormalised``.

    Raises:
        InputError: if too many of the masses cannot be what was asked for.
    """
    total = shown.shares.sum(axis=1)
    usable = (total <= MOST_MASS) & (total > 0)
    impossible = float(np.mean(~usable))
    if impossible > MOST_IMPOSSIBLE:
        raise InputError(
            f"The shown probabilities of {impossible:.0%} of the contexts add up to more than 1 or to 0, so they are "
            "not log probabilities; ask for samples instead."
        )
    flags = ["impossible-masses"] if impossible else []
    if shown.samples is None:
        full = float(np.mean(total[usable] > 1 - ALL_SHOWN))
        if full > MOST_RENORMALISED:
            raise InputError(
                f"{full:.0%} of the contexts show all of their probability in {shown.symbols.shape[1]} tokens: the "
                "server renormalises to what it shows (top_k or top_p), which hides the rest; turn that off, or "
                "ask for samples instead."
            )
        flags += ["renormalised"] if full > MOST_IMPOSSIBLE else []
    return usable, tuple(flags)


def entropy_interval(shown: Shown, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Rigorous bounds of each context's entropy in bits, from what is shown alone.

    With the residual r and the smallest shown p_k, no hidden token is likelier than p_k:
    -sum p log p + r log(1/p_k) <= H <= -sum p log p + r log((V - k) / r).

    Args:
        shown: probabilities.
        vocabulary: V, tokens the model knows.

    >>> low, high = entropy_interval(Shown(np.array([[0, 1]]), np.array([[0.5, 0.25]])), 4)
    >>> low.tolist(), high.tolist()
    ([1.5], [1.75])
    """
    known = entropy_terms(shown.shares).sum(axis=1)
    residual = shown.residual
    count = (shown.symbols != ABSENT).sum(axis=1)
    least = np.where(shown.symbols != ABSENT, shown.shares, np.inf).min(axis=1)
    hidden = np.maximum(vocabulary - count, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = known + np.where(residual > 0, residual * np.log2(1 / least), 0.0)
        high = known + np.where(residual > 0, residual * np.log2(hidden / residual), 0.0)
    return np.minimum(low, high), high


def entropy_terms(p: np.ndarray) -> np.ndarray:
    """Return -p log2 p, 0 at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms: np.ndarray = np.where(p > 0, -p * np.log2(np.where(p > 0, p, 1.0)), 0.0)
    return terms


def unigram_of(symbols: np.ndarray, vocabulary: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Distribution of the next tokens of the fitting windows, so smoothed that no token is impossible.

    (c + D / V) / (n + D), where D of the n tokens seen are different: every kind of token that turned up was new once,
    so the next one is new about as often (Witten and Bell 1991, method C, over a uniform distribution). A constant
    added to each token would grow with the vocabulary: .01 of 262,144 tokens outweighs 300 windows.

    Args:
        symbols: (N, t) that followed.
        vocabulary: number of symbols, V.
        weights: (N,) of the windows.

    Raises:
        InputError: if all of them are the same token, which leaves nothing to predict.

    >>> unigram_of(np.array([[0], [0], [1]]), 4).round(3).tolist()
    [0.5, 0.3, 0.1, 0.1]
    """
    w = np.ones(len(symbols)) if weights is None else np.asarray(weights, np.float64)
    times = np.broadcast_to(w[:, None], symbols.shape)
    counts: np.ndarray = np.bincount(symbols.ravel(), times.ravel(), vocabulary)  # (V,)
    different = np.count_nonzero(counts)
    if different < 2:
        raise InputError("Every next token is the same, so there is nothing to predict; give a more varied corpus.")
    found: np.ndarray = (counts + different / vocabulary) / (counts.sum() + different)
    return found
