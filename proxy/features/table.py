"""One row of features per model, from its answers alone: what readers see in them, how they behave, their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from estimators.base import InputError, Progress
from extraction.models.names import same_model
from extraction.tables import RESPONSES
from proxy.features.behaviour import accuracy_by_shots, behaviour_features
from proxy.features.readers import RESOLUTIONS, Reader, read_features
from proxy.features.words import word_features
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
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Turn the answers of one or more models into one row of features each.

    Args:
        responses: schema RESPONSES; rows without text (failed calls) are left out. The models should have answered
            the same prompts, or differences between prompts pass for differences between models.
        readers: small models that read the answers; none is allowed.
        seed: of windows and noise.
        resolutions: noise levels of the readers' information, relative to the norm of their states.
        progress: called with the number of models times readers done.

    Returns:
        Columns ``model``, ``small.<reader>.<name>`` (bits), ``behaviour.<name>`` and ``words.<word>`` (log odds that an
        answer holds one of a fixed list of words, see `proxy.features.words`); null where the answers do not show it, a
        model has fewer than 10 usable answers, or a reader cannot read it: ``attrs["remarks"]`` says why. Where prompts
        were lists, ``shots.<n>`` is the accuracy after n entities, to be looked at: proxies learn from its steadier
        summaries among the behaviour.

    Raises:
        InputError: if no model can be read, two readers have the same name, or logprobs are malformed.

    >>> answers = pd.DataFrame({"model": "m", "prompt_id": [str(i) for i in range(20)], "text": "a dog and a cat ran"})
    >>> compute_features(answers, readers=[])["model"].tolist()
    ['m']
    """
    responses = RESPONSES.conform(responses)
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
    total = len(models) * max(1, len(readers))
    rows: list[dict[str, object]] = [{"model": model} for model in models]
    by_shots: dict[int, dict[int, float]] = {}
    for number, (name, short) in enumerate(zip(readers, shorts, strict=True)):
        reader = Reader(name, seed)
        for place, model in enumerate(models):
            if model not in few:
                try:
                    found = read_features(usable[usable["model"] == model], reader, resolutions)
                except InputError as error:
                    if len(models) == 1:
                        raise InputError(f"{model}: {error}") from error
                    remarks[model] = f"{model}: {error}"  # the other models can still be read
                else:
                    rows[place] |= {f"small.{short}.{key}": value for key, value in found.items()}
            if progress is not None:
                progress(number * len(models) + place + 1, total)
    if len(remarks) == len(models):
        raise InputError(next(iter(remarks.values())))
    for place, model in enumerate(models):
        if model not in few:
            own = responses[responses["model"] == model]
            found_behaviour = behaviour_features(own)
            rows[place] |= {f"behaviour.{key}": value for key, value in found_behaviour.items()}
            rows[place] |= {f"words.{key}": value for key, value in word_features(own).items()}
            by_shots[place] = accuracy_by_shots(own)
        if progress is not None and not readers:
            progress(place + 1, total)
    for shots in sorted({shots for found_shots in by_shots.values() for shots in found_shots}):
        for place, found_shots in by_shots.items():
            rows[place][f"shots.{shots}"] = found_shots.get(shots)
    frame = pd.DataFrame(rows)
    numeric = [column for column in frame.columns if column != "model"]
    frame = frame.astype({"model": "string", **dict.fromkeys(numeric, "Float64")})
    frame.attrs["remarks"] = [*remarks.values()]
    return frame


def _too_few(usable: pd.DataFrame, models: Sequence[str]) -> dict[str, str]:
    """Why models have no features at all."""
    counts = usable.groupby("model").size()
    return {
        model: f"{model} has {counts.get(model, 0)} usable answers, fewer than the {FEWEST_ANSWERS} that features "
        "need; collect more, or look for errors in its responses."
        for model in models
        if counts.get(model, 0) < FEWEST_ANSWERS
    }


def join_target(frame: pd.DataFrame, peaks: pd.DataFrame) -> pd.DataFrame:
    """Put the measured emergence beside the features of models whose weights are open.

    Args:
        frame: features, one row per model.
        peaks: from `proxy.peak_emergence`, one corpus.

    Returns:
        `frame` with family, meta.log_parameters (decimal logarithm), corpus, emergence_bits and its standard error.

    Raises:
        InputError: if the measurements are of several corpora, or lack a model.
    """
    corpora = sorted(peaks["corpus"].unique())
    if len(corpora) != 1:
        raise InputError(f"The emergence table holds the corpora {', '.join(corpora)}; name one by --corpus.")
    measured_as = {name: found_as(name, peaks["model"].tolist()) for name in frame["model"]}
    missing = sorted(name for name, found in measured_as.items() if found is None)
    if missing:
        raise InputError(f"No emergence was measured for {', '.join(missing)}; measure them first (emergence sweep).")
    frame = frame.assign(model=frame["model"].map(measured_as).astype("string"))
    measured = peaks.assign(**{"meta.log_parameters": np.log10(peaks["parameters"].astype("Float64"))})
    columns = ["model", "family", "meta.log_parameters", "corpus", "emergence_bits", "emergence_bits_std_error"]
    joined = frame.merge(measured[columns], on="model", how="left", validate="one_to_one")
    return REFERENCES.conform(joined)


def found_as(name: str, measured: Sequence[str]) -> str | None:
    """Return the one of the `measured` models that `name` is, however its folder was spelled; None if none is.

    Raises:
        InputError: if several may be meant.
    """
    if name in measured:
        return name
    found = [other for other in measured if same_model(name, other)]
    if len(found) > 1:
        raise InputError(f"{name} may be {' or '.join(found)} of the other table; name it alike in both tables.")
    return found[0] if found else None


def _short(name: str) -> str:
    """Last part of a hub id or path, without dots, which separate the parts of a feature's name."""
    return name.rstrip("/").split("/")[-1].replace(".", "_")
