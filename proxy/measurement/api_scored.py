"""Windows and lone tokens scored by a server that scores any text: what each costs with what really follows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from extraction.answers.collecting.next_tokens import Replies, tail_scored
from proxy.measurement.output import Contexts

POSITIONS = 2  # of each window at least, whose token is scored alone: pairs of tokens are seldom shared, each is a call


def scored_texts(contexts: Contexts) -> tuple[list[str], list[list[str]]]:
    """Texts to score: each window with its next token, and for its positions asked the token with the next one."""
    windows = [
        contexts.texts[place] + row[-1] for place, row in zip(contexts.of_window, contexts.following, strict=True)
    ]
    pairs = [
        [contexts.alone_texts[tokens[s]] + row[s] for s in contexts.asked]
        for tokens, row in zip(contexts.token_of, contexts.following, strict=True)
    ]
    return windows, pairs


@dataclass(frozen=True, eq=False)
class Scores:
    """What a server said of what followed.

    Attributes:
        macro: (N,) probabilities of what followed the windows.
        micro: (N, T) of what followed the tokens alone; NaN where that was not asked for.
        keep: (N,) whether all of a window's were scored; what a server cuts in other tokens across the seam is not.
        after_windows: (C,) natural logprobs by text of what else was likely after each distinct window.
        after_alone: (V,) after each lone token; empty for those that were not asked for.
    """

    macro: np.ndarray
    micro: np.ndarray
    keep: np.ndarray
    after_windows: list[dict[str, float]]
    after_alone: list[dict[str, float]]


def scores(contexts: Contexts, replies: Replies) -> Scores:
    """Read what followed off the scored texts."""
    windows, pairs = scored_texts(contexts)
    macro, micro = np.zeros(len(windows)), np.full(contexts.token_of.shape, np.nan)
    keep = np.ones(len(windows), bool)
    after_windows: list[dict[str, float]] = [{} for _ in contexts.texts]
    after_alone: list[dict[str, float]] = [{} for _ in contexts.alone_texts]
    for n, (window, row) in enumerate(zip(windows, pairs, strict=True)):
        following, tokens = contexts.following[n], contexts.token_of[n]
        found = [_scored(window, following[-1], replies)]
        found += [_scored(pair, following[s], replies) for pair, s in zip(row, contexts.asked, strict=True)]
        known = [each for each in found if each is not None]
        keep[n] = len(known) == len(found)
        if not keep[n]:
            continue
        macro[n], micro[n, contexts.asked] = known[0][0], [p for p, _ in known[1:]]
        after_windows[contexts.of_window[n]] = known[0][1]
        for (_, top), s in zip(known[1:], contexts.asked, strict=True):
            after_alone[tokens[s]] = top
    return Scores(macro, micro, keep, after_windows, after_alone)


def _scored(text: str, tail: str, replies: Replies) -> tuple[float, dict[str, float]] | None:
    said = replies.said.get(text)
    found = None if said is None else tail_scored(said, tail)
    return None if found is None else (math.exp(min(found[0], 0.0)), found[1])
