"""What the study asks of the measurements, the rule that decides each answer, and the answer.

Here are the claims on size, depth, text and observers; those on lists are in paper_list_claims.py, and what all of
them share is in paper_rules.py.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import paper_figures as figures
from paper_list_claims import levelling, spread, staircase
from paper_rules import ERRORS, LISTS, SHARE, UNKNOWN, Claim, Study, answer, curve, difference, peaks, with_twins

from estimators import DEFAULT_RESOLUTION
from proxy.measure import emergence_by_block


def judge_all(study: Study, images: Path) -> list[Claim]:
    """Judge every claim there is data for, and draw its figure into `images`."""
    main = with_twins(study.main)
    claims = [by_size(main, images), by_depth(main, images)]
    has_text = bool((~main["corpus"].isin(LISTS)).any())
    if has_text:
        claims.append(by_token(main, with_twins(study.shuffled), images))
    if not study.shots.empty:
        shots = with_twins(study.shots)
        claims += [staircase(shots, images), levelling(shots), spread(shots, images)]
    if has_text:
        claims.append(ranking(main, with_twins(study.trained), images))
    if not study.preset.empty:
        claims.append(preset(study.preset))
    return claims


def by_size(main: pd.DataFrame, images: Path) -> Claim:
    """IE rises with model size."""
    found = peaks(main)
    rows = []
    for (corpus, family), group in found.groupby(["corpus", "family"], sort=True):
        if (~group["twin"]).sum() < 2:  # one size says nothing of size
            continue
        row: dict[str, object] = {"corpus": corpus, "architecture": family}
        for twin, label in ((False, "trained"), (True, "random")):
            one = group[group["twin"] == twin]
            if one.empty:
                continue
            rise, error = difference(one.iloc[-1], one.iloc[0])
            row |= {
                f"{label}: E smallest": one.iloc[0]["ie_bits"],
                f"{label}: E largest": one.iloc[-1]["ie_bits"],
                f"{label}: rise": rise,
                f"{label}: error": error,
                f"{label}: Spearman": one["ie_bits"].corr(one["parameters"], method="spearman"),
            }
        rows.append(row)
    numbers = pd.DataFrame(rows)
    if numbers.empty:
        return Claim(
            title="Emergence rises with the size of the model",
            rule="It needs two sizes of one architecture.",
            verdict=UNKNOWN,
            remark="No architecture was measured at two sizes.",
            numbers=found[["corpus", "model", "parameters", "ie_bits", "ie_std_error"]],
            figure=figures.size(found, images),
        )
    rise, spearman = numbers["trained: rise"], numbers["trained: Spearman"]
    seen = bool(((rise > ERRORS * numbers["trained: error"]) & (spearman >= 0.9)).all())
    has_twins = "random: rise" in numbers
    shared = bool(has_twins and (numbers["random: rise"] >= SHARE * rise).any())
    every = main[main["resolution"].notna()]["resolution"].unique()
    monotone = [f"{rho:g}" for rho in sorted(every) if _spearman_by_family(peaks(main, rho)).min() >= 0.9]
    return Claim(
        title="Emergence rises with the size of the model",
        rule=f"In every architecture and corpus E rises from the smallest to the largest model by more than "
        f"{ERRORS:g} errors, and Spearman's correlation with size is at least 0.9.",
        verdict=answer(seen, bool((rise < ERRORS * numbers["trained: error"]).all()), shared),
        remark=f"At resolution {DEFAULT_RESOLUTION:g}. Resolutions at which E orders the sizes of every architecture "
        f"on every corpus (Spearman at least 0.9): {', '.join(monotone) or 'none'}.",
        numbers=numbers,
        figure=figures.size(found, images),
    )


def _spearman_by_family(found: pd.DataFrame) -> pd.Series:
    trained = found[~found["twin"]]
    return pd.Series(
        [
            group["ie_bits"].corr(group["parameters"], method="spearman")
            for _, group in trained.groupby(["corpus", "family"])
            if len(group) > 1
        ]
    )


def by_depth(main: pd.DataFrame, images: Path) -> Claim:
    """E(l) rises with depth."""
    found = with_twins(emergence_by_block(main)).sort_values("layer")
    rows = []
    for (corpus, of), group in found.groupby(["corpus", "of"], sort=False):
        row: dict[str, object] = {"corpus": corpus, "model": of}
        for twin, label in ((False, "trained"), (True, "random")):
            one = group[group["twin"] == twin]
            if one.empty:
                continue
            rise, error = difference(one.iloc[-1], one.iloc[0])
            row |= {
                f"{label}: E first": one.iloc[0]["ie_bits"],
                f"{label}: E last": one.iloc[-1]["ie_bits"],
                f"{label}: rise": rise,
                f"{label}: error": error,
                f"{label}: highest block": int(one.loc[one["ie_bits"].idxmax(), "layer"]),
            }
        rows.append(row)
    numbers = pd.DataFrame(rows).sort_values(["corpus", "model"], kind="stable")
    risen = numbers["trained: rise"] > ERRORS * numbers["trained: error"]
    shared = bool(
        "random: rise" in numbers and (numbers["random: rise"] >= SHARE * numbers["trained: rise"])[risen].any()
    )
    return Claim(
        title="Emergence rises with depth, E(l) from the first block to the last",
        rule=f"In every model and corpus the last block's E exceeds the first one's by more than {ERRORS:g} errors.",
        verdict=answer(bool(risen.all()), not risen.any(), shared),
        remark=f"It does so in {int(risen.sum())} of {len(risen)} cases.",
        numbers=numbers,
        figure=figures.depth(found, images),
    )


def by_token(main: pd.DataFrame, shuffled: pd.DataFrame, images: Path) -> Claim:
    """In natural text IE rises token by token."""
    text = main[~main["corpus"].isin(LISTS)]
    found = curve(text)
    controls = found[found["twin"]]
    if not shuffled.empty:
        controls = pd.concat([controls, curve(shuffled)], ignore_index=True)
    rows = []
    for (of, corpus), group in found[~found["twin"]].groupby(["of", "corpus"], sort=False):
        steps = [difference(group.iloc[i + 1], group.iloc[i]) for i in range(len(group) - 1)]
        row: dict[str, object] = {
            "model": of,
            "corpus": corpus,
            "steps that rise": f"{sum(gain > 2 * error for gain, error in steps)} of {len(steps)}",
            "rise": group.iloc[-1]["ie_bits"] - group.iloc[0]["ie_bits"],
            "error": difference(group.iloc[-1], group.iloc[0])[1],
        }
        same = (controls["of"] == of) & (controls["corpus"].str.removesuffix(", shuffled") == corpus)
        for _, control in controls[same].groupby(["model", "corpus"], sort=False):
            label = "random" if control["twin"].iloc[0] else "shuffled text"
            row[f"{label}: rise"] = control.iloc[-1]["ie_bits"] - control.iloc[0]["ie_bits"]
        row["rise of the ceiling"] = group.iloc[-1]["macro_ceiling_bits"] - group.iloc[0]["macro_ceiling_bits"]
        rows.append(row)
    numbers = pd.DataFrame(rows)
    counts = numbers["steps that rise"].str.extract(r"(\d+) of (\d+)").astype(int)
    risen = numbers["rise"] > ERRORS * numbers["error"]
    seen = bool((counts[0] == counts[1]).all() and risen.all())
    names = [name for name in ("random: rise", "shuffled text: rise") if name in numbers]
    shared = any(bool((numbers[name] >= SHARE * numbers["rise"]).any()) for name in names)
    return Claim(
        title="In natural text emergence rises token by token",
        rule="In every model each further token adds more than two errors of IE, and the whole rise passes "
        f"{ERRORS:g}.",
        verdict=answer(seen, not risen.any(), shared),
        remark="The ceiling of the macro information rises with the position by itself, as longer contexts repeat "
        "less; a control that rises alike shows how much of the effect that is.",
        numbers=numbers,
        figure=figures.position(found, controls, images),
    )


def ranking(main: pd.DataFrame, trained: pd.DataFrame, images: Path) -> Claim:
    """The ranking of models does not depend on the observer."""
    text = main[~main["corpus"].isin(LISTS) & ~main["twin"]]
    last = text[text["layer"] == text.groupby("model")["layer"].transform("max")]
    columns = {}
    for rho in sorted(last["resolution"].dropna().unique()):
        one = emergence_by_block(last, resolution=rho)
        columns[f"propagation {rho:g}"] = one.set_index(["model", "corpus"])["ie_bits"].groupby("model").mean()
    if not trained.empty:
        for label, group in trained[~trained["twin"]].groupby("estimator", sort=False):
            columns[str(label)] = group.set_index("model")["ie_bits"]
    agreement = pd.DataFrame(columns).astype(float).corr(method="spearman")
    several = len(agreement) > 1 and len(last["model"].unique()) > 2
    lowest = float(agreement.min().min())
    rows = agreement.reset_index(names="E of the last block by")
    remark = f"The least agreement of two observers is {lowest:.2f}."
    if not trained.empty:
        real = trained[~trained["twin"]]
        flagged = real[real["flags"].fillna("").astype(str).str.len() > 0]
        for label, group in trained.groupby("estimator", sort=False):
            remark += (
                f" {label}: {int((flagged['estimator'] == label).sum())} of {int((real['estimator'] == label).sum())} "
                f"macro estimates are flagged; E of trained models {_span(group[~group['twin']]['ie_bits'])}, of "
                f"random ones {_span(group[group['twin']]['ie_bits'])}; on pairs drawn anew, whose truth is 0 bits, "
                f"{_span(group['shuffled_bits'])}."
            )
    return Claim(
        title="Which model has more emergence does not depend on estimator and resolution",
        rule="Spearman's correlation over the models is at least 0.8 between any two observers (our question: the "
        "paper used one).",
        verdict=answer(several and lowest >= 0.8, several and lowest <= 0.5, False),
        remark=remark,
        numbers=rows,
        figure=figures.agreement(agreement, images),
    )


def _span(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def preset(table: pd.DataFrame) -> Claim:
    """The paper's estimator stays below what is possible."""
    numbers = table.drop(columns=["epochs", "samples"])
    above = numbers["max"] > numbers["ceiling"] + 0.05
    return Claim(
        title="The paper's MINE, read at the maximum over its epochs, is a lower bound",
        rule="The maximum passes the ceiling (0 bits for pairs drawn anew) in no case by more than 0.05 bits.",
        verdict=answer(not above.any(), bool(above.any()), False),
        remark=f"{int(table['epochs'].iloc[0])} epochs on {int(table['samples'].iloc[0])} windows of text, macro pair "
        "of the last block; the paper ran 10,000 epochs on 300,000, so a low number here may be for want of training.",
        numbers=numbers,
    )
