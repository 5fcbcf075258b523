"""The neutral first token of a model behind an API: found by what it says after lone tokens, in a few calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from estimators.output import shown_probability
from estimators.predictive import calibrate, gain_bits
from estimators.shown import ABSENT, Shown
from extraction import windows as make_windows
from extraction.corpora.spec import PYTHON_DOCS
from proxy.measurement.output import decoded
from proxy.measurement.prefix import next_token_pairs

SENTENCE = "The house stood at the end of the road"
# Texts of tokens that stand between documents, or before all, in the order in which they are tried.
NEUTRAL = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|begin_of_text|>", "<s>", "<bos>", "<|im_start|>")
CANDIDATES = 3  # beside none
LEAST = 1e-9  # unigram probability of a text that is no token of the tokenizer's
LONE = 32  # of the most frequent tokens, which each candidate is tried on


def first_tokens(tokenizer: Any, *, own: bool) -> list[str]:
    """Texts that may be a neutral first token, those between documents first.

    Args:
        tokenizer: that cuts windows.
        own: whether it is the model's own; of another one only the usual texts are known.

    >>> from extraction.models.tokenizers import load_tokenizer
    >>> first_tokens(load_tokenizer("gpt2-30k"), own=True)
    ['<|endoftext|>']
    """
    if not own:
        return list(NEUTRAL)
    single = [text for text in NEUTRAL if len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1]
    return list(dict.fromkeys([*single, *map(str, tokenizer.all_special_tokens)]))


@dataclass(frozen=True, eq=False)
class LonePairs:
    """Frequent tokens of the reference texts, and their next tokens.

    Attributes:
        alone: (n,) their texts.
        row: (m,) place of a pair's first token in `alone`.
        following: (m,) text of its second token.
        weights: (m,) how often the pair occurs.
        unigram: probability by text in other text; what is not in it has nearly none.
    """

    alone: list[str]
    row: np.ndarray
    following: list[str]
    weights: np.ndarray
    unigram: dict[str, float]


def lone_pairs(tokenizer: Any) -> LonePairs:
    """Read the most frequent tokens off the reference texts in every Python, which open models are tried on as well."""
    found = next_token_pairs(make_windows(PYTHON_DOCS, tokenizer, prefix=()), len(tokenizer)).most_frequent(LONE)
    names = {token: decoded(tokenizer, [token]) for token in range(len(tokenizer))}
    alone, row = [names[token] for token in found.alone.tolist()], found.row.tolist()
    following = [names[token] for token in found.token.tolist()]
    whole = {place: number for number, place in enumerate(i for i, text in enumerate(alone) if _is_whole(text))}
    kept = [i for i, place in enumerate(row) if place in whole and _is_whole(following[i])]
    unigram: dict[str, float] = {}
    for token, share in enumerate(np.exp(found.log_u.double().numpy()).tolist()):
        unigram[names[token]] = unigram.get(names[token], 0.0) + share
    return LonePairs(
        [alone[place] for place in whole],
        np.array([whole[row[i]] for i in kept]),
        [following[i] for i in kept],
        found.weights.numpy()[kept],
        unigram,
    )


def _is_whole(text: str) -> bool:
    return bool(text) and "\ufffd" not in text


def lone_token_bits(said: Sequence[dict[str, float] | None], pairs: LonePairs) -> float:
    """Return the mean bits that lone tokens tell about the next one, the share of the unigram distribution fitted.

    Args:
        said: (n,) probability by text after each of `pairs.alone`; None where there was no reply.
        pairs: tokens and their next tokens.

    >>> pairs = LonePairs(["a", "b"], np.array([0, 1]), ["c", "d"], np.ones(2), {"c": 0.5, "d": 0.5})
    >>> round(lone_token_bits([{"c": 1.0}, {"d": 1.0}], pairs), 2)
    0.99
    >>> round(lone_token_bits([{"d": 0.5}, {"d": 0.5}], pairs), 2)
    0.0
    """
    known = np.array([shares is not None for shares in said])[pairs.row]
    if not known.any():
        return 0.0
    texts = dict.fromkeys(pairs.following)
    for shares in said:
        texts |= dict.fromkeys(shares or ())
    names = {text: number for number, text in enumerate(texts)}
    unigram = np.array([max(pairs.unigram.get(text, 0.0), LEAST) for text in names])
    k = max(len(shares or ()) for shares in said)
    symbols, values = np.full((len(said), k), ABSENT, np.int64), np.zeros((len(said), k))
    for place, shares in enumerate(said):
        for column, (text, share) in enumerate((shares or {}).items()):
            symbols[place, column], values[place, column] = names[text], share
    true = np.array([names[text] for text in pairs.following])[known]
    p, u = shown_probability(Shown(symbols, values), unigram, pairs.row[known], true), unigram[true]
    with np.errstate(divide="ignore"):
        log_p, log_u = torch.from_numpy(np.log(p)), torch.from_numpy(np.log(u))
    weights = torch.from_numpy(pairs.weights[known]).double()
    share = calibrate(log_p[None], log_u, weights, temperatures=(1.0,)).share
    return float(gain_bits(log_p, log_u, share) @ (weights / weights.sum()))
