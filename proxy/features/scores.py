"""Known scores of models joined to their features: from a leaderboard to a reference table."""

from __future__ import annotations

import pandas as pd

from estimators.base import InputError
from proxy.features.families import proposed_families, proposed_family
from proxy.features.joining import check_apart
from proxy.features.table import found_as
from proxy.schemas import REFERENCES


def join_scores(frame: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Put known scores of models beside their features, and the families that their names propose where none is given.

    Args:
        frame: features, one row per model.
        scores: one row per model with its name in ``model`` (or the first column, if it has no name, as in AlpacaEval's
            leaderboards) and numbers to be learned, such as ``win_rate``; also ``family`` and ``parameters``.

    Returns:
        All rows of `frame`, with a column per column of `scores`; null for models without a score, which a proxy does
        not learn from but estimates. ``attrs["proposed"]`` holds the models of each proposed family, if any was.

    Raises:
        InputError: if `scores` has no column of names, repeats a model, has a column that `frame` has, or none of the
            models.

    Example:
        >>> features = pd.DataFrame({"model": ["vicuna-7b", "gpt-4o"], "behaviour.log_words": [4.5, 5.0]})
        >>> joined = join_scores(features, pd.DataFrame({"model": ["vicuna-7b"], "win_rate": [6.3]}))
        >>> joined["family"].tolist(), joined["win_rate"].tolist()
        (['llama', 'gpt-4'], [6.3, nan])
    """
    first = str(scores.columns[0]) if len(scores.columns) else ""
    if "model" not in scores.columns and first.startswith("Unnamed:"):
        scores = scores.rename(columns={first: "model"})
    if "model" not in scores.columns:
        raise InputError(
            f"The table of scores needs a column model; it has {', '.join(map(str, scores.columns)) or 'no columns'}."
        )
    scores = scores.assign(model=scores["model"].astype("string"))
    repeated = scores["model"][scores["model"].duplicated()]
    if len(repeated):
        raise InputError(f"The table of scores has several rows of {repeated.iloc[0]}; keep one per model.")
    check_apart("Scores", frame.columns, scores.columns.drop("model"))
    known = scores["model"].dropna().tolist()
    found = {name: found_as(name, known) for name in frame["model"]}
    if not any(found.values()):
        raise InputError(
            f"The table of scores has none of the {len(frame)} models of the answers: it has {known[0]}, they are of "
            f"{frame['model'].iloc[0]}; use the same names."
            if known
            else "The table of scores names no model."
        )
    frame = frame.assign(_scored=frame["model"].map(found).astype("string"))
    joined = frame.merge(scores.rename(columns={"model": "_scored"}), on="_scored", how="left").drop(columns="_scored")
    if "family" not in joined.columns:
        joined["family"] = pd.array([pd.NA] * len(joined), dtype="string")
    unknown = joined["family"].isna()
    joined["family"] = joined["family"].astype("string").where(~unknown, joined["model"].map(proposed_family))
    joined = REFERENCES.conform(joined)
    joined.attrs["proposed"] = proposed_families(joined["model"][unknown])
    return joined
