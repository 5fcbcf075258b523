"""Readings of what models say next, side by side: which rows compare, and in which unit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from estimators.base import InputError

BITS, PER_BYTE = "bits", "bits per byte"
_SEVERAL = "asked in more than one way"


def comparable(base: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> tuple[pd.DataFrame, ...]:
    """Keep the rows of two emergence tables that may be compared; tables without rows of the output stay as they are.

    The output (layer -1) compares with the output alone, never with a block, and an output asked as a chat with chats
    alone. Estimators whose rows do not compare leave both tables.

    Args:
        base: an emergence table.
        other: another.
        names: what messages call them.

    Raises:
        InputError: if nothing is left of what both hold.
    """
    if not (is_output(base).any() or is_output(other).any()):
        return base, other
    shared = [name for name in base["estimator"].unique() if (other["estimator"] == name).any()]
    left, right, why = [], [], []
    for name in shared:
        sides = [table[table["estimator"] == name] for table in (base, other)]
        if any(is_output(rows).all() for rows in sides):
            sides = [rows[is_output(rows)] for rows in sides]
        if any(rows.empty for rows in sides):
            held = names[0] if sides[0].empty else names[1]
            why.append(f"{name} of {held} is of blocks alone, while the other side has that of the output")
            continue
        ways = [set(_ways(rows)) for rows in sides]
        common = ways[0] & ways[1]
        if not common:
            said = (f"{run} {' and '.join(sorted(way))}" for run, way in zip(names, ways, strict=True))
            why.append(f"{name} was read in different ways ({'; '.join(said)})")
            continue
        if len(common) > 1:
            why.append(f"{name} was {_SEVERAL} on both sides ({' and '.join(sorted(common))}); compare these apart")
            continue
        sides = [rows[_ways(rows).isin(common)] for rows in sides]
        left.append(sides[0])
        right.append(sides[1])
    if shared and not left:
        raise InputError(f"{names[0]} and {names[1]} do not compare: {'; '.join(why)}; measure both in one way.")
    if not left:
        return base, other  # no estimator in common, which the caller says
    return pd.concat(left), pd.concat(right)


def left_out(base: pd.DataFrame, other: pd.DataFrame, kept: pd.DataFrame, names: tuple[str, str]) -> str | None:
    """Say which readings of the output are not compared; None if all are.

    Args:
        base: an emergence table.
        other: another.
        kept: the rows of `base` that are compared.
        names: what the sentence calls them.

    >>> one, two = (pd.DataFrame({"estimator": e, "layer": -1}) for e in (["output-2", "output-20"], ["output-20"]))
    >>> left_out(one, two, one[1:], ("a", "b"))
    'Not compared: output-2 (a alone).'
    """
    parts = []
    tables = dict(zip(names, (base, other), strict=True))
    readings = {run: set(table.loc[is_output(table), "estimator"]) for run, table in tables.items()}
    for name in sorted(set().union(*readings.values()) - set(kept["estimator"])):
        has = [run for run, own in readings.items() if name in own]
        parts.append(f"{name} ({has[0]} alone)" if len(has) == 1 else f"{name} (asked in another way)")
    return f"Not compared: {', '.join(parts)}." if parts else None


def is_output(table: pd.DataFrame) -> np.ndarray:
    """Whether each row is of the output, rather than of a block."""
    return np.asarray(table["layer"].to_numpy(dtype=float, na_value=np.nan) < 0)


def _ways(rows: pd.DataFrame) -> pd.Series:
    """How rows were read: states, text to continue, or a chat with an instruction."""
    asked = rows["asked"].fillna("").astype(str) if "asked" in rows else pd.Series("", index=rows.index)
    chat = asked.str.startswith("chat") | asked.str.endswith("-chat")
    return pd.Series(np.where(~is_output(rows), "of states", np.where(chat, "as a chat", "as text")), index=rows.index)


def units(both: pd.DataFrame) -> list[str]:
    """The unit that each pair of rows compares in.

    Windows of two models that differ are cut by two tokenizers, as far as anyone knows, and a longer token holds more
    bits: their outputs compare by the byte. Those of one model, after the same windows, or of unknown bytes, by bits.

    Args:
        both: pairs of rows; columns `own_model`, `hash`, `peak_layer` and `bytes_per_token`, each with `_base` and
            `_other` behind its name.
    """
    same = (both["hash_base"] == both["hash_other"]) & (both["hash_base"] != "")
    known = both["bytes_per_token_base"].notna() & both["bytes_per_token_other"].notna()
    output = (both["peak_layer_base"] < 0) & (both["peak_layer_other"] < 0)
    other_model = both["own_model_base"] != both["own_model_other"]
    return [PER_BYTE if each else BITS for each in (output & other_model & ~same & known).tolist()]


def check_alike(both: pd.DataFrame, names: tuple[str, str]) -> list[str]:
    """Refuse outputs after windows of unequal length; say in what else they were measured differently.

    Args:
        both: as for `units`, with `position` and `prefix`.
        names: of the two runs.

    Raises:
        InputError: naming the first such pair.
    """
    output = both[(both["peak_layer_base"] < 0) & (both["peak_layer_other"] < 0)]
    for row in output.to_dict("records"):
        if row["position_base"] != row["position_other"]:
            raise InputError(
                f"{row['model']} on {row['corpus']} was read after windows of {row['position_base']} tokens in "
                f"{names[0]} and of {row['position_other']} in {names[1]}, which say different things; measure both "
                "with one --tokens."
            )
    found = []
    first = output[["prefix_base", "prefix_other"]].dropna().drop_duplicates()
    first = first[first["prefix_base"] != first["prefix_other"]]
    if len(first):
        said = "; ".join(f"{b or 'none'} → {o or 'none'}" for b, o in first.to_numpy().tolist())
        found.append(f"First tokens differ ({said}), which changes most what lone tokens say.")
    return found
