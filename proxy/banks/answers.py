"""Free answers in a bank: their features by the default readers, and those of one more model that is read alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from estimators.base import InputError, Progress
from extraction import LanguageModel
from extraction.answers.prompt_sets import BUILT_IN, prompts
from extraction.answers.responses import read_responses
from extraction.tables import read_table
from proxy.banks.bank import ANSWERS, Bank
from proxy.banks.targets import ESTIMATOR, with_targets
from proxy.features.provenance import COLUMN, Provenance, differences, provenance_of, read_provenance
from proxy.features.readers import DEFAULT_READERS, load_reader
from proxy.features.table import compute_features, found_as
from proxy.regression.references import check_provenance, listed, provenances


def holds_answers(path: Path) -> bool:
    """Whether a file is a table of answers rather than of measurements."""
    columns = {*read_table(path).columns} if path.is_file() else set()
    return bool(columns & {"text", "output"}) and "layer" not in columns


def read_answers(paths: Sequence[Path], models: Sequence[str], progress: Progress | None = None) -> pd.DataFrame:
    """Read tables of answers of a bank's models, and compute their features by the default readers.

    Args:
        paths: tables of answers.
        models: of the bank.
        progress: called with the number of answers read.

    Returns:
        Schema ANSWERS; without rows where there are no tables.

    Raises:
        InputError: if a model is not of the bank, answers in two tables or too seldom, or was not asked as the others.
    """
    if not paths:
        return ANSWERS.empty()
    parts: list[pd.DataFrame] = []
    place: dict[str, Path] = {}
    for path in paths:
        table = read_responses(path)
        for name in table["model"].unique():
            found = found_as(name, models)
            if found is None:
                raise InputError(
                    f"{path} holds answers of {name}, which was not measured, so the bank does not hold it; measure it "
                    "as the others, or take its answers out."
                )
            if found in place:
                raise InputError(f"{found} answers in {place[found]} and in {path}; take one of them out.")
            place[found] = path
            parts.append(table[table["model"] == name].assign(model=found))
    features = compute_features(pd.concat(parts, ignore_index=True), _readers(), progress=progress)
    if features.attrs["remarks"]:
        raise InputError(features.attrs["remarks"][0])
    check_provenance(features)
    long = features.melt(["model", COLUMN], var_name="feature", value_name="value").dropna(subset="value")
    return ANSWERS.conform(long.sort_values(["feature", "model"], ignore_index=True))


def answer_references(bank: Bank, corpus: str, *, estimator: str = ESTIMATOR) -> pd.DataFrame:
    """Features of the answers and targets of a bank's models on one corpus.

    Args:
        bank: the references.
        corpus: name of the corpus of the targets.
        estimator: of the blocks.

    Returns:
        As `proxy.banks.targets.with_targets`, the features ``behaviour.*``, ``small.*`` and ``words.*``.

    Raises:
        InputError: if there are no answers, or no such blocks on the corpus.
    """
    if bank.answers.empty:
        raise InputError(
            f"The bank {bank.name} holds no answers of its references; let them answer the prompts that the model "
            "answered (emergence answer MODEL... --prompts FILE --out answers.parquet), and build the bank with that "
            "table among its sources (emergence bank build)."
        )
    features = bank.answer_features()
    table = with_targets(bank, corpus, features, estimator)
    silent = sorted({*bank.models["model"]} - {*features["model"]})
    if silent:
        table.attrs["remarks"].append(f"no references, as their answers are not in the bank: {listed(silent)}")
    return table


def features_alike(bank: Bank, answers: pd.DataFrame, progress: Progress | None = None) -> pd.DataFrame:
    """Features of the answers of one model, read as those of the references were.

    Of more samples or longer answers as much is read as of the references.

    Args:
        bank: the references.
        answers: schema RESPONSES.
        progress: called with the number of answers read.

    Returns:
        One row; ``attrs["remarks"]`` says what differs and does no harm.

    Raises:
        InputError: if the answers do not compare with those of the references.
    """
    known = provenances(bank.answers)
    samples, characters = known[0].samples, known[0].characters
    features = compute_features(answers, _readers(), samples=samples, characters=characters, progress=progress)
    refused, said = differences(known, read_provenance(str(features[COLUMN].iloc[0])))
    if refused:
        raise InputError(
            f"{features['model'].iloc[0]} did not answer as the references of {bank.name} did, to "
            f"{prompts_of(known[0])}: {'; '.join(refused)}."
        )
    features.attrs["remarks"] = said
    return features


def prompts_of(known: Provenance) -> str:
    """Say which prompts were answered: `--prompts demo`, or of prompts of one's own their number and hash."""
    for name in BUILT_IN:
        if provenance_of(prompts(name).assign(text=""), {}).prompts == known.prompts:
            return f"--prompts {name}"
    return f"{known.count} prompts of hash {known.prompts}"


def _readers() -> list[LanguageModel]:
    return [load_reader(name) for name in DEFAULT_READERS]
