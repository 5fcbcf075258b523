"""Building a bank from sweeps, tables of measurements and tables of answers, and merging banks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from estimators.base import InputError, Progress
from estimators.contracts.controls import controls_as_columns
from estimators.contracts.files import check_new_folder
from estimators.contracts.numbers import number
from estimators.contracts.peaks import at_end, at_resolution, measured
from extraction.corpora.spec import BUILT_IN as BUILT_IN_CORPORA
from extraction.corpora.spec import PYTHON_DOCS, resolve_corpus
from extraction.corpora.text import documents
from extraction.tables import read_table
from extraction.versions import text_hash
from proxy.banks.answers import holds_answers, read_answers
from proxy.banks.bank import BUILT_IN, BUNDLED, FETCHED, MODELS, WEIGHTS, Bank, BankCorpus, load_bank, save_bank
from proxy.measurement.continuations import table_beside
from proxy.measurement.output import OUTPUT_LAYER
from proxy.regression.references import check_provenance
from proxy.schemas import CONTINUATIONS, EMERGENCE

STAGE = "@"  # MODEL@STAGE is a checkpoint of the run MODEL
# What of a measurement a bank keeps; paths and seconds tell of the machine alone.
LEFT_OUT = ("path", "seconds")
FEWEST_WINDOWS = 8
DIGITS = {"right": 2, "cost_bits": 1}  # of single windows: finer than what one window tells, and a tenth of the bytes


def build_bank(
    sources: Sequence[Path],
    folder: Path,
    *,
    name: str,
    licence: str,
    provenance: str,
    corpora: Sequence[str] = (),
    windows: int | None = None,
    progress: Progress | None = None,
) -> Bank:
    """Make a bank of measured open models.

    Args:
        sources: results folders of sweeps and emergence tables: blocks, and the output (layer -1), of every model.
            Tables of continuations that lie beside them (`outputs.continuations.parquet`) come along. Tables of answers
            give the features of the answers of models that are measured.
        folder: new folder of the bank.
        name: of the bank.
        licence: under which its tables may be used.
        provenance: how the models were measured.
        corpora: files of the corpora that no installation has; their text goes into the bank. The first corpus named
            is the default.
        windows: sampled from each corpus; default: taken from the rows.
        progress: called with the number of answers read.

    Raises:
        InputError: if a table cannot be used, corpora or ways of asking differ, or something needed is missing.
    """
    if windows is not None:
        number(windows, "windows", least=FEWEST_WINDOWS, whole=True)
    check_new_folder(folder, "bank")
    answered = [source for source in sources if holds_answers(source)]
    sources = [source for source in sources if source not in answered]
    if not sources:
        raise InputError(
            "Only answers were given; give measurements of the models too (emergence measure, emergence sweep)."
        )
    table = measured(pd.concat([_read(source) for source in sources], ignore_index=True))
    table = controls_as_columns(table)
    parts = [table[table["layer"] == OUTPUT_LAYER], at_end(at_resolution(table[table["layer"] != OUTPUT_LAYER]))]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table = table.drop(columns=[name for name in LEFT_OUT if name in table])
    _check_rows(table)
    entries, texts = _corpora(table, corpora, windows)
    first = table.groupby("model", sort=True).first()
    models = pd.DataFrame(
        {
            "model": first.index,
            "run": [str(model).partition(STAGE)[0] for model in first.index],
            "family": first["family"].where(first["family"].fillna("") != "", first.index.to_series()).to_numpy(),
            "parameters": first["parameters"].to_numpy(),
            "revision": first["revision"].to_numpy() if "revision" in first else None,
        }
    )
    seeds = sorted({int(seed) for seed in table["seed"].dropna()})
    bank = Bank(
        name,
        licence,
        provenance,
        entries,
        seeds[0] if seeds else 0,
        bool((table["prefix"].fillna("") != "").any()) if "prefix" in table else False,
        MODELS.conform(models),
        EMERGENCE.conform(table.sort_values(["corpus", "model", "estimator", "layer"], ignore_index=True)),
        folder,
        _continuations(sources, set(first.index)),
        read_answers(answered, [*first.index], progress),
    )
    save_bank(bank, folder, texts)
    return load_bank(folder)


def merge_banks(folders: Sequence[Path], folder: Path, *, name: str) -> Bank:
    """Merge banks of different models, on the corpora that all of them have.

    Raises:
        InputError: if they share no corpus, a corpus differs in content or windows, a model is in two of them, or their
            models did not answer alike.
    """
    check_new_folder(folder, "bank")
    banks = [load_bank(each) for each in folders]
    first, *others = banks
    for other in others:
        if (other.seed, other.neutral) != (first.seed, first.neutral):
            raise InputError(
                f"{first.name} and {other.name} were asked in different ways (seed {first.seed} and {other.seed}, "
                f"neutral first token {first.neutral} and {other.neutral}); measure one again with the settings of the "
                "other."
            )
        for corpus in other.corpora:
            own = {each.name: each for each in first.corpora}.get(corpus.name)
            if own and (own.version, own.tokens, own.windows) != (corpus.version, corpus.tokens, corpus.windows):
                raise InputError(
                    f"{corpus.name} is not the same in {first.name} and {other.name} (version {own.version} and "
                    f"{corpus.version}, {own.tokens} and {corpus.tokens} tokens, {own.windows} and {corpus.windows} "
                    "windows); measure one again with the settings of the other."
                )
        twice = sorted(set(first.models["model"]) & set(other.models["model"]))
        if twice:
            raise InputError(f"{twice[0]} is in {first.name} and in {other.name}; leave it out of one.")
    shared = [c for c in first.corpora if all(c.name in {o.name for o in bank.corpora} for bank in others)]
    if not shared:
        raise InputError(
            f"{', '.join(bank.name for bank in banks)} share no corpus, so no proxy can use them together."
        )
    names = {corpus.name for corpus in shared}
    merged = Bank(
        name,
        "; ".join(dict.fromkeys(bank.licence for bank in banks)),
        "; ".join(f"{bank.name}: {bank.provenance}" for bank in banks),
        tuple(shared),
        first.seed,
        first.neutral,
        pd.concat([bank.models for bank in banks], ignore_index=True),
        pd.concat([bank.emergence[bank.emergence["corpus"].isin(names)] for bank in banks], ignore_index=True),
        folder,
        pd.concat([bank.continuations[bank.continuations["corpus"].isin(names)] for bank in banks], ignore_index=True),
        pd.concat([bank.answers for bank in banks], ignore_index=True),
    )
    check_provenance(merged.answer_features())
    texts = {c.source: read_table(first.folder / c.source)["text"].tolist() for c in shared if c.kept == BUNDLED}
    save_bank(merged, folder, texts)
    return load_bank(folder)


def _read(source: Path) -> pd.DataFrame:
    path = source / "emergence.parquet" if source.is_dir() else source
    if source.is_dir() and not path.is_file():
        raise InputError(f"{source} holds no emergence.parquet; give the results folder of a sweep that is done.")
    return read_table(path, EMERGENCE)


def _continuations(sources: Sequence[Path], models: set[str]) -> pd.DataFrame:
    """How single windows were continued, of all sources; sorted so that the file is small."""
    beside = [table_beside(source) for source in sources if not source.is_dir()]
    parts = [read_table(path, CONTINUATIONS) for path in beside if path.is_file()]
    table = CONTINUATIONS.conform(pd.concat(parts, ignore_index=True)) if parts else CONTINUATIONS.empty()
    table = table[table["model"].isin(models)].assign(
        **{name: table[name].round(digits) for name, digits in DIGITS.items()}
    )
    keys = ["corpus", "asked", "estimator", "window", "model"]
    return table.sort_values(keys, ignore_index=True).drop_duplicates(keys, ignore_index=True)


def _check_rows(table: pd.DataFrame) -> None:
    if table.empty:
        raise InputError("The tables hold no measured rows; measure the models first (emergence sweep).")
    asked = table["asked"].fillna(WEIGHTS) if "asked" in table else WEIGHTS
    keys = ["model", "corpus", "estimator", "layer"]
    twice = table[table.assign(asked=asked).duplicated([*keys, "asked"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{row['model']} was measured twice on {row['corpus']} by {row['estimator']}; leave one of the tables out."
        )
    seeds = sorted({int(seed) for seed in table["seed"].dropna()})
    if len(seeds) > 1:
        raise InputError(
            f"The models were measured with the seeds {', '.join(map(str, seeds))}, so on different windows; measure "
            "all with one."
        )
    for corpus, rows in table.groupby("corpus"):
        output = set(rows.loc[rows["layer"] == OUTPUT_LAYER, "model"])
        blocks = set(rows.loc[rows["layer"] != OUTPUT_LAYER, "model"])
        if output != blocks:
            model = sorted(output ^ blocks)[0]
            lacks = "its output" if model not in output else "its blocks"
            raise InputError(
                f"{model} was not measured by {lacks} on {corpus}; measure it with --estimator "
                f"{'predictive-20,output-20,output-2-of-20,output-2' if model not in output else 'predictive'}."
            )


def _corpora(
    table: pd.DataFrame, given: Sequence[str], windows: int | None
) -> tuple[tuple[BankCorpus, ...], dict[str, list[str]]]:
    """Describe the corpora of a table, and return the text of those that the bank must hold."""
    named = {resolve_corpus(source).label: source for source in given}
    labels = sorted(
        table["corpus"].unique(),
        key=lambda label: (label not in named, list(named).index(label) if label in named else 0),
    )
    entries, texts = [], {}
    for label in labels:
        rows = table[(table["corpus"] == label) & (table["layer"] == OUTPUT_LAYER)]
        lengths = sorted({int(position) for position in rows["position"]})
        counts = [int(count) for count in rows["windows"].dropna()]
        if len(lengths) > 1 or (counts and min(counts) < 0.8 * max(counts)):
            raise InputError(
                f"The models read different windows of {label}: {', '.join(map(str, lengths))} tokens, {min(counts)} "
                f"to {max(counts)} windows; measure all in the same way."
            )
        sampled = max(counts, default=0) if windows is None else windows
        source = named.get(label, label)
        if label.startswith("hf:"):
            entries.append(BankCorpus(label, resolve_corpus(label).version(), FETCHED, label, lengths[0], sampled))
        elif label in BUILT_IN_CORPORA and label != PYTHON_DOCS:
            entries.append(BankCorpus(label, resolve_corpus(label).version(), BUILT_IN, label, lengths[0], sampled))
        elif label == PYTHON_DOCS or label in named:
            file = f"corpora/{Path(label).stem}.parquet"
            texts[file] = list(documents(source if label == PYTHON_DOCS else resolve_corpus(source).path or source))
            entries.append(BankCorpus(label, text_hash("\n".join(texts[file])), BUNDLED, file, lengths[0], sampled))
        else:
            raise InputError(f"{label} is your own file; give it by --corpus PATH, so that the bank holds its text.")
    return tuple(entries), texts
