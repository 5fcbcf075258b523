"""What single windows tell of a model beside the means: its ability, and the components of what its tokens cost.

Windows are items of a test, whose difficulty only other models can tell. Difficulties and components are therefore
fitted on references, and a reference itself is placed by what was fitted on those of other training runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from proxy.features.output import NOISE

Array = NDArray[np.float64]

ABILITY = "output.ability"
COMPONENTS = ("output.component_1", "output.component_2")
FEATURES = (ABILITY, *COMPONENTS)
LEAST_WINDOWS = 100  # that a model shares with the references; fewer place it nowhere
LEAST_RUNS = 3  # fewer determine neither difficulties nor components
SPREAD = 2.0  # standard deviation of abilities and difficulties before any answer, in logits
STEPS, SETTLED = 100, 1e-7


def reading_of(shown: int) -> str:
    """The reading that tells single windows, by the number of tokens shown.

    >>> reading_of(20), reading_of(0)
    ('predictive-20', 'output-2')
    """
    return f"predictive-{shown}" if shown else "output-2"


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """Windows as items, fitted on references.

    Attributes:
        windows: (J,) keys.
        difficulty: (J,) logits at which a model says the next token half of the time; their mean is 0.
        centre: mean ability of the references.
        cost: (J,) mean cost of the next token over references, bits; empty where nothing is known of costs.
        loadings: (J, k) components of the double-centred costs, each with a mean square of 1.
    """

    windows: NDArray[np.str_]
    difficulty: Array
    centre: float
    cost: Array
    loadings: Array


def fit_items(table: pd.DataFrame, runs: Mapping[str, str]) -> Items | None:
    """Fit difficulties and components on references.

    An answer is right with probability 1 / (1 + exp(difficulty - ability)) (Rasch 1960), with normal priors. Components
    are the first two of the matrix of costs, model by window, less the mean of each model and of each window (the
    log-likelihood map, arXiv 2502.16173). Checkpoints of a run together weigh as much as one model.

    Args:
        table: schema CONTINUATIONS, one corpus, one reading, the references alone.
        runs: training run of each model.

    Returns:
        None where fewer than three runs share 100 windows.
    """
    return _fitted(_matrix(table, "right"), _matrix(table, "cost_bits"), runs)


def _fitted(right: pd.DataFrame, costs: pd.DataFrame, runs: Mapping[str, str]) -> Items | None:
    """Fit items on the references that are the rows of `right` (n, J), with their `costs`, which may hold others."""
    if right.empty or len({runs[model] for model in right.index}) < LEAST_RUNS:
        return None
    right = right.dropna(axis="columns")  # windows that all references read
    if right.shape[1] < LEAST_WINDOWS:
        return None
    own = pd.Series([runs[model] for model in right.index])
    weights = np.asarray(1 / own.map(own.value_counts()), dtype=np.float64)  # (n,)
    difficulty, ability = _rasch(right.to_numpy(), weights)
    keys = right.columns.to_numpy(dtype=str)
    cost, loadings = np.empty(0), np.empty((len(keys), 0))
    costs = costs.reindex(index=right.index, columns=right.columns)
    if costs.notna().to_numpy().all():
        values = costs.to_numpy()
        cost = np.average(values, axis=0, weights=weights)  # (J,)
        rest = values - cost
        rest -= rest.mean(axis=1, keepdims=True)
        _, _, axes = np.linalg.svd(np.sqrt(weights)[:, None] * rest, full_matrices=False)
        loadings = axes[: len(COMPONENTS)].T * np.sqrt(len(keys))
        loadings = loadings * np.where(np.sum(loadings**3, axis=0) < 0, -1.0, 1.0)  # one sign, whichever SVD took
    return Items(keys, difficulty, float(np.average(ability, weights=weights)), cost, loadings)


def place(items: Items, own: pd.DataFrame) -> dict[str, float]:
    """Ability and components of one model, with ``noise.<feature>`` their standard errors.

    Args:
        items: fitted on references.
        own: schema CONTINUATIONS of the model, the same corpus and reading; windows that the items lack are not used.

    Returns:
        Only where at least 100 windows are shared.
    """
    row = own.drop_duplicates("window").set_index("window").reindex(items.windows)
    known = row["right"].notna().to_numpy()
    if known.sum() < LEAST_WINDOWS:
        return {}
    ability, error = _ability(row["right"].to_numpy(dtype=float, na_value=np.nan)[known], items, known)
    found = {ABILITY: ability, NOISE + ABILITY: error}
    cost = row["cost_bits"].to_numpy(dtype=float, na_value=np.nan)
    known = known & np.isfinite(cost)
    if items.loadings.shape[1] and known.sum() >= LEAST_WINDOWS:
        rest = cost[known] - items.cost[known]
        rest = rest - rest.mean()
        loadings = items.loadings[known]
        scores, *_ = np.linalg.lstsq(loadings, rest, rcond=None)
        for k, name in enumerate(COMPONENTS[: len(scores)]):
            pull = loadings[:, k] * (rest - scores[k] * loadings[:, k])
            found[name] = float(scores[k])
            found[NOISE + name] = float(np.sqrt(np.sum(pull**2)) / np.sum(loadings[:, k] ** 2))
    return found


def reference_features(table: pd.DataFrame, runs: Mapping[str, str]) -> pd.DataFrame:
    """Place each reference by what was fitted on the references of the other runs.

    Args:
        table: schema CONTINUATIONS, one corpus, one reading.
        runs: training run of each model.

    Returns:
        ``model`` and what `place` tells; components are turned to those of all references (orthogonal Procrustes), for
        without one run they come in another order or with another sign.
    """
    right, costs = _matrix(table, "right"), _matrix(table, "cost_bits")
    whole = _fitted(right, costs, runs)
    rows: list[dict[str, object]] = []
    for run in dict.fromkeys(runs[model] for model in table["model"].unique()):
        inside = table["model"].map(runs) == run
        others = [model for model in right.index if runs[model] != run]
        items = _fitted(right.loc[others], costs, runs)
        if whole is not None and items is not None:
            items = _turned(items, whole)
        for model, own in table[inside].groupby("model"):
            rows.append({"model": model, **({} if items is None else place(items, own))})
    names = [*FEATURES, *[NOISE + name for name in FEATURES]]
    frame = pd.DataFrame(rows).reindex(columns=["model", *names])
    return frame.astype({"model": "string", **dict.fromkeys(names, "Float64")})


def _matrix(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """(n, J) values by model and window."""
    wide = table.astype({column: "Float64"}).pivot_table(index="model", columns="window", values=column, dropna=False)
    values = wide.to_numpy(dtype=np.float64, na_value=np.nan)  # in one piece: a column each would be slow to slice
    return pd.DataFrame(values, index=wide.index, columns=wide.columns)


def _rasch(right: Array, weights: Array) -> tuple[Array, Array]:
    """Difficulties (J,), their mean 0, and abilities (n,) that maximise the posterior, by Newton's steps in turns."""
    ability, difficulty = np.zeros(len(right)), np.zeros(right.shape[1])
    middle = 0.0
    for _ in range(STEPS):
        before = ability
        for _ in range(3):
            p = _chance(ability[:, None] - difficulty)
            slope = weights @ (p - right) - (difficulty - middle) / SPREAD**2
            difficulty = difficulty + slope / (weights @ (p * (1 - p)) + 1 / SPREAD**2)
        middle = float(difficulty.mean())
        p = _chance(ability[:, None] - difficulty)
        slope = (right - p).sum(axis=1) - ability / SPREAD**2
        ability = ability + slope / ((p * (1 - p)).sum(axis=1) + 1 / SPREAD**2)
        if np.abs(ability - before).max() < SETTLED:
            break
    return difficulty - middle, ability - middle


def _ability(right: Array, items: Items, known: NDArray[np.bool_]) -> tuple[float, float]:
    """Ability by given difficulties, and its standard error."""
    ability = items.centre
    information = 1 / SPREAD**2
    for _ in range(STEPS):
        p = _chance(ability - items.difficulty[known])
        information = float((p * (1 - p)).sum()) + 1 / SPREAD**2
        step = float(((right - p).sum() - (ability - items.centre) / SPREAD**2) / information)
        ability += float(np.clip(step, -1.0, 1.0))
        if abs(step) < SETTLED:
            break
    return ability, float(information**-0.5)


def _chance(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


def _turned(items: Items, whole: Items) -> Items:
    """The components of `items` turned to lie nearest to those of `whole`."""
    if not items.loadings.shape[1] or items.loadings.shape[1] != whole.loadings.shape[1]:
        return items
    place_of = {key: at for at, key in enumerate(whole.windows)}
    mine = np.array([at for at, key in enumerate(items.windows) if key in place_of])
    theirs = np.array([place_of[items.windows[at]] for at in mine])
    left, _, right = np.linalg.svd(items.loadings[mine].T @ whole.loadings[theirs])
    return Items(items.windows, items.difficulty, items.centre, items.cost, items.loadings @ left @ right)
