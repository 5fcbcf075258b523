"""The information in what a model says next, from next-token distributions alone: no states and no weights.

A context (a window, or a token alone) has a distribution over the next token. `estimators.shown.Shown` holds what is
known of it: the k most probable tokens, or counts of samples. Three readings, all in bits:

- `shannon`: J = H(sum_i w_i p_i) - sum_i w_i H(p_i), the Jensen-Shannon information between context and next token,
  over k symbols and "other" (Lin 1991; at most the mutual information of context and last state).
- `order_two`: J2 = log2 of how much likelier two next tokens of one context agree than those of two contexts; from
  samples by collision counts, which are unbiased.
- `predictive`: bits that the shown probabilities save on the unigram distribution (V-information, Xu et al. 2020,
  arXiv 2002.10689).

`output_emergence` and `predictive_emergence` pair windows with lone tokens: macro less the mean micro over
positions, as in information emergence (arXiv 2405.12617, eq. 4 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from estimators.base import EmergenceError, InputError
from estimators.information_emergence import macro_less_micro
from estimators.predictive import calibrate, clustered_error, gain_bits
from estimators.shown import ABSENT, Shown, entropy_terms, unigram_of


@dataclass(frozen=True, eq=False)
class Information:
    """One information, and what it is with each window left out.

    Attributes:
        bits: the value.
        ceiling_bits: a provable upper bound of it.
        without: (N,) the value without window i, for the jackknife.
    """

    bits: float
    ceiling_bits: float
    without: np.ndarray


def shannon(shown: Shown, of_window: np.ndarray | None = None, weights: np.ndarray | None = None) -> Information:
    """Jensen-Shannon information J = H(sum w_i p_i) - sum w_i H(p_i) of contexts, over the shown symbols and "other".

    Each context's residual is one symbol "other" for all of them, so values of different k do not compare.

    Args:
        shown: C contexts, probabilities.
        of_window: (N,) context of each window, None: window i has context i; many windows share a lone token.
        weights: (N,) how often each window counts; None: alike.

    Raises:
        InputError: for samples (J from few samples is far too high: use `order_two`), or shapes that do not fit.

    >>> apart = Shown(np.array([[0], [1]]), np.ones((2, 1)))
    >>> shannon(apart).bits, shannon(apart).ceiling_bits
    (1.0, 1.0)
    """
    if shown.samples is not None:
        raise InputError("J needs probabilities; from samples it is far too high, so use order two.")
    of_window, w, v = _windows(shown, of_window, weights)
    symbols, p = _with_other(shown)  # (C, k+1)
    _, code = np.unique(symbols, return_inverse=True)
    code = code.reshape(symbols.shape)
    mixture = np.bincount(code.ravel(), (v[:, None] * p).ravel())  # (U,)
    entropies = entropy_terms(p).sum(axis=1)  # (C,)
    total, mean = float(entropy_terms(mixture).sum()), float(v @ entropies)
    # Without window i the mixture is (m - w_i p_i) / (1 - w_i): only its k + 1 symbols change.
    m = mixture[code[of_window]]  # (N, k+1)
    left = np.clip(m - w[:, None] * p[of_window], 0.0, None)
    unnormalised = total - entropy_terms(m).sum(axis=1) + entropy_terms(left).sum(axis=1)
    rest = 1 - w
    mixed = unnormalised / rest + np.log2(rest)
    without = mixed - (mean - w * entropies[of_window]) / rest
    return Information(total - mean, min(total, float(entropy_terms(v).sum())), without)


def _with_other(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and probabilities with "other" as the last, (C, k+1); an absent symbol is "other" of probability 0."""
    other = np.full((len(shown.symbols), 1), ABSENT, np.int64)
    return (
        np.concatenate([shown.symbols, other], axis=1),
        np.concatenate([np.where(shown.symbols == ABSENT, 0.0, shown.shares), shown.residual[:, None]], axis=1),
    )


def order_two(shown: Shown, of_window: np.ndarray | None = None, weights: np.ndarray | None = None) -> Information:
    """Order-two information J2 = log2 [ sum_i w_i p_i.p_i / ( sum_{i != j} w_i w_j p_i.p_j / (1 - sum_i w_i^2) ) ].

    From n samples a context, p_i.p_i is the share of its n(n-1)/2 pairs that agree and p_i.p_j that of the n^2 pairs of
    two contexts: both unbiased (Paninski 2008; Good 1953 for the repeat rate). From probabilities, those that are not
    shown count as 0, which with k shown misses at most residual x p_k of each sum.

    Args:
        shown: C different contexts; of samples at least two each.
        of_window: as for `shannon`; contexts, not windows, are the i and j.
        weights: as for `shannon`.

    Raises:
        EmergenceError: if no two draws agree, so that there is nothing to count.
        InputError: if a context has fewer than two samples, there are not two contexts, or shapes do not fit.

    >>> order_two(Shown(np.array([[0, 1], [0, 2]]), np.array([[0.5, 0.5], [0.5, 0.5]]))).bits
    1.0
    """
    of_window, w, v = _windows(shown, of_window, weights)
    present = shown.symbols != ABSENT
    p = np.where(present, shown.shares, 0.0)
    squares = (p**2).sum(axis=1)  # (C,)
    if shown.samples is None:
        agree = squares
    else:
        n = shown.samples.astype(np.float64)
        if n.min() < 2:
            raise InputError("Order two needs at least two samples of every context; ask for more, or leave it out.")
        agree = (squares * n**2 - n) / (n * (n - 1))  # sum of c (c - 1) over n (n - 1)
    if float((v**2).sum()) >= 1:
        raise InputError("Order two compares contexts with each other; give at least two different ones.")
    _, code = np.unique(shown.symbols, return_inverse=True)
    code = code.reshape(shown.symbols.shape)
    mixture = np.bincount(code.ravel(), (v[:, None] * p).ravel())  # (U,)
    dot = (p * mixture[code]).sum(axis=1)  # (C,) p_i . m
    same, norm = float(v @ agree), float((mixture**2).sum())
    own, own_weight = float(v**2 @ squares), float((v**2).sum())
    apart = (norm - own) / (1 - own_weight)
    if same <= 0 or apart <= 1e-15:
        raise EmergenceError(
            "No two sampled tokens of one context agree, or none of two contexts, so order two has nothing to count; "
            "ask for more samples or more windows."
        )
    # Without window i the context's weight is v - w_i, all divided by 1 - w_i.
    c, rest = of_window, 1 - w
    less = v[c] - w
    same_left = (same - w * agree[c]) / rest
    norm_left = norm - 2 * w * dot[c] + w**2 * squares[c]
    own_left = own + (less**2 - v[c] ** 2) * squares[c]
    weight_left = own_weight + less**2 - v[c] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.log2(same_left / ((norm_left - own_left) / (rest**2 - weight_left)))
    return Information(math.log2(same / apart), -math.log2(apart), without)


def _windows(
    shown: Shown, of_window: np.ndarray | None, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Context and weight of each window (N,), and weight of each context (C,); weights sum to 1."""
    contexts = len(shown.symbols)
    c = np.arange(contexts) if of_window is None else np.asarray(of_window, np.int64)
    w = np.ones(len(c)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != c.shape or len(c) < 2:
        raise InputError(f"Give one weight per window and at least 2 windows; got {w.shape} for {c.shape} windows.")
    if not (np.isfinite(w).all() and (w > 0).all()):
        raise InputError("Weights of windows must be finite and above 0; drop the other windows.")
    if len(c) and (c.min() < 0 or c.max() >= contexts):
        raise InputError(f"Windows name contexts 0 to {contexts - 1}; got {c.min()} to {c.max()}.")
    w = w / w.sum()
    return c, w, np.bincount(c, w, contexts)


def jackknife(
    value: float, without: np.ndarray, weights: np.ndarray | None = None, clusters: np.ndarray | None = None
) -> float | None:
    """Standard error of `value` from what it is without each window.

    Window i changes the value by (1 - w_i) (without_i - value), which is what the linear part of it contributes; with
    equal weights the usual delete-one jackknife, sqrt((n-1)/n sum (v_i - mean)^2), for a weighted mean the error of a
    ratio estimator. Windows of one document resemble each other: over documents, what they contribute is added up.

    Args:
        value: from all windows.
        without: (N,) without window i.
        weights: (N,) of the windows; None: alike.
        clusters: (N,) document of each window; None: each is by itself.

    Returns:
        None if some window cannot be left out, because the value would not exist.

    >>> round(jackknife(2.0, np.array([2.5, 2.0, 1.5])), 4)  # of the mean of 1, 2, 3
    0.5774
    """
    if not np.isfinite(without).all():
        return None
    w = np.full(len(without), 1 / len(without)) if weights is None else np.asarray(weights) / np.sum(weights)
    moved = (1 - w) * (without - value)
    moved -= moved.mean()
    if clusters is not None:
        moved = np.bincount(np.unique(clusters, return_inverse=True)[1], moved)
    return math.sqrt(float(moved @ moved) * len(moved) / (len(moved) - 1))


def shown_probability(shown: Shown, unigram: np.ndarray, rows: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Probability of what followed under what is shown, the residual spread over the unigram outside the shown.

    Args:
        shown: C contexts, probabilities.
        unigram: (V,) probabilities of all symbols.
        rows: (N,) context of each case.
        true: (N,) symbol that followed.

    Returns:
        (N,), a proper distribution over the V symbols for each context.
    """
    symbols, p = shown.symbols[rows], shown.shares[rows]  # (N, k)
    hit = symbols == true[:, None]
    of_shown = np.where(symbols == ABSENT, 0.0, unigram[np.maximum(symbols, 0)]).sum(axis=1)
    scale = np.maximum(p.sum(axis=1), 1.0)  # a sum of 1.0004 is rounding
    outside = np.maximum(1 - of_shown, 1e-12)
    hidden = shown.residual[rows] * unigram[true] / outside
    found: np.ndarray = np.where(hit.any(axis=1), (p * hit).sum(axis=1) / scale, hidden)
    return found


@dataclass(frozen=True, eq=False)
class OutputEmergence:
    """Emergence of the output at the last position, in bits.

    Attributes:
        macro_bits: of the windows.
        micro_bits: mean over positions, of tokens alone.
        ie_bits: macro_bits - micro_bits, never clipped.
        std_error: of `ie_bits` over windows, macro and micro paired; None where none can be had.
        macro_ceiling_bits: provable upper bound of macro.
        micro_ceiling_bits: of micro.
        pointwise_bits: (N,) per window, for the predictive reading; None otherwise.
        macro_weight: fitted share of the unigram distribution, mean over folds; predictive reading only.
        micro_weight: the same for micro.
        macro_std_error: of macro_bits.
        micro_std_error: of micro_bits.
        cost_bits: (N,) of the token after each window, under the calibrated probabilities; predictive reading only.
    """

    macro_bits: float
    micro_bits: float
    ie_bits: float
    std_error: float | None
    macro_ceiling_bits: float
    micro_ceiling_bits: float
    macro_std_error: float | None = None
    micro_std_error: float | None = None
    pointwise_bits: np.ndarray | None = None
    macro_weight: float | None = None
    micro_weight: float | None = None
    cost_bits: np.ndarray | None = None


def output_emergence(
    macro: Shown,
    alone: Shown,
    token_of: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    order: int = 1,
    of_window: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> OutputEmergence:
    """O = J(window) - (1/t) sum_s J(token s alone), its standard error by a jackknife over documents or windows.

    Args:
        macro: N windows, or C different ones.
        alone: V lone tokens.
        token_of: (N, t) lone token of each position, or of a sample of them, over which micro is then the mean.
        weights: (N,) how often each window counts.
        order: 1 for J (Shannon), 2 for J2 (collisions).
        of_window: (N,) row of `macro` of each window; None: one each.
        clusters: (N,) document of each window, over which errors are taken; None: over windows.

    Raises:
        InputError, EmergenceError: as `shannon` and `order_two`.

    >>> windows, alone = Shown(np.array([[0], [1]]), np.ones((2, 1))), Shown(np.array([[0]]), np.ones((1, 1)))
    >>> output_emergence(windows, alone, np.zeros((2, 3), int)).ie_bits
    1.0
    """
    if order not in (1, 2):
        raise InputError(f"order is 1 (Shannon) or 2 (collisions); got {order}.")
    read = shannon if order == 1 else order_two
    whole = read(macro, of_window, weights)
    parts = [_of_position(read, alone, column, weights) for column in token_of.T]
    micro, value = map(float, macro_less_micro(np.array(whole.bits), np.array([part.bits for part in parts])))
    micro_without, value_without = macro_less_micro(whole.without, np.array([part.without for part in parts]).T)  # (N,)
    return OutputEmergence(
        whole.bits,
        micro,
        value,
        jackknife(value, value_without, weights, clusters),
        whole.ceiling_bits,
        float(np.mean([part.ceiling_bits for part in parts])),
        jackknife(whole.bits, whole.without, weights, clusters),
        jackknife(micro, micro_without, weights, clusters),
    )


def _of_position(
    read: Callable[..., Information], alone: Shown, column: np.ndarray, weights: np.ndarray | None
) -> Information:
    """Information of the lone tokens at one position; one token for all windows says nothing of them: 0 bits."""
    present, place = np.unique(column, return_inverse=True)
    if len(present) == 1:
        return Information(0.0, 0.0, np.zeros(len(column)))
    return read(alone.take(present), place, weights)


@dataclass(frozen=True, eq=False)
class Followed:
    """What followed each position of N windows, and how the windows are read in turns.

    Attributes:
        true: (N, t) symbol that followed each position; the last column follows the window.
        vocabulary: number of symbols.
        fold: (N,) fold of each window, from `estimators.folds.assign_folds`.
        weights: (N,) how often each window counts; None: alike.
        clusters: (N,) document of each window, over which errors are clustered; None: windows are their own.
    """

    true: np.ndarray
    vocabulary: int
    fold: np.ndarray
    weights: np.ndarray | None = None
    clusters: np.ndarray | None = None


def predictive_emergence(
    macro: Shown, alone: Shown, token_of: np.ndarray, followed: Followed, *, asked: Sequence[int] | None = None
) -> OutputEmergence:
    """Bits that the shown probabilities save on the unigram distribution: macro at the last position, micro at all.

    I_V = mean of log2 ((1 - w) m(x) + w u(x)) - log2 u(x). m: shown probabilities, the residual over the unigram u
    outside the shown (V-information, Xu et al. 2020, arXiv 2002.10689, of an observer who is shown k probabilities).
    Each fold is read with u and w fitted on the others, w apart for macro and for micro at each position. Values of
    different k differ.

    Args:
        macro: N windows, probabilities.
        alone: V lone tokens, probabilities.
        token_of: (N, t) lone token of each position, or of those in `asked`.
        followed: what followed them.
        asked: positions, from 0, over which micro is the mean; None: all.

    Raises:
        InputError: if there are fewer than 2 folds, or it is given samples.
    """
    if macro.samples is not None or alone.samples is not None:
        raise InputError("The predictive reading needs probabilities; from samples use order two (output-2).")
    true = followed.true  # (N, t)
    rows = np.arange(len(true))
    columns = list(range(true.shape[1])) if asked is None else list(asked)

    def scored(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p_macro = shown_probability(macro, u, rows, true[:, -1])  # (N,)
        p_micro = np.full(true.shape, np.nan)
        p_micro[:, columns] = shown_probability(alone, u, token_of.ravel(), true[:, columns].ravel()).reshape(
            len(true), -1
        )
        return p_macro, p_micro

    return _cross_fitted(scored, followed)


def scored_emergence(macro: np.ndarray, micro: np.ndarray, followed: Followed) -> OutputEmergence:
    """Bits that the whole probability of what followed saves, where a server scores any text.

    As `predictive_emergence`, with nothing hidden.

    Args:
        macro: (N,) probability of the token that followed each window.
        micro: (N, t) of the token that followed each position, after that position's token alone; NaN at positions that
            were not asked for, then the mean is over the others.
        followed: what followed them.

    Raises:
        InputError: if there are fewer than 2 folds, or the positions that were asked for are none or not the same for
            all windows.
    """
    missing = np.isnan(micro)  # (N, t)
    if missing.all() or (missing != missing[:1]).any():
        raise InputError("Lone tokens need scores at the same positions of every window, at one or more.")
    return _cross_fitted(lambda _: (macro, micro), followed)


def _cross_fitted(scored: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], followed: Followed) -> OutputEmergence:
    """Read each fold with the unigram distribution and shares of it fitted on the others.

    `scored` gives, by the unigram distribution (V,), the probabilities of what followed: macro (N,) and micro (N, t).
    """
    true, fold, clusters = followed.true, followed.fold, followed.clusters
    w = np.ones(len(true)) if followed.weights is None else np.asarray(followed.weights, np.float64)  # (N,)
    folds = np.unique(fold)
    if len(folds) < 2:
        raise InputError(f"Cross-fitting needs at least 2 folds; got {len(folds)}.")
    macro_bits, micro_bits = np.empty(len(true)), np.full(true.shape, np.nan)  # (N,), (N, t)
    macro_cost, micro_cost = np.empty(len(true)), np.empty(len(true))  # of the unigram distribution: the ceilings
    shares = []
    for number in folds:
        read = fold == number
        u = unigram_of(true[~read], followed.vocabulary, w[~read])  # (V,)
        p_macro, p_micro = scored(u)  # (N,), (N, t)
        asked = ~np.isnan(p_micro[0])  # (t,)
        p_micro, u_macro, u_micro = p_micro[:, asked], u[true[:, -1]], u[true[:, asked]]  # (N, a), (N,), (N, a)
        macro_share = _share(p_macro[~read], u_macro[~read], w[~read])
        micro_shares = [_share(p[~read], v[~read], w[~read]) for p, v in zip(p_micro.T, u_micro.T, strict=True)]
        macro_bits[read] = _gain(p_macro[read], u_macro[read], macro_share)
        micro_bits[np.ix_(read, asked)] = np.transpose(
            [_gain(p[read], v[read], one) for p, v, one in zip(p_micro.T, u_micro.T, micro_shares, strict=True)]
        )
        macro_cost[read] = -np.log2(u_macro[read])
        micro_cost[read] = -np.log2(u_micro[read]).mean(axis=1)
        shares.append((macro_share, np.mean(micro_shares)))
    share = w / w.sum()  # (N,)
    micro, points = macro_less_micro(macro_bits, micro_bits[:, asked])  # (N,), (N,)
    return OutputEmergence(
        float(share @ macro_bits),
        float(share @ micro),
        float(share @ points),
        clustered_error(points, share, clusters),
        float(share @ macro_cost),
        float(share @ micro_cost),
        clustered_error(macro_bits, share, clusters),
        clustered_error(micro, share, clusters),
        pointwise_bits=points,
        macro_weight=float(np.mean([one for one, _ in shares])),
        micro_weight=float(np.mean([one for _, one in shares])),
        cost_bits=macro_cost - macro_bits,
    )


def _share(p: np.ndarray, unigram: np.ndarray, weights: np.ndarray) -> float:
    """Share of the unigram distribution, chosen as for the states of open models; there is no temperature to choose."""
    with np.errstate(divide="ignore"):
        log_p = torch.from_numpy(np.log(p))
    return calibrate(
        log_p[None], torch.from_numpy(np.log(unigram)), torch.from_numpy(weights), temperatures=(1.0,)
    ).share


def _gain(p: np.ndarray, unigram: np.ndarray, share: float) -> np.ndarray:
    """Bits saved on the unigram distribution, of each case."""
    with np.errstate(divide="ignore"):
        gain: np.ndarray = gain_bits(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(unigram)), share).numpy()
    return gain
