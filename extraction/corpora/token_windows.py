"""Windows of a corpus: token ids, how often each was sampled, and from which documents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from estimators.contracts.cells import counted
from estimators.contracts.conventions import SHUFFLED


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Distinct windows of a corpus, in seeded random order, so that any leading part is a sample.

    Attributes:
        corpus: name of the corpus.
        kind: ``icl`` (lists of entities) or ``text``.
        tokens: (N, T) token ids, int64, all rows distinct.
        weights: (N,) how often each window occurs in the sample, float64.
        prefix: token ids put before every window, and before every token run alone; not counted in T.
        tokens_per_demonstration: tokens of an entity and its comma; 0 for text.
        entities: (E, tokens_per_demonstration - 1) token ids of the category's entities; None for text.
        dropped: entities left out because they are not that many tokens.
        documents: (N,) number of the first document that each window is from, or of the section of one that holds much
            of the text; None for lists.
        sections: whether a document was cut into sections.
        next_tokens: (N,) the token that followed each window in that document, -1 where it ended; no part of the hash.
            None where it is not known.

    >>> made = Windows("mine", "text", np.array([[1, 2], [3, 4]]), np.array([1.0, 1.0]))
    >>> len(made), made.hash
    (2, '845fcd3e65bcd068')
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
    sections: bool = False
    next_tokens: np.ndarray | None = None

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

    def __repr__(self) -> str:
        """One line: what they are of, and how many.

        >>> Windows("animal", "icl", np.zeros((3, 10), np.int64), np.array([1.0, 2.0, 1.0]))
        <Windows of animal: 4 of 10 tokens, 3 distinct>
        """
        total, length = int(self.weights.sum()), self.tokens.shape[1]
        return f"<Windows of {self.corpus}: {total:,} of {length} tokens, {len(self):,} distinct>"

    def prefixes(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the P distinct beginnings x_1 ... x_t of the windows, t = 1 ... T.

        Returns:
            A row of `tokens` that shows each (P,), the beginning of every window (N,), and how often each was
            sampled (P,).
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

    def select(self, rows: np.ndarray) -> Windows:
        """Return only the windows of these rows."""
        return replace(
            self,
            tokens=self.tokens[rows],
            weights=self.weights[rows],
            documents=None if self.documents is None else self.documents[rows],
            next_tokens=None if self.next_tokens is None else self.next_tokens[rows],
        )

    def shuffled(self, seed: int) -> Windows:
        """Permute every column over the windows: each position keeps its tokens, but loses their context.

        The control for what a network learned about contexts: micro information stays as it is, so that a difference of
        emergence is one of macro information. A shuffled window has tokens of many documents; its document is that of
        the token that follows it, which is what it is read on.
        """
        rng = np.random.default_rng([seed, 3])
        rows = np.repeat(self.tokens, self.weights.astype(np.int64), axis=0)
        rows = np.stack([rng.permutation(column) for column in rows.T], axis=1)
        distinct, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
        order = rng.permutation(len(distinct))
        following = documents = None
        if self.next_tokens is not None:
            source = rng.permutation(np.repeat(np.arange(len(self)), self.weights.astype(np.int64)))[first][order]
            following = self.next_tokens[source]
            documents = None if self.documents is None else self.documents[source]
        return replace(
            self,
            corpus=f"{self.corpus}{SHUFFLED}",
            tokens=distinct[order],
            weights=counts[order].astype(np.float64),
            documents=documents,
            next_tokens=following,
        )


def fewer_windows(windows: Windows, asked: int | None) -> str | None:
    """Return a sentence where a corpus has fewer windows than were asked for, None where it has enough."""
    total = int(windows.weights.sum())
    if asked is None or total >= asked:
        return None
    length = windows.tokens.shape[1]
    if windows.kind == "icl":
        return f"{windows.corpus} has {counted(total, 'window')} of {length} tokens in all; {asked} were asked for."
    return (
        f"{windows.corpus} has only {counted(total, 'window')} of {length} tokens, {asked} were asked for: errors are "
        f"larger by a factor of {(asked / total) ** 0.5:.1f}, and the ceiling is at most {np.log2(total):.1f} bits. "
        "Give more text, or fewer tokens a window."
    )
