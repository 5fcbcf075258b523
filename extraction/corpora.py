"""Corpora as windows of T tokens: ordered lists of a category's entities, and natural text."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from estimators.base import InputError
from extraction.categories import CATEGORIES
from extraction.models import added_prefix
from extraction.text import documents, sample_text

PAPER_ENTITIES = {"country": 4, "animal": 5, "color": 5}  # entities per window in arXiv 2405.12617
TEXT_TOKENS = 8
STREAMED = 4  # windows to draw from that are read of a streamed data set, per window drawn
LARGEST_ENUMERATION = 20_000_000
CORPORA = (*CATEGORIES, "python-docs")


@dataclass(frozen=True, eq=False)
class Windows:
    """Distinct windows of a corpus, in seeded random order, so that any leading part is a sample.

    Attributes:
        corpus: name of the corpus.
        kind: ``icl`` (lists of entities) or ``text``.
        tokens: (N, T) token ids, int64, every row another one.
        weights: (N,) how often each window was drawn, float64.
        prefix: token ids that stand before every window, and before every token run alone; no part of T.
        tokens_per_demonstration: tokens of an entity and its comma; 0 for text.
        entities: (E, tokens_per_demonstration - 1) token ids of the category's entities; None for text.
        dropped: entities left out because they are not that many tokens.
        documents: (N,) number of the first document that each window was drawn from; None for lists.
        occurrences: (M, 3) a window's row, a document, how often it was drawn from that one; None for lists.
    """

    corpus: str
    kind: str
    tokens: np.ndarray
    weights: np.ndarray
    prefix: tuple[int, ...] = ()
    tokens_per_demonstration: int = 0
    entities: np.ndarray | None = None
    dropped: tuple[str, ...] = ()
    documents: np.ndarray | None = None
    occurrences: np.ndarray | None = None

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the windows, their weights and their prefix; the order does not matter."""
        order = np.lexsort(self.tokens.T[::-1])
        digest = hashlib.sha256(f"{self.kind} {self.tokens.shape} {self.prefix} ".encode())
        digest.update(self.tokens[order].astype("<i8").tobytes())
        digest.update(self.weights[order].astype("<f8").tobytes())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.tokens)

    def prefixes(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the P distinct beginnings x_1 ... x_t of the windows, t = 1 ... T.

        Returns:
            A row of `tokens` that shows each (P,), the beginning of every window (N,), and how often each was
            drawn (P,).
        """
        group = np.zeros(len(self), np.int64)
        rows = np.zeros(1, np.int64)
        for column in self.tokens[:, :t].T:
            _, ids = np.unique(column, return_inverse=True)
            _, rows, group = np.unique(group * (ids.max() + 1) + ids, return_index=True, return_inverse=True)
        return rows, group, np.bincount(group, weights=self.weights)

    def distinct_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the V distinct token ids, ascending, and for each token of each window its number (N, T)."""
        ids, index = np.unique(self.tokens, return_inverse=True)
        return ids, index.reshape(self.tokens.shape)

    def split(self, held_out: float = 0.2, *, seed: int = 0) -> tuple[Windows, Windows]:
        """Part the windows into (rest, held out), whole documents together, single windows where there are none.

        A window drawn from documents of both parts is in both, each time counted by the draws from that part.

        Raises:
            InputError: if one part would be empty.
        """
        unit = self._drawn()[:, 1]
        units = np.random.default_rng(seed).permutation(np.unique(unit))
        out = np.isin(unit, units[: round(held_out * len(units))])
        if out.all() or not out.any():
            raise InputError(
                f"{self.corpus} has {len(units)} documents, too few to hold out {held_out:.0%}; give more text."
            )
        return self._of(~out), self._of(out)

    def select(self, rows: np.ndarray) -> Windows:
        """Return only the windows of these rows."""
        occurrences = self.occurrences
        if occurrences is not None:
            place = np.full(len(self), -1)
            place[rows] = np.arange(len(place[rows]))
            occurrences = np.column_stack([place[occurrences[:, 0]], occurrences[:, 1:]])
            occurrences = occurrences[occurrences[:, 0] >= 0]
        return replace(
            self,
            tokens=self.tokens[rows],
            weights=self.weights[rows],
            documents=None if self.documents is None else self.documents[rows],
            occurrences=occurrences,
        )

    def _drawn(self) -> np.ndarray:
        """Rows, units and counts as `occurrences`; a window is its own unit where there are no documents."""
        if self.occurrences is not None:
            return self.occurrences
        row = np.arange(len(self))
        return np.column_stack([row, row if self.documents is None else self.documents, self.weights])

    def _of(self, chosen: np.ndarray) -> Windows:
        """Keep only what was drawn in these occurrences."""
        drawn = self._drawn()[chosen]
        rows, first = np.unique(drawn[:, 0].astype(np.int64), return_index=True)
        part = self.select(rows)
        if self.occurrences is None:
            return part
        row = np.searchsorted(rows, drawn[:, 0])
        return replace(
            part,
            weights=np.bincount(row, weights=drawn[:, 2]),
            documents=drawn[first, 1],
            occurrences=np.column_stack([row, drawn[:, 1:]]),
        )


def windows(
    corpus: str | Path,
    tokenizer: Any,
    *,
    tokens: int | None = None,
    count: int | None = 2000,
    seed: int = 0,
    at: str = "sentence",
    demonstration: int = 2,
    column: str | None = None,
    prefix: Sequence[int] | None = None,
) -> Windows:
    """Make the windows of a corpus for a tokenizer.

    Args:
        corpus: ``country``, ``animal`` or ``color``; ``list:FILE``, a category of one's own, one entity per line;
            ``python-docs``, the reference texts in every Python; a .txt, .jsonl, .json, .csv or .parquet file or a
            folder of them; or ``hf:NAME``, a data set of the hub (``hf:openorca``, ``hf:openhermes``: the paper's), of
            which no more is read than gives four times `count` windows to draw from; ``hf:NAME:SPLIT`` and
            ``hf:NAME:CONFIG:SPLIT`` take another split than ``train``, and another configuration.
        tokenizer: fast tokenizer of the model.
        tokens: T. Default: the paper's for its categories (8, 10, 10), 4 demonstrations for others, 8 for text.
        count: how many windows to draw; fewer are returned where there are fewer or some come twice; None: all.
        seed: the same seed, corpus and tokenizer give the same windows.
        at: ``sentence``: windows start where sentences do, as in the paper; ``anywhere``: at any token.
        demonstration: tokens of an entity and its comma; the paper's lists have 2.
        column: column of the text in a table; default: the first of text, output, response, content there is.
        prefix: token ids before every window; default: what the tokenizer adds.

    Raises:
        InputError: if the corpus is unknown or unreadable, or holds no window.
    """
    name = str(corpus)
    if count is not None and count < 1:
        raise InputError(f"count is the number of windows to draw, at least 1; got {count}.")
    front = added_prefix(tokenizer) if prefix is None else tuple(int(i) for i in prefix)
    if name in CATEGORIES or name.startswith("list:"):
        entities = CATEGORIES[name] if name in CATEGORIES else _entities(Path(name.removeprefix("list:")))
        length = demonstration * PAPER_ENTITIES.get(name, 4) if tokens is None else tokens
        return list_windows(
            name, entities, tokenizer, tokens=length, count=count, seed=seed, demonstration=demonstration, prefix=front
        )
    if not (name == "python-docs" or name.startswith("hf:") or os.path.exists(name)):  # Path would raise on a long text
        near = difflib.get_close_matches(name.lower(), CORPORA, n=1, cutoff=0.4)
        raise InputError(
            f"Unknown corpus {name}: it is neither a file or folder nor one of {', '.join(CORPORA)}"
            + (f"; nearest: {near[0]}." if near else ".")
        )
    label = name if name == "python-docs" or name.startswith("hf:") else Path(name).name
    texts = documents(name, column=column, seed=seed)
    return text_windows(
        texts,
        tokenizer,
        tokens=TEXT_TOKENS if tokens is None else tokens,
        count=count,
        seed=seed,
        at=at,
        prefix=front,
        name=label,
        enough=STREAMED * count if count and name.startswith("hf:") else None,
    )


def text_windows(
    texts: Iterable[str],
    tokenizer: Any,
    *,
    tokens: int = TEXT_TOKENS,
    count: int | None = 2000,
    seed: int = 0,
    at: str = "sentence",
    prefix: Sequence[int] | None = None,
    name: str = "text",
    enough: int | None = None,
) -> Windows:
    """Make windows of `tokens` tokens of natural text, none crossing from one document to the next.

    Args:
        texts: the documents.
        tokenizer: fast tokenizer of the model.
        tokens: T.
        count: how many windows to draw without replacement; None: all.
        seed: which are drawn.
        at: ``sentence`` or ``anywhere``, see `windows`.
        prefix: token ids before every window; default: what the tokenizer adds.
        name: what the corpus is called.
        enough: read no further once there are so many windows to draw from; None: read all.

    Raises:
        InputError: if no document is long enough for one window.
    """
    if tokens < 1:
        raise InputError(f"A window holds at least 1 token; got {tokens}.")
    if at not in ("sentence", "anywhere"):
        raise InputError(f"at says where windows start, sentence or anywhere; got {at}.")
    rows, document = sample_text(texts, tokenizer, tokens, count=count, seed=seed, at=at, name=name, enough=enough)
    distinct, first, group, counts = np.unique(rows, axis=0, return_index=True, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 1]).permutation(len(distinct))
    pairs, times = np.unique(np.column_stack([np.argsort(order)[group], document]), axis=0, return_counts=True)
    return Windows(
        corpus=name,
        kind="text",
        tokens=distinct[order],
        weights=counts[order].astype(np.float64),
        prefix=added_prefix(tokenizer) if prefix is None else tuple(prefix),
        documents=document[first][order],
        occurrences=np.column_stack([pairs, times]),
    )


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
        name: what the corpus is called.
        entities: words of one category.
        tokenizer: fast tokenizer of the model.
        tokens: T, a multiple of `demonstration`.
        count: how many windows to draw without replacement; None: all.
        seed: which are drawn, and their order.
        demonstration: tokens of an entity and its comma.
        prefix: token ids before every window; default: what the tokenizer adds.

    Raises:
        InputError: if T is no multiple of `demonstration`, or fewer entities fit the tokenizer than a window needs.
    """
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
    return Windows(
        corpus=name,
        kind="icl",
        tokens=ids[chosen].reshape(len(chosen), tokens),
        weights=np.ones(len(chosen)),
        prefix=added_prefix(tokenizer) if prefix is None else tuple(prefix),
        tokens_per_demonstration=demonstration,
        entities=ids[:, :-1],
        dropped=dropped,
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
    if min(total, count or total) > LARGEST_ENUMERATION:
        raise InputError(
            f"{name} has {total:,} windows of {k} entities, too many to take {'all' if count is None else count}; "
            f"give a count of at most {LARGEST_ENUMERATION:,}."
        )
    wanted = min(total, count or total)
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


def _entities(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise InputError(f"No list of entities at {path}; give list:FILE with one entity per line.")
    lines = (line.strip().rstrip(",") for text in documents(str(path)) for line in text.splitlines())
    entities = tuple(dict.fromkeys(line for line in lines if line))
    if not entities:
        raise InputError(f"{path} lists no entities; write one per line.")
    return entities
