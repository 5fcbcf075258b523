"""What the head of an open model says along windows: surprise, uncertainty, and whether it saw the rule of a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from estimators.base import InputError

if TYPE_CHECKING:
    from extraction.corpora.token_windows import Windows


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """What the head says along N windows of T tokens.

    Attributes:
        nll_bits: (N, T) negative log2 likelihood of each token given those before; NaN where nothing is before.
        entropy_bits: (N, T) entropy of the distribution over the token that follows the first t.
        predicted: (N, T) the likeliest token to follow the first t, int64, special ones such as end of text aside.

    >>> from extraction import extract, load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with extract(model, windows("animal", model.tokenizer, count=50)) as states:
    ...     states.likelihoods.entropy_bits.shape
    torch.Size([50, 10])
    """

    nll_bits: Tensor
    entropy_bits: Tensor
    predicted: Tensor

    def __repr__(self) -> str:
        """One line; its numbers are pages."""
        return f"<Likelihoods of {len(self.nll_bits)} windows of {self.nll_bits.shape[1]} tokens>"

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Put the likelihoods of consecutive windows together."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))


def accuracy_by_shots(likelihoods: Likelihoods, windows: Windows) -> pd.DataFrame:
    """Judge the predicted next token after each number of demonstrations of a list.

    Args:
        likelihoods: along `windows`.
        windows: lists of entities, see `extraction.list_windows`.

    Returns:
        A row per number of demonstrations: ``shots``; ``in_category``, the share of windows (by weight) after which
        the likeliest token begins an entity of the category; ``correct``, one that was not shown yet;
        ``chance``, the share of the category that was not; ``windows``, how many there are.

    Raises:
        InputError: if the windows are not lists.

    >>> from extraction import extract, load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> animals = windows("animal", model.tokenizer, count=50)
    >>> with extract(model, animals) as states:
    ...     accuracy_by_shots(states.likelihoods, animals)["shots"].tolist()
    [1, 2, 3, 4, 5]
    """
    if windows.entities is None:
        raise InputError(f"Accuracy by shots needs lists of entities, but {windows.corpus} is {windows.kind}.")
    size, count = windows.tokens_per_demonstration, len(windows)
    number = {tuple(entity): i for i, entity in enumerate(windows.entities.tolist())}
    shown = windows.tokens.reshape(count, -1, size)[:, :, :-1]
    unused = np.ones((count, len(number)), bool)
    rows = []
    for shot in range(1, shown.shape[1] + 1):
        unused[np.arange(count), [number[tuple(entity)] for entity in shown[:, shot - 1].tolist()]] = False
        begins = likelihoods.predicted[:, shot * size - 1].numpy()[:, None] == windows.entities[:, 0]
        right = {"in_category": begins.any(1), "correct": (begins & unused).any(1)}
        shares = {name: float(np.average(said, weights=windows.weights)) for name, said in right.items()}
        rows.append({"shots": shot, **shares, "chance": float(unused.mean()), "windows": count})
    return pd.DataFrame(rows)


def likelihood_table(likelihoods: Likelihoods, windows: Windows, model: str) -> pd.DataFrame:
    """Summarise what the head says along `windows`, position by position.

    Args:
        likelihoods: along `windows`.
        windows: of text or lists.
        model: its name in the table.

    Returns:
        A row per position: ``model``, ``corpus``, ``corpus_hash``, ``position`` (from 1), ``nll_bits`` (mean by weight;
        missing where nothing is before) and ``entropy_bits``; of lists, where a demonstration ends, also the columns of
        `accuracy_by_shots`. ``windows`` is how many distinct ones there are.

    >>> from extraction import extract, load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> animals = windows("animal", model.tokenizer, count=50)
    >>> with extract(model, animals) as states:
    ...     likelihood_table(states.likelihoods, animals, model.name)["position"].tolist()
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    means = {
        name: np.average(getattr(likelihoods, name).numpy(), axis=0, weights=windows.weights)
        for name in ("nll_bits", "entropy_bits")
    }
    table = pd.DataFrame(
        {
            "model": model,
            "corpus": windows.corpus,
            "corpus_hash": windows.hash,
            "position": np.arange(1, windows.tokens.shape[1] + 1),
            **means,
            "windows": len(windows),
        }
    )
    if windows.entities is None:
        return table
    shots = accuracy_by_shots(likelihoods, windows).drop(columns="windows").astype({"shots": "Int64"})
    return table.merge(
        shots.assign(position=shots["shots"].astype(int) * windows.tokens_per_demonstration), on="position", how="left"
    )
