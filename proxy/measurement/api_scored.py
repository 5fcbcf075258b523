"""Windows and lone tokens scored by a server that scores any text: what each costs with what really follows."""

from __future__ import annotations

import math

import numpy as np

from extraction.answers.collecting.next_tokens import Replies, tail_logprob
from proxy.measurement.output import Contexts

POSITIONS = 2  # of each window whose token is scored alone: a pair of tokens is seldom shared, and each is a call


def positions_asked(contexts: Contexts) -> np.ndarray:
    """(N, POSITIONS) positions of each window whose token is scored alone, a draw of their own that the windows fix."""
    rng = np.random.default_rng(int(contexts.corpus_hash, 16))
    count = min(POSITIONS, contexts.positions)
    return np.stack([rng.permutation(contexts.positions)[:count] for _ in contexts.ids])


def scored_texts(contexts: Contexts) -> tuple[list[str], list[list[str]]]:
    """Texts to score: each window with its next token, and for its positions asked the token with the next one."""
    windows = [
        contexts.texts[place] + row[-1] for place, row in zip(contexts.of_window, contexts.following, strict=True)
    ]
    pairs = [
        [contexts.alone_texts[tokens[s]] + row[s] for s in places]
        for tokens, row, places in zip(contexts.token_of, contexts.following, positions_asked(contexts), strict=True)
    ]
    return windows, pairs


def scores(contexts: Contexts, replies: Replies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of what followed.

    Returns:
        (N,) after the windows, (N, T) after the tokens alone, NaN where not asked for, and (N,) whether all of a
        window's were scored; what a server cuts in other tokens across the seam is not.
    """
    windows, pairs = scored_texts(contexts)
    macro, micro = np.zeros(len(windows)), np.full(contexts.token_of.shape, np.nan)
    keep = np.ones(len(windows), bool)
    for n, (window, row, places) in enumerate(zip(windows, pairs, positions_asked(contexts), strict=True)):
        found = [_probability(window, contexts.following[n][-1], replies)]
        found += [_probability(pair, contexts.following[n][s], replies) for pair, s in zip(row, places, strict=True)]
        keep[n] = None not in found
        if keep[n]:
            macro[n], micro[n, places] = found[0], found[1:]
    return macro, micro, keep


def _probability(text: str, tail: str, replies: Replies) -> float | None:
    said = replies.said.get(text)
    logprob = None if said is None else tail_logprob(said, tail)
    return None if logprob is None else math.exp(min(logprob, 0.0))
