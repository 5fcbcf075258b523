"""Emergence itself: can it be estimated for architectures and sizes that were left out? Part of public_proxies.py.

Models: the bundled ones and their checkpoints after 12, 25 and 50 % of training, which

    python benchmarks/train_reference_models.py --text DIR --out OUT --keep-checkpoints CHECKPOINTS

makes: 40 models, 10 training runs, 2 architectures. Four stages of one run are no independent models, so runs are
left out whole. Each model is measured on a corpus, answers the same prompts, and its answers are read by one small
reader; log probabilities are not used, as most closed models give none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from extraction import generate_answers, load_model, prompts, reference_models, windows
from proxy.features import features
from proxy.measure import DEFAULT_RESOLUTION, measure, peak_emergence
from proxy.references import SIZE
from proxy.regression import ProxyRegressor
from proxy.scale import leave_largest_out, profiles

READER = "gpt2-280k"
TARGET = "emergence_bits"


def evaluate(checkpoints: Path, corpora: list[str], cache: Path, *, prompt_count: int = 100) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    found: dict[str, pd.DataFrame] = {}
    folders = {name: str(reference_models.path(name)) for name in reference_models.names()}
    folders |= {path.name: str(path) for path in sorted(checkpoints.iterdir()) if path.is_dir()}
    tables, rows = [], []
    for name, folder in folders.items():
        table, row = _observed(name, folder, corpora, cache, prompt_count)
        tables.append(table)
        rows.append(row)
    emergence = pd.concat(tables, ignore_index=True)
    answers = pd.concat(rows, ignore_index=True)
    for corpus in corpora:
        measured = emergence[emergence["corpus"] == corpus]
        references = peak_emergence(measured).merge(answers, on="model", validate="one_to_one")
        references[SIZE] = np.log10(references["parameters"].astype(float))
        references["run"] = references["model"].str.split("@").str[0]
        found[f"{corpus}: peak E(l) from answers alone, rows left out together (RMSE in bits)"] = _left_out(references)
        finals = measured[~measured["model"].str.contains("@")]
        largest = leave_largest_out(profiles(finals, resolution=DEFAULT_RESOLUTION))
        found[f"{corpus}: profile of the largest bundled models in scale mode (RMSE in bits over depth)"] = _scale(
            largest
        )
    return found


def _observed(
    name: str, folder: str, corpora: list[str], cache: Path, prompt_count: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure a model and read its answers, or take both from the cache."""
    saved = cache / f"{name}.emergence.parquet", cache / f"{name}.features.parquet"
    if not all(path.is_file() for path in saved):
        model = load_model(folder)
        parts = [
            measure(
                model,
                windows(corpus, model.tokenizer, count=1000, prefix=model.prefix),
                resolutions=(DEFAULT_RESOLUTION,),
            )
            for corpus in corpora
        ]
        table = pd.concat(parts, ignore_index=True).assign(model=name, family=name.split("-")[0])
        asked = prompts("demo").head(prompt_count)
        answers = generate_answers(model, asked, max_tokens=48, logprobs=0).assign(model=name)
        row = features(answers, [load_model(READER)])
        table.to_parquet(saved[0])
        row.to_parquet(saved[1])
        print(f"measured {name}", flush=True)
    return pd.read_parquet(saved[0]), pd.read_parquet(saved[1])


def _left_out(references: pd.DataFrame) -> pd.DataFrame:
    """Leave out runs, architectures, and the largest size; compare with the mean and log parameters."""
    numbers = references.select_dtypes("number").columns
    answers = [c for c in numbers if c.startswith(("small.", "behaviour.")) and references[c].std() > 0]
    X = references[answers].astype(float).assign(run=references["run"])
    size = references[[SIZE]].assign(run=references["run"])
    y = references[TARGET].to_numpy(dtype=float)
    largest = references["run"].str.endswith("2m").to_numpy()
    splits = {
        "one run": references["run"].to_numpy(),
        "an architecture": references["family"].to_numpy(),
        "the largest size": np.where(largest, "2m", ""),
    }
    rows = []
    for title, parts in splits.items():
        estimates = {name: np.full(len(y), np.nan) for name in ("answers", "mean", "log_parameters", "best_feature")}
        for part in np.unique(parts[parts != ""]):
            left = parts == part
            for name, (candidate, inputs) in {
                "answers": ("auto", X),
                "best_feature": ("best_feature", X),
                "mean": ("mean", X),
                "log_parameters": ("best_feature", size),
            }.items():
                fitted = ProxyRegressor(candidate, group_column="run").fit(inputs[~left], y[~left])
                estimates[name][left] = fitted.predict(inputs[left])
        known = ~np.isnan(estimates["answers"])
        rows.append(
            {
                "left out": title,
                "models": int(known.sum()),
                **{name: float(np.sqrt(np.mean((values - y)[known] ** 2))) for name, values in estimates.items()},
                "Spearman of answers": float(
                    pd.Series(estimates["answers"][known]).corr(pd.Series(y[known]), "spearman")
                ),
            }
        )
    return pd.DataFrame(rows)


def _scale(largest: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model, part in largest.groupby("model"):
        errors = {name: part[name] - part["truth"] for name in ("estimate", "mean", "log_parameters", "sibling")}
        inside = (part["lower"] <= part["truth"]) & (part["truth"] <= part["upper"])
        rows.append(
            {
                "left out": model,
                **{name: float(np.sqrt(np.mean(error**2))) for name, error in errors.items()},
                "depths inside 90 %": float(inside.mean()),
            }
        )
    return pd.DataFrame(rows)
