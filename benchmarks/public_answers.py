"""Emergence from free answers, and profiles from smaller models: part "answers" of public_proxies.py.

Models: the ten bundled ones and 18 stages of training, after 12, 25 and 50 % of the steps, of the six smallest of them:

    python benchmarks/train_reference_models.py --text DIR --out OUT --keep-checkpoints CHECKPOINTS \
      --only gpt2-30k gpt2-90k gpt2-280k gemma-30k gemma-90k gemma-280k

That is 28 models of ten training runs and two architectures. Stages of one run are no independent models, so runs are
left out whole. Each model is measured on a corpus, answers the same prompts, and its answers are read by one small
reader, which is no reference itself; log probabilities are not used, as most closed models give none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from public_cache import table_path

from estimators.base import InputError
from extraction import Sampling, generate_answers, load_model, prompts, reference_models, windows
from proxy.features.table import compute_features
from proxy.measurement.table import DEFAULT_RESOLUTION, Propagation, measure, peak_emergence
from proxy.regression.folds import rows_needed
from proxy.regression.intervals import LEVELS, Intervals
from proxy.regression.references import SIZE
from proxy.regression.regressor import ProxyRegressor
from proxy.regression.scale import DEPTHS, leave_largest_out, predict_profile, profiles

Array = NDArray[np.float64]
READER = "gpt2-750k"
TARGET = "emergence_bits"
TOKENS = "meta.log_tokens"
WINDOWS, PROMPTS, LONGEST = 1000, 100, 48
FINAL_TOKENS = 4_505_600  # that a bundled model was trained on


def evaluate(checkpoints: Path, corpora: list[str], cache: Path) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    folders = {name: str(reference_models.path(name)) for name in reference_models.names()}
    folders |= {path.name: str(path) for path in sorted(checkpoints.iterdir()) if path.is_dir()}
    emergence = pd.concat([_measured(name, folder, corpora, cache) for name, folder in folders.items()])
    answers = pd.concat([_read(name, folder, cache) for name, folder in folders.items() if name != READER])
    found: dict[str, pd.DataFrame] = {
        "Data": pd.DataFrame(
            [
                {
                    "measured models": len(folders),
                    "references that were read": len(answers),
                    "reader": READER,
                    "training runs": len({name.split("@")[0] for name in folders}),
                    "architectures": len({name.split("-")[0] for name in folders}),
                }
            ]
        )
    }
    for corpus in corpora:
        measured = emergence[emergence["corpus"] == corpus]
        references = peak_emergence(measured).merge(answers, on="model", validate="one_to_one")
        references[SIZE] = np.log10(references["parameters"].astype(float))
        share = references["model"].str.extract(r"@(\d+)$")[0].astype(float).fillna(100.0) / 100
        references[TOKENS] = np.log10(share * FINAL_TOKENS)
        references["run"] = references["model"].str.split("@").str[0]
        found[f"{corpus}: peak E(l) from answers alone (RMSE in bits)"] = _left_out(references)
        found[f"{corpus}: profiles E(l) in scale mode (RMSE in bits over relative depth)"] = _scale(measured)
    return found


def _measured(name: str, folder: str, corpora: list[str], cache: Path) -> pd.DataFrame:
    saved = table_path(cache, f"{name}.emergence", *corpora, WINDOWS, DEFAULT_RESOLUTION)
    if not saved.is_file():
        model = load_model(folder)
        parts = [
            measure(
                model,
                windows(corpus, model.tokenizer, count=WINDOWS, prefix=model.prefix),
                estimator="sample-propagation",
                propagation=Propagation(resolutions=(DEFAULT_RESOLUTION,)),
            )
            for corpus in corpora
        ]
        pd.concat(parts, ignore_index=True).assign(model=name, family=name.split("-")[0]).to_parquet(saved)
        sys.stderr.write(f"measured {name}\n")
    return pd.read_parquet(saved)


def _read(name: str, folder: str, cache: Path) -> pd.DataFrame:
    saved = table_path(cache, f"{name}.features", READER, PROMPTS, LONGEST)
    if not saved.is_file():
        asked = prompts("demo").head(PROMPTS)
        answers = generate_answers(load_model(folder), asked, sampling=Sampling(max_tokens=LONGEST, logprobs=0)).assign(
            model=name
        )
        compute_features(answers, [load_model(READER)]).to_parquet(saved)
        sys.stderr.write(f"{READER} read {name}\n")
    return pd.read_parquet(saved)


def _left_out(references: pd.DataFrame) -> pd.DataFrame:
    """Leave out runs, architectures, and the largest size; compare with the mean and what an API hides."""
    numbers = references.select_dtypes("number").columns
    answers = [c for c in numbers if c.startswith(("small.", "behaviour.")) and references[c].astype(float).std() > 0]
    y = references[TARGET].to_numpy(dtype=float)
    methods = {
        "answers": ("auto", answers),
        "best feature": ("best_feature", answers),
        "mean": ("mean", answers),
        "log parameters": ("best_feature", [SIZE]),
        "log parameters, log tokens": ("ridge", [SIZE, TOKENS]),
    }
    splits = {
        "one run": references["run"].to_numpy(dtype=str),
        "an architecture": references["family"].to_numpy(dtype=str),
        "the largest size": np.where(references["run"].str.endswith("2m"), "2m", ""),
    }
    rows = []
    for title, parts in splits.items():
        estimates = {name: np.full(len(y), np.nan) for name in methods}
        level = 0.9
        for part in np.unique(parts[parts != ""]):
            if len(references.loc[parts != part, "run"].unique()) < rows_needed(0.9):
                level = 0.8  # too few runs remain for more
        low, high = np.full((2, len(y)), np.nan)
        for part in np.unique(parts[parts != ""]):
            left = parts == part
            for name, (candidate, columns) in methods.items():
                X = references[columns].astype(float).assign(run=references["run"])
                regressor = ProxyRegressor(candidate, group_column="run")
                if name != "answers":
                    estimates[name][left] = regressor.fit(X[~left], y[~left]).predict(X[left])
                    continue
                runs = references.loc[~left, "run"].to_numpy(dtype=str)
                fitted = Intervals.fit(regressor, X[~left], y[~left], np.ones(int((~left).sum())), runs)
                estimates[name][left], lower, upper = fitted.predict(X[left])
                low[left], high[left] = lower[:, LEVELS.index(level)], upper[:, LEVELS.index(level)]
        known = ~np.isnan(estimates["answers"])
        ranked = np.ptp(estimates["answers"][known]) > 0  # "auto" may choose the mean
        rows.append(
            {
                "left out together": title,
                "models": int(known.sum()),
                **{name: float(np.sqrt(np.mean((values - y)[known] ** 2))) for name, values in estimates.items()},
                "Spearman of answers": float(
                    pd.Series(estimates["answers"][known]).corr(pd.Series(y[known]), "spearman")
                )
                if ranked
                else float("nan"),
                "level": level,
                "coverage": float(np.mean(((low <= y) & (y <= high))[known])),
                "mean width": float(np.mean((high - low)[known])),
            }
        )
    return pd.DataFrame(rows)


def _scale(measured: pd.DataFrame) -> pd.DataFrame:
    """Predict profiles of the largest models and of whole architectures from the others, stages among them.

    A stage of training is a family of its own: what has seen half of the text is a sibling of what has seen half.
    """
    table = profiles(measured, resolution=DEFAULT_RESOLUTION)
    stage = table["model"].str.extract(r"(@\d+)$")[0].fillna("")
    staged = table.assign(family=table["family"] + stage)
    finals = table[stage == ""].reset_index(drop=True)
    rows = []
    for title, part in {"bundled models only": finals, "stages too": staged}.items():
        found = leave_largest_out(part)
        for model in finals.groupby("family")["model"].agg(list).explode():
            if model.endswith("2m"):
                rows.append(_errors(f"{model}, and all of its size; {title}", found[found["model"] == model]))
    for architecture in finals["family"].unique():
        others = staged[~staged["model"].str.startswith(f"{architecture}-")].reset_index(drop=True)
        parts = [_from_others(others, model) for _, model in finals[finals["family"] == architecture].iterrows()]
        rows.append(_errors(f"all of {architecture} (its five bundled models are predicted)", pd.concat(parts)))
    return pd.DataFrame(rows)


def _from_others(others: pd.DataFrame, model: pd.Series) -> pd.DataFrame:
    try:
        found = predict_profile(others, family=str(model["family"]), parameters=10 ** model[SIZE])
    except InputError as error:
        raise InputError(f"{model['model']}: {error}") from error
    values = others[list(DEPTHS)].to_numpy(dtype=float)
    slopes, heights = np.polyfit(others[SIZE].to_numpy(dtype=float), values, 1)
    return found.assign(
        truth=model[list(DEPTHS)].to_numpy(dtype=float),
        mean=values.mean(axis=0),
        log_parameters=heights + slopes * model[SIZE],
        sibling=np.nan,
    )


def _errors(title: str, part: pd.DataFrame) -> dict[str, object]:
    def rmse(name: str) -> float:
        return float(np.sqrt(np.mean((part[name] - part["truth"]).astype(float) ** 2)))

    given = part["lower"].notna()
    inside = (part["lower"] <= part["truth"]) & (part["truth"] <= part["upper"])
    return {
        "left out together": title,
        "scale mode": rmse("estimate"),
        "mean": rmse("mean"),
        "log parameters": rmse("log_parameters"),
        "next smaller sibling": rmse("sibling"),
        "intervals given": float(given.mean()),
        "90 % coverage": float(inside[given].mean()) if given.any() else float("nan"),
    }
