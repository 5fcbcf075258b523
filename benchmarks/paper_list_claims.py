"""What the study asks of lists, whose windows grow by demonstrations: where IE rises, levels off and spreads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import paper_figures as figures
from numpy.typing import ArrayLike, NDArray
from paper_rules import ERRORS, TRAINED, Claim, answer, by_case, curve, difference, interval

BY_WINDOW = (
    "The comma is certain, so run alone it tells nothing: at even positions the mean of the micro information falls, "
    "and IE rises by that alone, whatever the model does. The table separates the two steps."
)
OF_SAMPLE = (
    "N windows can show at most log2 N bits: a levelling that moves with the number of windows, or that the ceiling "
    "shares, is one of the sample and not of the model. "
)
BY_NEXT = (
    "An entity alone says that a comma follows, and a comma alone that an entity does, so micro holds both. What IE "
    "adds is which entity, and that none comes twice; it is read after a comma, and the comma after an entity."
)
KEYS = ["of", "corpus", "windows"]
LEVEL = 0.95  # a curve has levelled off where it has made this share of its whole rise


def staircase(shots: pd.DataFrame, images: Path) -> Claim:
    """In lists IE rises only when a new demonstration comes."""
    found = curve(shots)
    many = found[found["windows"] == found["windows"].max()]
    rows = []
    for row, one in by_case(many, ["of", "corpus"]):
        value = one.set_index("position")
        for part, first in (("entity", 3), ("comma", 4)):
            steps = [difference(value.loc[t], value.loc[t - 1]) for t in range(first, 15, 2) if t in value.index]
            row[f"gain per {part}"] = float(np.mean([gain for gain, _ in steps]))
            row[f"error, {part}"] = float(np.sqrt(sum(error**2 for _, error in steps))) / len(steps)
        row["rise of E"], row["its error"] = difference(value.loc[14], value.loc[2])
        rows.append(row)
    numbers = pd.DataFrame(rows).rename(columns={"of": "model"})
    climbing = climbs(numbers)
    trained = numbers["case"] == TRAINED
    return Claim(
        title="In lists emergence rises only when a new demonstration comes",
        rule=f"From the second to the seventh shot a new entity adds more than {ERRORS:g} errors on average, and its "
        "comma no more than a tenth of that, and IE at the ends of the shots rises by as many errors from the first to "
        "the seventh. A control shares this if it does so too.",
        verdict=answer(bool(climbing[trained].all()), not climbing[trained].any(), bool(climbing[~trained].any())),
        remark=BY_WINDOW if shots["resolution"].notna().any() else BY_NEXT,
        numbers=numbers,
        figure=figures.shots(found, images),
    )


def climbs(numbers: pd.DataFrame) -> pd.Series:
    """Whether IE rises from shot to shot, and at the entities only."""
    return (
        (numbers["gain per entity"] > ERRORS * numbers["error, entity"])
        & (numbers["gain per comma"] <= 0.1 * numbers["gain per entity"])
        & (numbers["rise of E"] > ERRORS * numbers["its error"])
    )


def at_shots(found: pd.DataFrame) -> pd.DataFrame:
    """Keep the end of each shot and number it."""
    even = found[found["position"] % 2 == 0]
    return even.assign(shot=even["position"] // 2)


def levelled(values: ArrayLike | Sequence[float]) -> int:
    """First shot at which a curve has made 95 % of its rise from the first one to its highest value; 1: no rise."""
    rise = np.asarray(values, float)
    rise = rise - rise[0]
    return int(np.argmax(rise >= LEVEL * rise.max())) + 1


def levelling(shots: pd.DataFrame, images: Path) -> Claim:
    """In lists IE levels off by about the seventh shot."""
    found = at_shots(curve(shots))
    rows = []
    for names, one in by_case(found.sort_values(KEYS, kind="stable"), KEYS):
        rise, error = difference(one.loc[one["ie_bits"].idxmax()], one.iloc[0])
        rows.append(
            {
                **names,
                "levels off at shot": levelled(one["ie_bits"]),
                "its 90 % interval": interval(levelled, one["ie_bits"], one["ie_std_error"]),
                "macro levels off at shot": levelled(one["macro_bits"]),
                "its ceiling does so at shot": levelled(one["macro_ceiling_bits"]),
                "rise of E": rise,
                "its error": error,
                "E at the last shot": one.iloc[-1]["ie_bits"],
                "ceiling at the last shot": one.iloc[-1]["macro_ceiling_bits"],
            }
        )
    numbers = pd.DataFrame(rows).rename(columns={"of": "model"})
    shot = numbers["levels off at shot"]
    rises = numbers["rise of E"] > ERRORS * numbers["its error"]
    early = rises & (shot <= 7) & (shot > 1)
    trained = numbers["case"] == TRAINED
    ceiling = bool(((numbers["its ceiling does so at shot"] - shot).abs() <= 1)[trained].all())
    return Claim(
        title="In lists emergence levels off by about the seventh shot",
        rule=f"In every model and number of windows IE rises from the first shot by more than {ERRORS:g} errors and "
        f"has made {LEVEL:.0%} of its rise by the seventh. A control shares this if it does so too; the ceiling is one "
        "more control, which shares it if it levels off within a shot of IE.",
        verdict=answer(
            bool(early[trained].all()),
            bool((~rises | (shot > 7))[trained].all()),
            ceiling or bool(early[~trained].any()),
        ),
        remark=(OF_SAMPLE if shots["resolution"].notna().any() else "") + "Where nothing rises, the shot at which it "
        "levels off is chance, as the intervals show.",
        numbers=numbers,
        figure=figures.levelling(found, images),
    )


def spread_error(one: pd.DataFrame) -> NDArray[np.float64]:
    """Standard error of the standard deviation over windows, of normal ones: s / sqrt(2 (n - 1)).

    n is the number of windows for which the standard error of the mean is that of independent ones.
    """
    spread, error = one["ie_sample_std"].to_numpy(float), one["ie_std_error"].to_numpy(float)
    count = np.maximum((spread / error) ** 2, 2.0)
    return np.asarray(np.abs(spread) / np.sqrt(2 * (count - 1)))


def widest(values: ArrayLike) -> int:
    """Shot of the largest value."""
    return int(np.argmax(np.asarray(values, float))) + 1


def spread(shots: pd.DataFrame, images: Path) -> Claim:
    """The spread of IE over windows peaks where IE stops growing."""
    found = at_shots(curve(shots))
    rows = []
    for names, one in by_case(found.sort_values(KEYS, kind="stable"), KEYS):
        errors = spread_error(one)
        at = widest(one["ie_sample_std"])
        rows.append(
            {
                **names,
                "spread is largest at shot": at,
                "90 % interval": interval(widest, one["ie_sample_std"], errors),
                "levels off at shot": levelled(one["ie_bits"]),
                "90 % interval of that": interval(levelled, one["ie_bits"], one["ie_std_error"]),
                "largest spread": float(one["ie_sample_std"].max()),
                "its error": float(errors[at - 1]),
                "spread at the last shot": float(one.iloc[-1]["ie_sample_std"]),
            }
        )
    numbers = pd.DataFrame(rows).rename(columns={"of": "model"})
    near = (numbers["spread is largest at shot"] - numbers["levels off at shot"]).abs() <= 1
    trained = numbers["case"] == TRAINED
    return Claim(
        title="The spread of emergence over windows peaks where emergence stops growing",
        rule="In every model and number of windows the shot of the largest standard deviation is at most one from the "
        "shot at which IE levels off. A control shares this if it is so in one of its cases.",
        verdict=answer(bool(near[trained].all()), not near[trained].any(), bool(near[~trained].any())),
        remark="The paper reads the peak as hallucination. What is tested here is only whether the two coincide.",
        numbers=numbers,
        figure=figures.spread(found, images),
    )
