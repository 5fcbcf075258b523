"""Whether an output says the token that really follows a window: over all windows, and window by window."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from estimators.predictive import clustered_error
from estimators.shown import Shown
from proxy.schemas import CONTINUATIONS


def table_beside(path: Path) -> Path:
    """Where a table of continuations lies, beside the emergence table that it belongs to.

    >>> table_beside(Path("outputs.parquet")).name
    'outputs.continuations.parquet'
    """
    return path.with_name(f"{path.stem}.continuations.parquet")


@dataclass(frozen=True, eq=False)
class Continued:
    """How an output stands to the token that follows each of N windows.

    Attributes:
        right: (N,) 1 where the likeliest token is the one that follows, else 0; of an output that is not ranked the
            share of samples, or the probability, of that token.
        rank: (N,) of that token among those shown, from 1; 0 where it is not shown; None where nothing is ranked.
        shown: tokens that are shown.
    """

    right: np.ndarray
    rank: np.ndarray | None
    shown: int

    @property
    def log_rank(self) -> np.ndarray | None:
        """(N,) log2 of the rank, one beyond the shown where the token is not among them: a lower bound there."""
        return None if self.rank is None else np.log2(np.where(self.rank > 0, self.rank, self.shown + 1))


def continued(macro: Shown, of_window: np.ndarray, follows: np.ndarray, *, ranked: bool) -> Continued:
    """Compare what is shown after windows with what follows.

    Args:
        macro: what is known after each distinct window.
        of_window: (N,) row of `macro` of each window.
        follows: (N,) symbol that follows.
        ranked: whether all that is shown is ranked; samples, and what is read like samples, are not.

    >>> shown = Shown(np.array([[3, 5]]), np.array([[0.6, 0.1]]))
    >>> continued(shown, np.array([0, 0]), np.array([3, 5]), ranked=True).rank.tolist()
    [1, 2]
    >>> continued(shown, np.array([0, 0]), np.array([3, 4]), ranked=False).right.tolist()
    [0.6, 0.0]
    """
    shares = macro.shares[of_window]  # (N, k)
    hit = macro.symbols[of_window] == follows[:, None]  # (N, k)
    own = (shares * hit).sum(axis=1)  # (N,)
    if not ranked:
        return Continued(own, None, macro.symbols.shape[1])
    rank = np.where(hit.any(axis=1), 1 + (shares > own[:, None]).sum(axis=1), 0)
    return Continued((rank == 1).astype(np.float64), rank, macro.symbols.shape[1])


def means(found: Continued, weights: np.ndarray, clusters: np.ndarray | None) -> dict[str, float | None]:
    """Accuracy and mean log rank with their standard errors, as columns of the emergence table."""
    share = weights / weights.sum()
    columns: dict[str, float | None] = {}
    for name, values in (("accuracy", found.right), ("log_rank", found.log_rank)):
        if values is not None:
            columns[name] = float(share @ values)
            columns[f"{name}_std_error"] = clustered_error(values, share, clusters)
    return columns


def window_keys(texts: list[str], follows: list[str]) -> list[str]:
    """16 hexadecimal digits of each window and what follows it, the same for every tokenizer that cuts there.

    >>> window_keys(["a b"], [" c"])
    ['d2de9112eb368464']
    """
    return [hashlib.sha256(f"{a}\0{b}".encode()).hexdigest()[:16] for a, b in zip(texts, follows, strict=True)]


def continuation_table(keys: list[str], found: Continued, cost: np.ndarray | None, **about: str) -> pd.DataFrame:
    """One row per distinct window, schema CONTINUATIONS without the model.

    Args:
        keys: (N,) of the windows.
        found: how they were continued.
        cost: (N,) bits of what follows; None where no probabilities are shown.
        about: corpus, asked and estimator.
    """
    rank = pd.array([pd.NA] * len(keys), dtype="Int16") if found.rank is None else pd.array(found.rank, dtype="Int16")
    table = pd.DataFrame(
        {
            "window": keys,
            "right": found.right,
            "rank": pd.Series(rank).replace(0, pd.NA),
            "cost_bits": pd.array([pd.NA] * len(keys), dtype="Float32") if cost is None else cost,
            **about,
        }
    )
    return table.drop_duplicates("window", ignore_index=True)


def of_model(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """The table of one model, as the schema has it."""
    return CONTINUATIONS.conform(table.assign(model=model))
