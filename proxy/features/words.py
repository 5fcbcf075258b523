"""Which words and marks a model's answers hold: the log odds of each word of one vocabulary that never changes.

The vocabulary (vocabulary.txt, made by benchmarks/word_vocabulary.py) was chosen by how often models agree on a word,
without a look at any target. It is part of the product, so the answers of two models compare whenever and with
whomever they are read; a proxy keeps the words it learned from as its features' names.
"""

from __future__ import annotations

import re
from collections.abc import Set
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

HALF = 1 / 600  # share added to both sides of the odds: half an answer in 300
CHARACTERS = 800  # of each answer that are looked at, so that long answers do not hold more words without end
# A word, or a mark that tells how an answer is laid out.
PATTERN = re.compile(r"[a-z]+(?:'[a-z]+)*|\*\*|#+(?= )|\n\n|[:;!?()\"-]|\d+\.(?= )")
BLANK_LINE = "blank_line"  # the name of the one mark that cannot be printed


def word_features(answers: pd.DataFrame) -> dict[str, float]:
    """Log odds that an answer holds a word, for each word of the vocabulary, of **one** model.

    With share s of the prompts, every prompt counting the same however many samples it has, the value is the natural
    logarithm of (s + c) / (1 - s + c) with c = 1/600: a word never used has one finite value, however many the prompts.

    Args:
        answers: rows of the responses table; rows without text or with blank text are left out.

    Returns:
        Name (without ``words.``) to value, in the order of the vocabulary; empty without any text.

    Example:
        >>> said = pd.DataFrame({"prompt_id": ["1", "2"], "text": ["The cat.", "A dog"]})
        >>> found = word_features(said)
        >>> round(found["the"], 3), round(found["here"], 3)
        (0.0, -6.399)
    """
    answers = answers[answers["text"].fillna("").str.strip() != ""]
    if answers.empty:
        return {}
    names = vocabulary()
    place = {name: at for at, name in enumerate(names)}
    held: dict[object, np.ndarray] = {}
    samples: dict[object, int] = {}
    for prompt, text in zip(answers["prompt_id"], answers["text"].astype(str), strict=True):
        counts = held.setdefault(prompt, np.zeros(len(names)))
        counts[[place[word] for word in words_of(text) if word in place]] += 1
        samples[prompt] = samples.get(prompt, 0) + 1
    total = len(held)
    expected = np.sum([counts / samples[prompt] for prompt, counts in held.items()], axis=0)
    share = expected / total
    odds = np.log((share + HALF) / (1 - share + HALF))
    return dict(zip(names, odds.tolist(), strict=True))


def words_of(text: str) -> Set[str]:
    r"""Names of the distinct words and marks among the first characters of a text.

    Example:
        >>> sorted(words_of("**It\u2019s** 1. here\n\nIt's"))
        ['**', '1.', 'blank_line', 'here', "it's"]
    """
    found = set(PATTERN.findall(text[:CHARACTERS].lower().replace("\u2019", "'")))
    return {BLANK_LINE if word == "\n\n" else word for word in found}


@cache
def vocabulary() -> tuple[str, ...]:
    """Names of the words and marks, the most widely used first."""
    return tuple(Path(__file__).with_name("vocabulary.txt").read_text(encoding="utf-8").split())
