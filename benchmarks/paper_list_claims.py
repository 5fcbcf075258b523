"""What the study asks of lists, whose windows grow by demonstrations: where IE rises, levels off and spreads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import paper_figures as figures
from paper_rules import ERRORS, Claim, answer, curve, difference

LEVEL = 0.95  # a curve has levelled off where it has made this share of its whole rise


def staircase(shots: pd.DataFrame, images: Path) -> Claim:
    """In lists IE rises only when a new demonstration comes."""
    found = curve(shots)
    many = found[found["windows"] == found["windows"].max()]
    rows = []
    for (of, corpus), group in many[~many["twin"]].groupby(["of", "corpus"], sort=False):
        twin = many[(many["of"] == of) & many["twin"] & (many["corpus"] == corpus)]
        row: dict[str, object] = {"model": of, "corpus": corpus}
        for label, one in (("trained", group), ("random", twin)):
            if one.empty:
                continue
            value = one.set_index("position")
            entity = [difference(value.loc[t], value.loc[t - 1]) for t in range(3, 15, 2) if t in value.index]
            comma = [difference(value.loc[t], value.loc[t - 1]) for t in range(4, 15, 2) if t in value.index]
            for part, gains in (("entity", entity), ("comma", comma)):
                row[f"{label}: gain per {part}"] = float(np.mean([gain for gain, _ in gains]))
                row[f"{label}: error, {part}"] = float(np.sqrt(sum(error**2 for _, error in gains))) / len(gains)
            row[f"{label}: rise of E"], row[f"{label}: its error"] = difference(value.loc[14], value.loc[2])
        rows.append(row)
    numbers = pd.DataFrame(rows)
    seen = climbs(numbers, "trained")
    shared = "random: rise of E" in numbers and bool(climbs(numbers, "random").any())
    return Claim(
        title="In lists emergence rises only when a new demonstration comes",
        rule=f"From the second to the seventh shot a new entity adds more than {ERRORS:g} errors on average, and its "
        "comma no more than a tenth of that, and IE at the ends of the shots rises by as many errors from the first to "
        "the seventh.",
        verdict=answer(bool(seen.all()), not seen.any(), shared),
        remark="The comma is certain, so run alone it tells nothing: at even positions the mean of the micro "
        "information falls, and IE rises by that alone, whatever the model does. The table separates the two steps.",
        numbers=numbers,
        figure=figures.shots(found, images),
    )


def climbs(numbers: pd.DataFrame, label: str) -> pd.Series:
    """Whether IE rises from shot to shot, and at the entities only."""
    entity, comma = numbers[f"{label}: gain per entity"], numbers[f"{label}: gain per comma"]
    return (
        (entity > ERRORS * numbers[f"{label}: error, entity"])
        & (comma <= 0.1 * entity)
        & (numbers[f"{label}: rise of E"] > ERRORS * numbers[f"{label}: its error"])
    )


def at_shots(found: pd.DataFrame) -> pd.DataFrame:
    """Keep the end of each shot and number it."""
    even = found[found["position"] % 2 == 0]
    return even.assign(shot=even["position"] // 2)


def levelled(values: Iterable[float]) -> int:
    """First shot at which a curve has made 95 % of its rise from the first one to its highest value; 1: no rise."""
    rise = np.array(list(values), float)
    rise -= rise[0]
    return int(np.argmax(rise >= LEVEL * rise.max())) + 1


def levelling(shots: pd.DataFrame) -> Claim:
    """In lists IE levels off by about the seventh shot."""
    rows = []
    for (of, corpus, count), group in at_shots(curve(shots)).groupby(["of", "corpus", "windows"], sort=False):
        trained, twin = group[~group["twin"]], group[group["twin"]]
        rise, error = difference(trained.loc[trained["ie_bits"].idxmax()], trained.iloc[0])
        rows.append(
            {
                "model": of,
                "corpus": corpus,
                "windows": count,
                "levels off at shot": levelled(trained["ie_bits"]),
                "macro levels off at shot": levelled(trained["macro_bits"]),
                "its ceiling does so at shot": levelled(trained["macro_ceiling_bits"]),
                "random: levels off at shot": levelled(twin["ie_bits"]) if len(twin) else None,
                "rise of E": rise,
                "its error": error,
                "E at the last shot": trained.iloc[-1]["ie_bits"],
                "ceiling at the last shot": trained.iloc[-1]["macro_ceiling_bits"],
            }
        )
    numbers = pd.DataFrame(rows)
    shot = numbers["levels off at shot"]
    rises = numbers["rise of E"] > ERRORS * numbers["its error"]
    early = rises & (shot <= 7) & (shot > 1)
    ceiling = bool(((numbers["its ceiling does so at shot"] - shot).abs() <= 1).all())
    return Claim(
        title="In lists emergence levels off by about the seventh shot",
        rule=f"In every model and number of windows IE rises from the first shot by more than {ERRORS:g} errors and "
        f"has made {LEVEL:.0%} of its rise by the seventh. The control here is the ceiling: it shares the effect if it "
        "levels off within a shot of IE.",
        verdict=answer(bool(early.all()), bool((~rises | (shot > 7)).all()), ceiling),
        remark="N windows can show at most log2 N bits: a levelling that moves with the number of windows, or that the "
        "ceiling shares, is one of the sample and not of the model.",
        numbers=numbers.sort_values(["model", "corpus", "windows"]),
    )


def spread(shots: pd.DataFrame, images: Path) -> Claim:
    """The spread of IE over windows peaks where IE stops growing."""
    found = at_shots(curve(shots))
    rows = []
    for (of, corpus, count, twin), group in found.groupby(["of", "corpus", "windows", "twin"], sort=False):
        rows.append(
            {
                "model": of,
                "corpus": corpus,
                "windows": count,
                "weights": "random" if twin else "trained",
                "spread is largest at shot": int(group.loc[group["ie_sample_std"].astype(float).idxmax(), "shot"]),
                "levels off at shot": levelled(group["ie_bits"]),
                "largest spread": float(group["ie_sample_std"].max()),
                "spread at the last shot": float(group.iloc[-1]["ie_sample_std"]),
            }
        )
    numbers = pd.DataFrame(rows)
    near = (numbers["spread is largest at shot"] - numbers["levels off at shot"]).abs() <= 1
    trained = numbers["weights"] == "trained"
    return Claim(
        title="The spread of emergence over windows peaks where emergence stops growing",
        rule="In every model and number of windows the shot of the largest standard deviation is at most one from the "
        "shot at which IE levels off.",
        verdict=answer(bool(near[trained].all()), not near[trained].any(), bool(near[~trained].any())),
        remark="The paper reads the peak as hallucination. What is tested here is only whether the two coincide.",
        numbers=numbers.sort_values(["model", "corpus", "windows", "weights"]),
        figure=figures.spread(found, images),
    )
