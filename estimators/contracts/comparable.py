"""Whether measurements may stand side by side: in what they differ beside the model."""

from __future__ import annotations

import pandas as pd

ABOUT = ("estimator", "corpus_hash", "windows", "prefix")  # of a measurement, beside model and corpus


def unlike(rows: pd.DataFrame) -> list[str]:
    """Say in what measurements of models on one corpus differ beside the model, a phrase each; nothing where alike.

    Args:
        rows: one per model, with any of `ABOUT`; what is not known counts as alike.

    >>> unlike(pd.DataFrame({"model": ["a", "b"], "windows": [600, 2000], "corpus_hash": ["1", "1"]}))
    ['numbers of windows differ (600 to 2,000)']
    """
    found = []
    values = {name: rows[name].dropna().unique().tolist() for name in ABOUT if name in rows}
    several = {name: each for name, each in values.items() if len(each) > 1}
    if "estimator" in several:
        found.append(
            f"observers differ ({', '.join(sorted(map(str, several['estimator'])))}), whose bits do not compare"
        )
    if "windows" in several:
        fewest, most = int(min(several["windows"])), int(max(several["windows"]))
        found.append(f"numbers of windows differ ({fewest:,} to {most:,})")
    elif "corpus_hash" in several:
        found.append(f"windows are of {len(several['corpus_hash'])} kinds (other tokenizers, seeds or texts)")
    if "prefix" in several:
        found.append(f"first tokens differ ({', '.join(str(text) or 'none' for text in several['prefix'])})")
    return found


def unlike_lines(table: pd.DataFrame) -> list[str]:
    """Say of each corpus and observer of an emergence table in what its models were not measured alike.

    >>> rows = pd.DataFrame({"model": ["a", "b"], "corpus": "animal", "windows": [600, 2000]})
    >>> unlike_lines(rows.assign(estimator="predictive"))
    ['Not measured in the same way on animal: numbers of windows differ (600 to 2,000).']
    """
    if table.empty:  # of a sweep in which every job failed, without columns
        return []
    groups = table.groupby(["corpus", "estimator"], sort=False)
    found = [(corpus, phrase) for (corpus, _), rows in groups for phrase in unlike(rows.drop_duplicates("model"))]
    return list(dict.fromkeys(f"Not measured in the same way on {corpus}: {phrase}." for corpus, phrase in found))
