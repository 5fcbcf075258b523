"""The reference table of a bank: features of the output, and emergence at relative depths as targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from estimators.base import InputError
from estimators.contracts.controls import ERRORS, FAILED
from extraction.models.names import same_model
from proxy.banks.bank import Bank
from proxy.features.continuations import FEATURES, fit_items, place, reading_of, reference_features
from proxy.features.joining import check_apart
from proxy.features.output import NOISE, output_features
from proxy.features.provenance import ASKED, how_asked
from proxy.measurement.output import OUTPUT_LAYER
from proxy.regression.references import SIZE
from proxy.schemas import REFERENCES

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the blocks: 0 the first, 1 the last
PEAK = "emergence_peak"
ESTIMATOR = "predictive"
MOST_FAILED = 0.25  # share of references that may fail their controls and be left out as odd ones


def target(depth: float) -> str:
    """Column of emergence at a relative depth.

    >>> target(0.25)
    'emergence_at_0.25'
    """
    return f"emergence_at_{depth:g}"


def reference_table(
    bank: Bank, corpus: str, *, shown: int, chat: bool = False, estimator: str = ESTIMATOR
) -> pd.DataFrame:
    """Features and targets of a bank's models on one corpus.

    Args:
        bank: the references.
        corpus: name of the corpus.
        shown: tokens shown of each next-token distribution, see `proxy.features.output`.
        chat: whether they were asked as chats.
        estimator: of the blocks.

    Returns:
        As `with_targets`, the features ``output.*`` with ``noise.output.*`` (where single windows were kept, ability
        and components too, by what was fitted on the other runs).

    Raises:
        InputError: if the bank has no such readings on the corpus.
    """
    shown_here = bank.shown(corpus, chat=chat)
    if shown not in shown_here:
        known = ", ".join(f"{k} tokens shown" if k else "samples" for k in shown_here) or "none"
        raise InputError(
            f"The bank {bank.name} has no references on {corpus} whose output was read by "
            f"{f'{shown} tokens shown' if shown else 'samples'}; it has {known}."
        )
    features = output_features(bank.output(corpus, chat=chat), shown=shown)
    windows = bank.windows(corpus, reading_of(shown), chat=chat)
    if len(windows):
        placed = reference_features(windows, bank.run_of)
        check_apart("Features of single windows", features.columns, placed.columns.drop("model"))
        features = features.merge(placed, on="model", how="left")
    return with_targets(bank, corpus, _said(bank, features, corpus, shown, chat=chat), estimator)


def with_targets(bank: Bank, corpus: str, features: pd.DataFrame, estimator: str = ESTIMATOR) -> pd.DataFrame:
    """Put what is known of a bank's models, and their targets on one corpus, to the features of each.

    Args:
        bank: the references.
        corpus: name of the corpus.
        features: one row per model; models without one are no references.
        estimator: of the blocks.

    Returns:
        Schema REFERENCES: model, run, family, ``meta.log_parameters``, the features, ``emergence_peak`` and
        ``emergence_at_<depth>`` with standard errors, in bits. Models with an emergence at the peak that is no
        chance, but is not above its controls, are left out; ``attrs["remarks"]`` names them. Where they are more than a
        quarter it is the observer, or the corpus, that tells nothing learned apart: none is left out, and this is said.

    Raises:
        InputError: if the bank has no such blocks on the corpus.
    """
    targets = profile_targets(bank.emergence[bank.emergence["corpus"] == corpus], estimator)
    if targets.empty:
        raise InputError(
            f"The bank {bank.name} has no blocks measured by {estimator} on {corpus}; it has "
            f"{', '.join(bank.estimators(corpus)) or 'none'}."
        )
    table = bank.models.merge(features, on="model").merge(targets, on="model", validate="one_to_one")
    table[SIZE] = np.log10(table["parameters"].astype("Float64"))
    failed = sorted(table.loc[table["failed"], "model"])
    remarks = []
    if len(failed) > MOST_FAILED * len(table):
        remarks.append(
            f"E by {estimator} is not above its controls for {len(failed)} of {len(table)} references, so the estimate "
            "may describe what any network or any windows show"
        )
        table["failed"] = False
    elif failed:
        remarks.append(
            f"left out, as their emergence is not above its controls: {', '.join(failed[:4])}"
            f"{', ...' if len(failed) > 4 else ''}"
        )
    table = table[~table["failed"]].drop(columns=["failed", "revision"]).reset_index(drop=True)
    table = REFERENCES.conform(table)
    table.attrs["remarks"] = remarks
    return table


def profile_targets(rows: pd.DataFrame, estimator: str = ESTIMATOR) -> pd.DataFrame:
    """Emergence at its peak and at relative depths, linear between blocks, of each model of one corpus.

    >>> rows = pd.DataFrame({"model": "m", "layer": [0, 1], "estimator": "predictive", "ie_bits": [0.2, 0.6],
    ...                      "ie_std_error": 0.1, "flags": ""})
    >>> profile_targets(rows)[["emergence_peak", "emergence_at_0.25"]].round(3).values.tolist()
    [[0.6, 0.3]]
    """
    own = rows[(rows["layer"] > OUTPUT_LAYER) & (rows["estimator"] == estimator)]
    found = []
    for model, blocks in own.groupby("model", sort=True):
        blocks = blocks.sort_values("layer")
        values = blocks["ie_bits"].to_numpy(dtype=float)
        errors = blocks["ie_std_error"].to_numpy(dtype=float, na_value=np.nan)
        places = np.linspace(0.0, 1.0, len(values)) if len(values) > 1 else np.zeros(1)
        peak = int(np.argmax(values))
        row = {"model": str(model), PEAK: values[peak], f"{PEAK}_std_error": errors[peak]}
        for depth in DEPTHS:
            row[target(depth)] = float(np.interp(depth, places, values))
            row[f"{target(depth)}_std_error"] = float(np.interp(depth, places, errors))
        failed = FAILED in str(blocks["flags"].iloc[peak]) and values[peak] > ERRORS * errors[peak]
        found.append({**row, "failed": bool(failed)})
    return pd.DataFrame(found)


def model_features(
    bank: Bank, rows: pd.DataFrame, windows: pd.DataFrame | None, *, corpus: str, shown: int, chat: bool = False
) -> pd.DataFrame:
    """Features of one model as `reference_table` has those of references, placed by what was fitted on all of these.

    Args:
        bank: the references, the model and its run not among them.
        rows: its output rows on the corpus.
        windows: how it continued single windows, schema CONTINUATIONS; None: not known.
        corpus: of the bank.
        shown: tokens shown.
        chat: whether it was asked as a chat.
    """
    features = _said(bank, output_features(rows, shown=shown), corpus, shown, chat=chat)
    reading = reading_of(shown)
    items = fit_items(bank.windows(corpus, reading, chat=chat), bank.run_of)
    if windows is None or items is None:
        return features
    return features.assign(**place(items, _read_by(windows, corpus, reading, chat=chat)))


def _said(bank: Bank, features: pd.DataFrame, corpus: str, shown: int, *, chat: bool) -> pd.DataFrame:
    """Put to features how they were asked for, so that a proxy of them refuses models that were asked otherwise."""
    return features.assign(**{ASKED: how_asked(corpus, tokens=bank.corpus(corpus).tokens, shown=shown, chat=chat)})


def _read_by(windows: pd.DataFrame, corpus: str, reading: str, *, chat: bool) -> pd.DataFrame:
    """Single windows of a corpus by one reading and one way of asking, whether of weights or through an API."""
    as_chat = windows["asked"].fillna("").str.contains("chat", regex=False)
    return windows[(windows["corpus"] == corpus) & (windows["estimator"] == reading) & (as_chat == chat)]


def place_models(bank: Bank, windows: pd.DataFrame, *, corpus: str, shown: int, chat: bool = False) -> pd.DataFrame:
    """Place models by the single windows of a bank's references, each without its own run.

    Args:
        bank: the references.
        windows: of the models, schema CONTINUATIONS.
        corpus: on which.
        shown: tokens shown.
        chat: whether they were asked as chats.

    Returns:
        ``model``, ``output.ability``, ``output.component_1``, ``output.component_2`` and their ``noise.*``; null where
        the bank and the model share no windows.
    """
    reading = reading_of(shown)
    own = _read_by(windows, corpus, reading, chat=chat)
    rows: list[dict[str, object]] = []
    for model, part in own.groupby("model"):
        kept, _ = without_model(bank, str(model))
        items = fit_items(kept.windows(corpus, reading, chat=chat), kept.run_of)
        rows.append({"model": model, **({} if items is None else place(items, part))})
    names = [*FEATURES, *[NOISE + name for name in FEATURES]]
    frame = pd.DataFrame(rows, columns=["model", *names])
    return frame.astype({"model": "string", **dict.fromkeys(names, "Float64")})


def without_model(bank: Bank, model: str) -> tuple[Bank, list[str]]:
    """The bank without a model and its whole run, and what the model is called in it, nothing where it is not.

    Args:
        bank: the references.
        model: as it is called at a server.
    """
    same = [name for name in bank.models["model"] if name == model or same_model(model, name)]
    runs = {bank.run_of[name] for name in same}
    left = set(bank.models.loc[bank.models["run"].isin(runs), "model"])
    models, emergence, continuations, answers = (
        frame[~frame["model"].isin(left)].reset_index(drop=True)
        for frame in (bank.models, bank.emergence, bank.continuations, bank.answers)
    )
    return replace(bank, models=models, emergence=emergence, continuations=continuations, answers=answers), same
