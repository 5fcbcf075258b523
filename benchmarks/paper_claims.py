"""What the study asks of the measurements, the rule that decides each answer, and the answer.

Here are the claims on size, depth and text; those on lists are in paper_list_claims.py, those on observers in
paper_observer_claims.py, and what all of them share is in paper_rules.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import paper_figures as figures
from paper_list_claims import levelling, spread, staircase
from paper_observer_claims import preset, ranking
from paper_rules import (
    ERRORS,
    LISTS,
    SHUFFLE,
    TRAINED,
    UNKNOWN,
    Claim,
    Study,
    answer,
    blocks,
    by_case,
    curve,
    difference,
    interval,
    only,
    peaks,
    shared,
    spearman,
    with_cases,
)

from estimators import DEFAULT_RESOLUTION


def judge_all(study: Study, images: Path) -> list[Claim]:
    """Judge every claim there is data for, and draw its figure into `images`."""
    text = study.main[~study.main["corpus"].str.removesuffix(SHUFFLE).isin(LISTS)]
    images.mkdir(parents=True, exist_ok=True)
    claims = [by_size(study.main, images), by_depth(study.main, images)]
    if not text.empty and text["position"].max() > text["position"].min():
        claims.append(by_token(text, images))
    if not study.shots.empty:
        claims += [staircase(study.shots, images), levelling(study.shots, images), spread(study.shots, images)]
    if not text.empty and text["resolution"].notna().any():
        claims.append(ranking(text, with_cases(study.trained), images))
    if not study.preset.empty:
        claims.append(preset(with_cases(study.preset), images))
    return claims


def by_size(main: pd.DataFrame, images: Path) -> Claim:
    """IE rises with model size."""
    found = peaks(main)
    rows = []
    sizes = only(found, TRAINED).groupby(["corpus", "family"]).size()
    for names, one in by_case(found.sort_values(["corpus", "family"], kind="stable"), ["corpus", "family"]):
        if sizes.get((names["corpus"], names["family"]), 0) < 2:  # one size says nothing of size
            continue
        rise, error = difference(one.iloc[-1], one.iloc[0])
        parameters = one["parameters"].to_numpy(float)
        rows.append(
            {
                **names,
                "E smallest": one.iloc[0]["ie_bits"],
                "E largest": one.iloc[-1]["ie_bits"],
                "rise": rise,
                "error": error,
                "Spearman": spearman(one["ie_bits"], parameters),
                "its 90 % interval": interval(partial(spearman, parameters), one["ie_bits"], one["ie_std_error"]),
            }
        )
    numbers = pd.DataFrame(rows).rename(columns={"family": "architecture"})
    if numbers.empty:
        return Claim(
            title="Emergence rises with the size of the model",
            rule="It needs two sizes of one architecture.",
            verdict=UNKNOWN,
            remark="No architecture was measured at two sizes.",
            numbers=found[["corpus", "of", "case", "parameters", "ie_bits", "ie_std_error"]].rename(
                columns={"of": "model"}
            ),
            figure=figures.size(found, images),
        )
    trained = only(numbers, TRAINED)
    risen = trained["rise"] > ERRORS * trained["error"]
    every = main[main["resolution"].notna()]["resolution"].unique()
    monotone = [f"{rho:g}" for rho in sorted(every) if _spearman_by_family(peaks(main, rho)).min() >= 0.9]
    return Claim(
        title="Emergence rises with the size of the model",
        rule=f"In every architecture and corpus E rises from the smallest to the largest model by more than "
        f"{ERRORS:g} errors, and Spearman's correlation with size is at least 0.9.",
        verdict=answer(
            bool((risen & (trained["Spearman"] >= 0.9)).all()),
            not risen.any(),
            shared(numbers, ["corpus", "architecture"], "rise"),
        ),
        remark=f"At resolution {DEFAULT_RESOLUTION:g}. Resolutions at which E orders the sizes of every architecture "
        f"on every corpus (Spearman at least 0.9): {', '.join(monotone) or 'none'}."
        if len(every)
        else f"It rises so in {int(risen.sum())} of {len(risen)} architectures that were measured at several sizes.",
        numbers=numbers,
        figure=figures.size(found, images),
    )


def _spearman_by_family(found: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [
            spearman(group["ie_bits"], group["parameters"])
            for _, group in only(found, TRAINED).groupby(["corpus", "family"])
            if len(group) > 1
        ]
    )


def by_depth(main: pd.DataFrame, images: Path) -> Claim:
    """E(l) rises with depth."""
    found = blocks(main)
    rows = []
    for names, one in by_case(found.sort_values(["corpus", "of"], kind="stable"), ["corpus", "of"]):
        rise, error = difference(one.iloc[-1], one.iloc[0])
        rows.append(
            {
                **names,
                "E first": one.iloc[0]["ie_bits"],
                "E last": one.iloc[-1]["ie_bits"],
                "rise": rise,
                "error": error,
                "highest block": int(one.loc[one["ie_bits"].idxmax(), "layer"]),
            }
        )
    numbers = pd.DataFrame(rows).rename(columns={"of": "model"})
    trained = only(numbers, TRAINED)
    risen = trained["rise"] > ERRORS * trained["error"]
    return Claim(
        title="Emergence rises with depth, E(l) from the first block to the last",
        rule=f"In every model and corpus the last block's E exceeds the first one's by more than {ERRORS:g} errors.",
        verdict=answer(bool(risen.all()), not risen.any(), shared(numbers, ["corpus", "model"], "rise")),
        remark=f"It does so in {int(risen.sum())} of {len(risen)} cases.",
        numbers=numbers,
        figure=figures.depth(found, images),
    )


def by_token(text: pd.DataFrame, images: Path) -> Claim:
    """In natural text IE rises token by token; models that were read at their last token alone say nothing of it."""
    found = curve(text)
    found = found[found.groupby(["model", "corpus"])["position"].transform("nunique") > 1]
    rows = []
    for names, one in by_case(found, ["of", "corpus"]):
        steps = [difference(one.iloc[i + 1], one.iloc[i]) for i in range(len(one) - 1)]
        rise, error = difference(one.iloc[-1], one.iloc[0])
        rows.append(
            {
                **names,
                "steps that rise": f"{sum(gain > 2 * each for gain, each in steps)} of {len(steps)}",
                "rise": rise,
                "error": error,
                "rise of the ceiling": one.iloc[-1]["macro_ceiling_bits"] - one.iloc[0]["macro_ceiling_bits"],
            }
        )
    numbers = pd.DataFrame(rows).rename(columns={"of": "model"})
    trained = only(numbers, TRAINED)
    counts = trained["steps that rise"].str.extract(r"(\d+) of (\d+)").astype(int)
    risen = trained["rise"] > ERRORS * trained["error"]
    return Claim(
        title="In natural text emergence rises token by token",
        rule="In every model each further token adds more than two errors of IE, and the whole rise passes "
        f"{ERRORS:g}.",
        verdict=answer(
            bool((counts[0] == counts[1]).all() and risen.all()),
            not risen.any(),
            shared(numbers, ["model", "corpus"], "rise"),
        ),
        remark="The ceiling of the macro information rises with the position by itself, as longer contexts repeat "
        "less; a control that rises alike shows how much of the effect that is.",
        numbers=numbers,
        figure=figures.position(found, images),
    )
