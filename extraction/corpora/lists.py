"""Corpora that list a category's entities without repetition, each followed by a comma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from estimators.base import InputError
from extraction.corpora.text import check_count, documents
from extraction.corpora.token_windows import Windows
from extraction.models.load import added_prefix

LARGEST_ENUMERATION = 20_000_000


def list_windows(
    name: str,
    entities: Sequence[str],
    tokenizer: Any,
    *,
    tokens: int,
    count: int | None = 2000,
    seed: int = 0,
    demonstration: int = 2,
    prefix: Sequence[int] | None = None,
) -> Windows:
    """Make windows that list entities without repetition, each followed by a comma: `` Germany, France,``.

    Every ordered choice is equally likely; where `count` reaches their number, all are taken, and the distribution
    is exact. Entities are used that are `demonstration` - 1 tokens in context, their comma one.

    Args:
        name: of the corpus, for tables.
        entities: words of one category.
        tokenizer: fast tokenizer of the model.
        tokens: T, a multiple of `demonstration`.
        count: how many windows to sample without replacement; None: all.
        seed: of the sample and its order.
        demonstration: tokens of an entity and its comma.
        prefix: token ids before every window; default: what the tokenizer adds.

    Raises:
        InputError: if T is not a multiple of `demonstration`, fewer entities fit the tokenizer than a window needs, or
            `count` is below 1.

    >>> from extraction import load_model
    >>> tokenizer = load_model("gpt2-30k").tokenizer
    >>> found = list_windows("pets", ["dog", "cat"], tokenizer, tokens=4)
    >>> sorted(tokenizer.decode(row) for row in found.tokens)
    [' cat, dog,', ' dog, cat,']
    """
    check_count(count)
    if demonstration < 2:
        raise InputError(f"A demonstration is an entity and its comma, at least 2 tokens; got {demonstration}.")
    if tokens < demonstration or tokens % demonstration:
        raise InputError(
            f"A list window of {demonstration} tokens per entity and comma has a multiple of {demonstration} tokens; "
            f"got {tokens}."
        )
    shown = tokens // demonstration
    ids, dropped = _entity_ids(entities, tokenizer, demonstration)
    if len(ids) < max(shown, 2):
        size = "a single token" if demonstration == 2 else f"{demonstration - 1} tokens"
        raise InputError(
            f"Only {len(ids)} of the {len(entities)} entities of {name} are {size} followed by a one-token comma under "
            f"this tokenizer, but a window of {tokens} tokens needs {max(shown, 2)}; give a smaller number of tokens "
            f"or other entities. Left out: {', '.join(dropped) or 'none'}."
        )
    chosen = _ordered_choices(len(ids), shown, count, seed, name)
    # What follows is a further entity, every one alike; where the window shows all of them, nothing can.
    following = np.full(len(chosen), -1)
    if shown < len(ids):
        place = np.random.default_rng([seed, 5]).integers(len(ids) - shown, size=len(chosen))  # among those left
        for shown_before in np.sort(chosen, axis=1).T:
            place += place >= shown_before
        following = ids[place, 0]
    return Windows(
        corpus=name,
        kind="icl",
        tokens=ids[chosen].reshape(len(chosen), tokens),
        weights=np.ones(len(chosen)),
        prefix=added_prefix(tokenizer) if prefix is None else tuple(prefix),
        tokens_per_demonstration=demonstration,
        entities=ids[:, :-1],
        dropped=dropped,
        next_tokens=following,
    )


def _entity_ids(entities: Sequence[str], tokenizer: Any, demonstration: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Token ids of `` entity,`` in the middle of a list, (E, demonstration), and the entities that do not fit."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    found: dict[str, list[int]] = {}
    before = encode("X,")
    for entity in dict.fromkeys(entities):
        ids = encode(f"X, {entity}, {entity},")
        part = ids[len(before) : len(before) + demonstration]
        unknown = tokenizer.unk_token_id in part
        if ids == before + part + part and not unknown and part[-1] not in part[:-1]:
            found[entity] = part
    commas = [part[-1] for part in found.values()]
    comma = max(set(commas), key=commas.count, default=None)
    kept: dict[tuple[int, ...], str] = {}
    for entity, part in found.items():
        if part[-1] == comma:
            kept.setdefault(tuple(part), entity)
    dropped = tuple(entity for entity in dict.fromkeys(entities) if entity not in kept.values())
    return np.array(list(kept), np.int64).reshape(len(kept), demonstration), dropped


def _ordered_choices(n: int, k: int, count: int | None, seed: int, name: str) -> np.ndarray:
    """Distinct ordered choices of k out of n without repetition, uniform, (min(count, all of them), k)."""
    rng = np.random.default_rng(seed)
    total = math.perm(n, k)
    wanted = total if count is None else min(total, count)
    if wanted > LARGEST_ENUMERATION:
        raise InputError(
            f"{name} has {total:,} windows of {k} entities, too many to take {'all' if count is None else count}; "
            f"give a count of at most {LARGEST_ENUMERATION:,}."
        )
    if total <= 4 * LARGEST_ENUMERATION:
        rank = rng.choice(total, size=wanted, replace=False)
        digits = np.empty((wanted, k), np.int64)
        for place in range(k):
            digits[:, place], rank = np.divmod(rank, math.perm(n - place - 1, k - place - 1))
    else:
        sizes = n - np.arange(k)
        digits = np.empty((0, k), np.int64)
        while len(digits) < wanted:
            digits = np.concatenate([digits, rng.integers(0, sizes, (wanted - len(digits), k))])
            digits = digits[np.sort(np.unique(digits, axis=0, return_index=True)[1])]
    left = np.broadcast_to(np.arange(n, dtype=np.int16), (wanted, n))
    chosen = np.empty((wanted, k), np.int64)
    for place in range(k):  # digit j picks among the entities that are left
        pick = digits[:, place, None]
        chosen[:, place] = np.take_along_axis(left, pick, axis=1)[:, 0]
        left = left[np.arange(n - place) != pick].reshape(wanted, n - place - 1)
    return chosen


def read_entities(path: Path) -> tuple[str, ...]:
    """Read the entities of a category from a file, one per line.

    Raises:
        InputError: if the file cannot be read, or there is nothing in it.
    """
    lines = (line.strip().rstrip(",") for text in documents(str(path)) for line in text.splitlines())
    entities = tuple(dict.fromkeys(line for line in lines if line))
    if not entities:
        raise InputError(f"{path} lists no entities; write one per line.")
    return entities
