"""What the study asks of observers: whether estimators and resolutions agree, and whether the paper's is a bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import paper_figures as figures
from paper_rules import CASES, RANDOM, TRAINED, Claim, answer, blocks, interval, only

MARGIN = 0.05  # bits above a ceiling that an estimate may show


def ranking(text: pd.DataFrame, trained: pd.DataFrame, images: Path) -> Claim:
    """The ranking of models does not depend on the observer."""
    last = text[text["layer"] == text.groupby("model")["layer"].transform("max")]
    by_case = {}
    for case in CASES:
        bits, errors = _by_resolution(last, case)
        if len(bits) < 3:  # two models are always in order or out of it
            continue
        by_case[case] = f"{_least(bits.to_numpy(float).T):.2f} ({interval(_least, bits.T, errors.T)})"
    bits, errors = _by_resolution(last, TRAINED)
    if not trained.empty:
        for label, group in only(trained, TRAINED).groupby("estimator", sort=False):
            one = group.set_index("model")
            bits[str(label)], errors[str(label)] = one["ie_bits"], one["ie_std_error"]
    agreement = bits.astype(float).corr(method="spearman")
    several = len(agreement) > 1 and len(bits) > 2
    lowest = float(agreement.min().min())
    remark = f"The least agreement of two observers is {lowest:.2f}"
    if several:
        remark += f" (90 %: {interval(_least, bits.T, errors.T)})"
        least = "; ".join(f"{case} {told}" for case, told in by_case.items())
        remark += f". Between resolutions alone it is: {least}"
    return Claim(
        title="Which model has more emergence does not depend on estimator and resolution",
        rule="Spearman's correlation over the models is at least 0.8 between any two observers (our question: the "
        "paper used one).",
        verdict=answer(several and lowest >= 0.8, several and lowest <= 0.5, False),
        remark=remark + "." + _of_trained_estimators(trained),
        numbers=agreement.reset_index(names="E of the last block by"),
        figure=figures.agreement(agreement, images),
    )


def _by_resolution(last: pd.DataFrame, case: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """E of the last block and its error: a row per model, a column per resolution; the mean over corpora."""
    bits, errors = {}, {}
    for rho in sorted(last["resolution"].dropna().unique()):
        by_model = only(blocks(last, rho), case).groupby("of", sort=False)
        bits[f"propagation {rho:g}"] = by_model["ie_bits"].mean().astype(float)
        squares = by_model["ie_std_error"].agg(lambda each: float(np.sqrt((each.astype(float) ** 2).sum())) / len(each))
        errors[f"propagation {rho:g}"] = squares.astype(float)
    return pd.DataFrame(bits), pd.DataFrame(errors)


def _least(bits: np.ndarray) -> float:
    """The least of Spearman's correlations between the rows."""
    return float(np.corrcoef(pd.DataFrame(bits).rank(axis=1)).min())


def _of_trained_estimators(trained: pd.DataFrame) -> str:
    if trained.empty:
        return ""
    remark = ""
    for label, group in trained.groupby("estimator", sort=False):
        real = only(group, TRAINED)
        flagged = int((real["flags"].fillna("").astype(str).str.len() > 0).sum())
        remark += (
            f" {label}: {flagged} of {len(real)} macro estimates are flagged; E of trained models "
            f"{_span(real['ie_bits'])}, of random ones {_span(only(group, RANDOM)['ie_bits'])}, errors up to "
            f"{group['ie_std_error'].max():.2f}; on shuffled pairs, whose truth is 0 bits, "
            f"{_span(group['shuffled_bits'])}."
        )
    return remark


def _span(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def preset(table: pd.DataFrame, images: Path) -> Claim:
    """The paper's estimator stays below what is possible."""
    rows = []
    for (of, case, pairs), group in table.groupby(["of", "case", "pairs"], sort=False):
        rows.append(
            {
                "model": of,
                "case": case,
                "pairs": pairs,
                **{name: float(group[name].mean()) for name in ("max", "last", "held_out")},
                "error of max": float(group["max"].std(ddof=1) / np.sqrt(len(group))),
                "highest max": float(group["max"].max()),
                "ceiling": float(group["ceiling"].iloc[0]),
            }
        )
    numbers = pd.DataFrame(rows)
    above = table["max"] > table["ceiling"] + MARGIN
    return Claim(
        title="The paper's MINE, read at the maximum over its epochs, is a lower bound",
        rule=f"In no run does the maximum pass the ceiling (0 bits for shuffled pairs) by more than {MARGIN} bits.",
        verdict=answer(not above.any(), bool(above.any()), False),
        remark=f"{int(above.sum())} of {len(table)} runs pass it. {int(table['epochs'].iloc[0])} epochs on "
        f"{int(table['samples'].iloc[0])} windows of text, macro pair of the last block; mean, error and highest of "
        f"{table['seed'].nunique()} seeds. The paper ran 10,000 epochs on 300,000, so a low number here may mean "
        "that it was trained too little.",
        numbers=numbers,
        figure=figures.bounds(numbers, images),
    )
