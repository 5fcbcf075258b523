"""Features of what a model says next: the output rows of an emergence table as one row per model."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from estimators.base import InputError
from proxy.features.joining import combine
from proxy.measurement.output import OUTPUT_LAYER

SAMPLES = 0  # tokens shown, where there are samples alone
OUTPUT = "output."  # begins the names of all these features
NOISE = "noise."  # stands before the name of a feature in the column of its standard error

# Feature, by the reading it is taken from: what of the row, and its standard error.
_PREDICTIVE = {
    "output.nll": ("nll", "macro_std_error"),
    "output.nll_lone": ("nll_lone", "micro_std_error"),
    "output.predictive": ("macro_bits", "macro_std_error"),
    "output.predictive_lone": ("micro_bits", "micro_std_error"),
    "output.predictive_e": ("ie_bits", "ie_std_error"),
    "output.accuracy": ("accuracy", "accuracy_std_error"),
    "output.log_rank": ("log_rank", "log_rank_std_error"),
}
_SHANNON = {
    "output.j": ("macro_bits", "macro_std_error"),
    "output.j_lone": ("micro_bits", "micro_std_error"),
    "output.j_e": ("ie_bits", "ie_std_error"),
}
_ORDER_TWO = {
    "output.j2": ("macro_bits", "macro_std_error"),
    "output.j2_lone": ("micro_bits", "micro_std_error"),
    "output.j2_e": ("ie_bits", "ie_std_error"),
}
_SAMPLED = {**_ORDER_TWO, "output.accuracy": _PREDICTIVE["output.accuracy"]}


def needed_readings(shown: int) -> tuple[str, ...]:
    """Readings of the output that the features are taken from.

    Args:
        shown: tokens shown with their logprob; `SAMPLES`: none, the model is sampled.

    >>> needed_readings(20), needed_readings(SAMPLES)
    (('predictive-20', 'output-20', 'output-2-of-20'), ('output-2',))
    """
    return (f"predictive-{shown}", f"output-{shown}", f"output-2-of-{shown}") if shown else ("output-2",)


def shown_in(table: pd.DataFrame) -> list[int]:
    """Numbers of shown tokens for which a table has all readings, the most first; `SAMPLES` last.

    >>> shown_in(pd.DataFrame({"layer": -1, "estimator": ["output-2", "output-20"]}))
    [0]
    """
    names = set(table.loc[table["layer"] == OUTPUT_LAYER, "estimator"].dropna())
    numbers = {int(name.partition("-")[2]) for name in names if re.fullmatch(r"predictive-\d+", name)}
    return [k for k in [*sorted(numbers, reverse=True), SAMPLES] if names.issuperset(needed_readings(k))]


def output_features(table: pd.DataFrame, *, shown: int) -> pd.DataFrame:
    """Turn the output rows of models on one corpus into one row of features each.

    Args:
        table: schema EMERGENCE with rows of the output (layer -1), one corpus.
        shown: tokens shown; only readings of as many compare. `SAMPLES`: what samples alone tell.

    Returns:
        ``model``; ``output.nll`` and ``output.nll_lone``, bits per byte of the token that follows a window and of one
        that follows a lone token; ``output.predictive``, ``output.j``, ``output.j2``, information in bits by the
        predictive, the Shannon and the order-two reading, with ``_lone`` of lone tokens and ``_e`` the difference,
        emergence; ``output.accuracy``, how often it says the token that follows (its likeliest; of samples, each), and
        ``output.log_rank``, mean log2 of that token's rank among the shown; and ``noise.<feature>``, its standard
        error. What the way of asking does not show is null. Where windows of several lengths were read, all is of the
        longest, and ``output.nll_at_<tokens>`` of each shorter one is beside it.

    Raises:
        InputError: if there are several corpora, or a model was read twice in one way.

    >>> rows = pd.DataFrame({"model": "m", "corpus": "c", "layer": -1, "estimator": ["output-2"], "macro_bits": 4.0,
    ...                      "micro_bits": 3.0, "ie_bits": 1.0})
    >>> output_features(rows, shown=SAMPLES)[["output.j2", "output.j2_e"]].values.tolist()
    [[4.0, 1.0]]
    """
    rows = table[table["layer"] == OUTPUT_LAYER]
    position = rows["position"] if "position" in rows else pd.Series(0, index=rows.index)
    cut = (position < position.max()).fillna(value=False).to_numpy(dtype=bool)
    rows, shorter = rows[~cut], rows[cut]
    corpora = sorted(rows["corpus"].unique())
    if len(corpora) > 1:
        raise InputError(f"Output features are of one corpus, but the table holds {', '.join(corpora)}; choose one.")
    readings = needed_readings(shown)
    kinds = (_PREDICTIVE, _SHANNON, _ORDER_TWO) if shown else (_SAMPLED,)
    parts: dict[str, dict[str, Any]] = {}
    for name, features in zip(readings, kinds, strict=True):
        own = rows[rows["estimator"] == name]
        twice = own["model"][own["model"].duplicated()]
        if len(twice):
            raise InputError(f"{twice.iloc[0]} was read twice by {name}; keep one of the rows.")
        for row in own.to_dict(orient="records"):
            found = parts.setdefault(str(row["model"]), {})
            for feature, (value, error) in features.items():
                found[feature], found[NOISE + feature] = _values(row, value, error)
    names = [*combine(_PREDICTIVE, _SHANNON, _ORDER_TWO)]
    for row in shorter[shorter["estimator"] == readings[0]].to_dict(orient="records") if shown else []:
        feature = f"output.nll_at_{row['position']}"
        found = parts.setdefault(str(row["model"]), {})
        found[feature], found[NOISE + feature] = _values(row, *_PREDICTIVE["output.nll"])
        names += [] if feature in names else [feature]
    columns = ["model", *names, *[NOISE + name for name in names]]
    frame = pd.DataFrame([{"model": model, **values} for model, values in parts.items()]).reindex(columns=columns)
    return frame.astype({"model": "string", **dict.fromkeys(columns[1:], "Float64")})


def _values(row: Mapping[Hashable, Any], value: str, error: str) -> tuple[Any, Any]:
    """A value of a row and its standard error; of a cost per byte that of the gain it is taken from."""
    if value in ("nll", "nll_lone"):
        part = "macro" if value == "nll" else "micro"
        per_byte = float(row["bytes_per_token"])
        cost = float(row[f"{part}_ceiling_bits"]) - float(row[f"{part}_bits"])
        noise = row.get(error)
        return cost / per_byte, pd.NA if pd.isna(noise) else float(noise) / per_byte
    return row.get(value, pd.NA), row.get(error, pd.NA)


def common_shown(table: pd.DataFrame) -> int:
    """The most tokens shown by which all models of a table were read; `SAMPLES` where samples are all they share.

    Raises:
        InputError: if they share no reading, or some were asked as chats and others were not.
    """
    rows = table[table["layer"] == OUTPUT_LAYER]
    if rows.empty:
        raise InputError(
            "The table has no output rows (layer -1); measure models with --estimator "
            "predictive-20,output-20,output-2-of-20, or behind an API with --base-url."
        )
    chats = as_chats(rows)
    if chats.any() and not chats.all():
        raise InputError(
            f"{rows.loc[chats, 'model'].iloc[0]} was asked as a chat and {rows.loc[~chats, 'model'].iloc[0]} was not: "
            "the numbers do not compare."
        )
    ways = {str(model): shown_in(own) for model, own in rows.groupby("model")}
    shared = [k for k in next(iter(ways.values())) if all(k in known for known in ways.values())]
    if not shared:
        listed = "; ".join(
            f"{model}: {', '.join(sorted(own['estimator'].unique()))}" for model, own in rows.groupby("model")
        )
        raise InputError(
            f"The models share no set of readings of the output ({listed[:200]}); measure all with --estimator "
            "predictive-20,output-20,output-2-of-20, or all with output-2."
        )
    return shared[0]


def asked_in_chat(table: pd.DataFrame) -> bool:
    """Whether the output rows of a table were asked as chats."""
    return bool(as_chats(table[table["layer"] == OUTPUT_LAYER]).any())


def as_chats(rows: pd.DataFrame) -> pd.Series:
    """Which rows were asked as chats; they do not compare with the others."""
    return rows["asked"].fillna("").map(lambda asked: asked.startswith("chat") or asked.endswith("-chat")).astype(bool)
