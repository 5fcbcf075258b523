"""One row of features per model, from its answers alone: what readers see in them, how they behave, their words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from estimators.base import InputError, Progress
from estimators.contracts.comparable import ABOUT
from estimators.contracts.controls import controls_as_columns, summary
from estimators.contracts.peaks import peaks
from extraction.models.names import same_model
from extraction.tables import RESPONSES
from proxy.features.behaviour import accuracy_by_shots, behaviour_features
from proxy.features.joining import check_apart
from proxy.features.kept import Kept, key_of
from proxy.features.provenance import ASKED, COLUMN, as_read, fingerprint, provenance_of
from proxy.features.readers import RESOLUTIONS, Reader, read_features
from proxy.features.words import word_features
from proxy.measurement.names import DEFAULT_ESTIMATOR
from proxy.schemas import REFERENCES

if TYPE_CHECKING:
    from extraction import LanguageModel

FEWEST_ANSWERS = 10


def compute_features(
    responses: pd.DataFrame,
    readers: Sequence[LanguageModel],
    *,
    seed: int = 0,
    resolutions: Sequence[float] = RESOLUTIONS,
    samples: int | None = None,
    characters: int | None = None,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Turn the answers of one or more models into one row of features each.

    Args:
        responses: schema RESPONSES; rows without text (failed calls) are left out. The models should have answered
            the same prompts, or differences between prompts look like differences between models.
        readers: small models that read the answers; may be empty.
        seed: of windows and noise.
        resolutions: noise levels of the readers' information, relative to the norm of their states.
        samples: how many of each prompt are read; all by default.
        characters: how many of each answer are read; all by default.
        kept: results of an earlier run that need not be computed again.
        progress: called with the number of answers times readers done.

    Returns:
        Columns ``model``, ``provenance`` (see `proxy.features.provenance`), ``small.<reader>.<name>`` (bits),
        ``behaviour.<name>`` and ``words.<word>`` (log odds that an answer holds one of a fixed list of words, see
        `proxy.features.words`); null where the answers do not show it, a model has fewer than 10 usable answers, or a
        reader cannot read it: ``attrs["remarks"]`` says why. Where prompts were lists, ``shots.<n>`` is the accuracy
        after n entities, for inspection: proxies learn from less noisy summaries among the behaviour features.

    Raises:
        InputError: if no model can be read, two readers have the same name, or logprobs are malformed.

    >>> answers = pd.DataFrame({"model": "m", "prompt_id": [str(i) for i in range(20)], "text": "a dog and a cat ran"})
    >>> compute_features(answers, readers=[])["model"].tolist()
    ['m']
    """
    for option, number in (("samples", samples), ("characters", characters)):
        if number is not None and number < 1:
            raise InputError(f"{option} is at least 1; got {number}.")
    responses = as_read(RESPONSES.conform(responses), samples=samples, characters=characters)
    usable = responses[responses["text"].fillna("").str.strip() != ""]
    models = responses["model"].dropna().unique().tolist()
    if not models:
        raise InputError("The responses hold no answers; collect some first.")
    shorts = [_short(reader.name) for reader in readers]
    twice = sorted({name for name in shorts if shorts.count(name) > 1})
    if twice:
        raise InputError(
            f"Two readers have the name {', '.join(twice)}, so their features would have one name too; rename a folder."
        )
    few = _too_few(usable, models)
    remarks = dict(few)
    if len(remarks) == len(models):
        raise InputError(next(iter(remarks.values())))
    kept = Kept() if kept is None else kept
    marks = {short: fingerprint(one) for short, one in zip(shorts, readers, strict=True)}
    total, done = len(usable) * max(1, len(readers)), 0
    rows: list[dict[str, object]] = [{"model": model} for model in models]
    by_shots: dict[int, dict[int, float]] = {}
    for name, short in zip(readers, shorts, strict=True):
        reader: Reader | None = None
        for place, model in enumerate(models):
            own = usable[usable["model"] == model]
            key = key_of(own, "reader", marks[short], seed, [*resolutions])
            found = kept.get(key)
            if found is None and model not in few:
                reader = reader or Reader(name, seed)
                try:
                    read = read_features(own, reader, resolutions, progress=_from(progress, done, total))
                except InputError as error:
                    if len(models) == 1:
                        raise InputError(f"{model}: {error}") from error
                    remarks[model] = f"{model}: {error}"  # the other models can still be read
                else:
                    found = kept.put(key, read)
            rows[place] |= {f"small.{short}.{key}": value for key, value in (found or {}).items()}
            done += len(own)
            if progress is not None:
                progress(done, total)
    if len(remarks) == len(models):
        raise InputError(next(iter(remarks.values())))
    for place, model in enumerate(models):
        own = responses[responses["model"] == model]
        rows[place][COLUMN] = provenance_of(own, marks, characters=characters).dumps()
        if model not in few:
            key = key_of(own, "alone")
            found = kept.get(key)
            if found is None:
                behaviour = {f"behaviour.{name}": value for name, value in behaviour_features(own).items()}
                words = {f"words.{name}": value for name, value in word_features(own).items()}
                found = kept.put(key, behaviour | words)
            rows[place] |= found
            by_shots[place] = accuracy_by_shots(own)
        if progress is not None and not readers:
            done += int((usable["model"] == model).sum())
            progress(done, total)
    for shots in sorted({shots for found_shots in by_shots.values() for shots in found_shots}):
        for place, found_shots in by_shots.items():
            rows[place][f"shots.{shots}"] = found_shots.get(shots)
    frame = pd.DataFrame(rows)
    texts = {"model": "string", COLUMN: "string"}
    numeric = [column for column in frame.columns if column not in texts]
    frame = frame.astype({**texts, **dict.fromkeys(numeric, "Float64")})
    frame.attrs["remarks"] = [*remarks.values()]
    return frame


def _from(progress: Progress | None, start: int, total: int) -> Callable[[int], None] | None:
    """Describe the answers of one model that are read, as part of all."""
    return None if progress is None else lambda read: progress(start + read, total)


def check_answers(responses: pd.DataFrame, *, samples: int | None = None, characters: int | None = None) -> None:
    """Refuse answers of which no model has enough for features, before readers are loaded for them.

    Raises:
        InputError: if none has.
    """
    read = as_read(RESPONSES.conform(responses), samples=samples, characters=characters)
    models = read["model"].dropna().unique().tolist()
    few = _too_few(read[read["text"].fillna("").str.strip() != ""], models)
    if not models or len(few) == len(models):
        raise InputError(next(iter(few.values()), "The responses hold no answers; collect some first."))


def _too_few(usable: pd.DataFrame, models: Sequence[str]) -> dict[str, str]:
    """Why models have no features at all."""
    counts = usable.groupby("model").size()
    return {
        model: f"{model} has {counts.get(model, 0)} usable answers, fewer than the {FEWEST_ANSWERS} that features "
        "need; collect more, or look for errors in its responses."
        for model in models
        if counts.get(model, 0) < FEWEST_ANSWERS
    }


def measured_target(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """Return what references of an emergence table have as their target: E at its peak, and how it was measured.

    Args:
        table: emergence table; of several estimators `predictive` is taken.
        corpus: the corpus to take; may be left out where the table holds one.

    Returns:
        One row per model: model, corpus, family, parameters, emergence_bits, its standard error, and
        emergence_bits_verdict (on its controls), _estimator, _corpus_hash, _windows and _prefix; and the path of its
        folder or file.

    Raises:
        InputError: if the measurements are of several corpora, or of several estimators without `predictive`.
    """
    table = controls_as_columns(table)
    corpora = sorted(table["corpus"].unique())
    if corpus is not None and corpus not in corpora:
        raise InputError(f"The emergence table holds no corpus {corpus}; it has {', '.join(corpora)}.")
    if corpus is None and len(corpora) != 1:
        raise InputError(f"The emergence table holds the corpora {', '.join(corpora)}; name one by --corpus.")
    table = table if corpus is None else table[table["corpus"] == corpus]
    estimators = sorted(table["estimator"].unique())
    if len(estimators) > 1 and DEFAULT_ESTIMATOR not in estimators:
        raise InputError(
            f"The emergence table holds the estimators {', '.join(estimators)}, whose bits do not compare; give a "
            "table of one of them."
        )
    table = table if len(estimators) == 1 else table[table["estimator"] == DEFAULT_ESTIMATOR]
    about = summary(table)[["model", "verdict", "windows", "prefix", "path"]]
    found = peaks(table).merge(about, on="model", validate="one_to_one")
    return found.rename(columns={name: f"emergence_bits_{name}" for name in ("verdict", *ABOUT)})


def join_target(frame: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Put the measured emergence beside the features of models whose weights are open.

    Args:
        frame: features, one row per model.
        measured: from `measured_target`, or from `proxy.peak_emergence` of one corpus.

    Returns:
        `frame` with family, meta.log_parameters (decimal logarithm), corpus, and all that starts with emergence_bits.

    Raises:
        InputError: if the measurements are of several corpora, lack a model, or have a column that `frame` has.
    """
    corpora = sorted(measured["corpus"].unique())
    if len(corpora) != 1:
        raise InputError(f"The emergence table holds the corpora {', '.join(corpora)}; name one by --corpus.")
    measured_as = names_measured(frame["model"].tolist(), measured)
    frame = frame.assign(model=frame["model"].map(measured_as).astype("string"))
    measured = measured.assign(**{"meta.log_parameters": np.log10(measured["parameters"].astype("Float64"))})
    targets = [name for name in measured if str(name).startswith("emergence_bits")]
    columns = ["model", "family", "meta.log_parameters", "corpus", *targets]
    check_apart("Measurements", frame.columns, columns[1:])
    joined = frame.merge(measured[columns], on="model", how="left", validate="many_to_one")
    return REFERENCES.conform(joined)


def names_measured(models: Sequence[str], measured: pd.DataFrame) -> dict[str, str]:
    """What models are called among the measured ones.

    Raises:
        InputError: if one was not measured, may be several of them, or is one that another of the models is too.
    """
    known = measured["model"].tolist()
    paths = dict(zip(known, measured["path"], strict=True)) if "path" in measured else {}
    found = {name: found_as(name, known, paths) for name in models}
    missing = sorted(name for name, other in found.items() if other is None)
    if missing:
        raise InputError(f"No emergence was measured for {', '.join(missing)}; measure them first (emergence sweep).")
    first: dict[str | None, str] = {}
    for name, other in found.items():
        if first.setdefault(other, name) != name:
            raise InputError(
                f"{first[other]} and {name} are both {other} of the other table by their names; use the same names in "
                "both tables."
            )
    return {name: other for name, other in found.items() if other is not None}


def join_output(frame: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """Put what models say next beside the features of their answers; null for models whose output was not read.

    Args:
        frame: features, one row per model.
        said: ``output.*`` and ``noise.output.*`` by model.

    Raises:
        InputError: if a model may be several of `said`, or a column of `said` has the name of one of `frame`.

    >>> answers = pd.DataFrame({"model": ["a", "b"], "behaviour.length": [3.0, 4.0]})
    >>> join_output(answers, pd.DataFrame({"model": ["a"], "output.nll": [2.0]}))["output.nll"].tolist()
    [2.0, <NA>]
    """
    check_apart("Features of the output", frame.columns, said.columns.drop("model"))
    names = said["model"].tolist()
    found = frame.assign(_said=pd.array([found_as(name, names) for name in frame["model"]], dtype="string"))
    joined = found.merge(said.rename(columns={"model": "_said"}), on="_said", how="left").drop(columns="_said")
    joined.attrs = dict(frame.attrs)
    return joined.astype({name: "Float64" for name in said.columns if name not in ("model", ASKED)})


def found_as(name: str, measured: Sequence[str], paths: Mapping[str, object] | None = None) -> str | None:
    """Return the one of the `measured` models that `name` is, however its folder was spelled; None if none is.

    Args:
        name: of a model.
        measured: names of the other table.
        paths: where the models of the other table lie, as far as it is known: a folder elsewhere is another model.

    Raises:
        InputError: if several may be meant.
    """
    if name in measured:
        return name
    place = os.path.realpath(os.path.expanduser(name))
    here = os.path.exists(place)
    found = []
    for other in measured:
        path = (paths or {}).get(other)
        elsewhere = here and isinstance(path, str) and os.path.realpath(path) != place
        if same_model(name, other) and not elsewhere:
            found.append(other)
    if len(found) > 1:
        raise InputError(f"{name} may be {' or '.join(found)} of the other table; use the same name in both tables.")
    return found[0] if found else None


def _short(name: str) -> str:
    """Last part of a hub id or path, without dots, which separate the parts of a feature's name."""
    return name.rstrip("/").split("/")[-1].replace(".", "_")
