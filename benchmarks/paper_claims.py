"""What the study asks of the measurements, the rule that decides each answer, and the answer.

An effect is called seen when it passes four standard errors. Where a control (the same network with random weights,
or shuffled text) shows at least half of the effect too, the answer says so: then training is not its cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import paper_figures as figures

from estimators import DEFAULT_RESOLUTION
from extraction.twin import SUFFIX
from proxy.measure import emergence_by_block, peak_emergence

LISTS = ("country", "animal", "color")  # corpora whose windows are lists of entities; all others are text
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told here"
IN_CONTROL = "holds, but the control shows it too"
ERRORS = 4.0  # standard errors that an effect must pass
SHARE = 0.5  # share of an effect that makes a control show it too
LEVEL = 0.95  # a curve has levelled off where it has made this share of its whole rise


@dataclass
class Study:
    """The measurements; an empty table where something was not measured.

    Attributes:
        main: emergence table of all models and their twins on text and on lists.
        shots: emergence table of long lists, for several numbers of windows.
        shuffled: emergence table on shuffled text.
        trained: one row per model and trained estimator.
        preset: one row per model and kind of pairs, by the paper's MINE.
    """

    main: pd.DataFrame
    shots: pd.DataFrame = field(default_factory=pd.DataFrame)
    shuffled: pd.DataFrame = field(default_factory=pd.DataFrame)
    trained: pd.DataFrame = field(default_factory=pd.DataFrame)
    preset: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, judged.

    Attributes:
        title: the claim in a few words.
        rule: when it holds.
        verdict: one of the four answers.
        remark: what a reader should know of it.
        numbers: the numbers it rests on.
        figure: file name of its figure; empty if it has none.
    """

    title: str
    rule: str
    verdict: str
    remark: str
    numbers: pd.DataFrame
    figure: str = ""


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


def with_twins(table: pd.DataFrame) -> pd.DataFrame:
    """Add `of` (the model) and `twin` (whether the row is of its random twin)."""
    if table.empty:
        return table
    twin = table["model"].str.endswith(SUFFIX)
    return table.assign(twin=twin, of=table["model"].str.removesuffix(SUFFIX))


def answer(seen: bool, refuted: bool, in_control: bool) -> str:
    """Word a verdict."""
    if seen:
        return IN_CONTROL if in_control else HOLDS
    return FAILS if refuted else UNKNOWN


def difference(late: pd.Series, early: pd.Series) -> tuple[float, float]:
    """Difference of two emergences and its standard error, both sides taken as independent."""
    return float(late["ie_bits"] - early["ie_bits"]), float(np.hypot(late["ie_std_error"], early["ie_std_error"]))


def peaks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """E at the highest block of every model, twin and corpus, by size."""
    found = peak_emergence(table, resolution=resolution).rename(
        columns={"emergence_bits": "ie_bits", "emergence_bits_std_error": "ie_std_error"}
    )
    return with_twins(found).sort_values("parameters")


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


def curve(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """IE by position at the block where the last position's is highest, of each model, corpus and number of windows."""
    near = table[np.isclose(table["resolution"].astype(float), resolution)]
    parts = []
    for _, group in near.groupby(["model", "corpus", "windows"], sort=False):
        last = group[group["position"] == group["position"].max()]
        block = last.loc[last["ie_bits"].idxmax(), "layer"]
        parts.append(group[group["layer"] == block].sort_values("position"))
    return pd.concat(parts, ignore_index=True) if parts else near


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
