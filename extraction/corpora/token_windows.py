"""Windows of a corpus: token ids, how often each was drawn, and from which documents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from estimators.base import InputError
from estimators.contracts.conventions import SHUFFLED


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

    def shuffled(self, seed: int) -> Windows:
        """Permute every column over the windows: each position keeps its tokens, but what stood before them is lost.

        The control for what a network knows of contexts: micro information stays as it is, so that a difference of
        emergence is one of macro information.
        """
        rng = np.random.default_rng([seed, 3])
        rows = np.repeat(self.tokens, self.weights.astype(np.int64), axis=0)
        rows = np.stack([rng.permutation(column) for column in rows.T], axis=1)
        distinct, counts = np.unique(rows, axis=0, return_counts=True)
        order = rng.permutation(len(distinct))
        return replace(
            self,
            corpus=f"{self.corpus}{SHUFFLED}",
            tokens=distinct[order],
            weights=counts[order].astype(np.float64),
            documents=None,
            occurrences=None,
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


def fewer_windows(windows: Windows, asked: int | None) -> str | None:
    """Return a sentence where a corpus has fewer windows than were asked for, None where it has enough."""
    drawn = int(windows.weights.sum())
    if asked is None or drawn >= asked:
        return None
    length = windows.tokens.shape[1]
    if windows.kind == "icl":
        return f"{windows.corpus} has {drawn} windows of {length} tokens in all; {asked} were asked for."
    return (
        f"{windows.corpus} has only {drawn} windows of {length} tokens, {asked} were asked for: errors are larger by a "
        f"factor of {(asked / drawn) ** 0.5:.1f}, and the ceiling is at most {np.log2(drawn):.1f} bits. Give more "
        "text, or fewer tokens a window."
    )
