"""Observational Scaling Laws (Ruan, Maddison & Hashimoto 2024, arXiv 2405.10938). Part of public_proxies.py.

Their question: the accuracy of the most trained models on a task, from that of less trained ones, given eight standard
benchmarks of each model. Their splits, their chance levels. Their law (three principal components of the benchmarks
through a sigmoid) and a line in the logarithm of training compute are fitted beside ours. Ours is `fit_proxy` on
columns ``accuracy.*`` with its defaults, as `emergence fit` calls it; and with ``--groups model`` for the intervals of
one who takes models, not families, for exchangeable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from proxy.regression.proxy import fit_proxy
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
Row = dict[str, object]
METRICS = ["MMLU", "ARC-C", "HellaSwag", "Winograd", "TruthfulQA", "GSM8K", "XWinograd", "HumanEval"]
OTHERS = [name for name in METRICS if name != "GSM8K"]
FLOPS = "FLOPs (1E21)"
# Families the authors evaluated themselves; their leaderboard study uses all.
EVALUATED = [
    *("Llama-2", "Llama", "Llama-3", "Qwen1.5", "Qwen", "Mistral", "Mixtral", "Yi", "Gemma", "Falcon", "Phi", "Pythia"),
    *("BLOOM", "GPT-Neo/J", "OPT", "MPT", "XGLM", "CodeLlama", "StarCoder", "StarCoder2", "DeepSeek-Coder"),
]
BBH_CHANCE = 0.26243386243386246  # mean over the 27 subtasks of one over the number of options
BOUNDS = (0.0, 1.0)
GROUPS = ("family", "model")  # that are left out together; the first is the default
TARGET = "accuracy"


@dataclass(frozen=True)
class Task:
    """One target: file, column, largest training compute (1e21 FLOPs), predictors, chance accuracy."""

    name: str
    file: str
    column: str
    cutoff: float
    metrics: list[str]
    chance: float = 0.0
    everyone: bool = False


TASKS = (
    Task("word unscrambling", "emergent_capability", "word_unscrambling_2_exact_match", 84, METRICS),
    Task("Persian QA", "emergent_capability", "parsinlu_qa_2_acc", 84, METRICS, 0.25),
    Task("3-digit subtraction", "emergent_capability", "arithmetic_3ds_2_acc", 22, OTHERS),
    Task("2-digit multiplication", "emergent_capability", "arithmetic_2dm_2_acc", 22, OTHERS),
    Task("GPQA", "leaderboard_v2", "leaderboard_gpqa", 168, OTHERS, 0.25, True),
    Task("MATH-5", "leaderboard_v2", "leaderboard_math_hard", 252, OTHERS, 0.0, True),
    Task("BBH", "leaderboard_v2", "leaderboard_bbh", 84, OTHERS, BBH_CHANCE, True),
    Task("GSM8K naive", "post_training", "gsm8k_5_exact_match,flexible-extract", 84, METRICS),
    Task("GSM8K CoT", "post_training", "gsm8k_cot_8_exact_match,flexible-extract", 84, METRICS),
    Task(
        "GSM8K CoT+SC", "post_training", "gsm8k_cot_self_consistency_8_exact_match,maj@5-flexible-extract", 84, METRICS
    ),
)


def evaluate(data: Path) -> dict[str, pd.DataFrame]:
    """Return tables by title: errors relative to the authors' law, and intervals."""
    base = pd.read_csv(data / "base_llm_benchmark_eval.csv")
    errors, intervals = [], {groups: [] for groups in GROUPS}
    for task in TASKS:
        table = pd.read_csv(data / f"base_llm_{task.file}_eval.csv")[["Model", task.column]]
        models = base if task.everyone else base[base["Model Family"].isin(EVALUATED)]
        models = models.merge(table, on="Model").dropna(subset=[task.column])
        trained = (models[FLOPS] <= task.cutoff).to_numpy()
        error, given = _task(task, models[trained], models[~trained])
        errors.append(error)
        for groups, interval in given.items():
            intervals[groups].append(interval)
    ratios = pd.DataFrame(errors)
    means = {name: float(np.exp(np.log(ratios[name]).mean())) for name in ("log compute", "default")}
    return {
        "Test MSE of the authors' law (accuracy from chance to 1); of training compute alone and of `fit` by default "
        "as multiples of it, the aim was 1.0": pd.concat(
            [ratios, pd.DataFrame([{"task": "geometric mean", **means}])], ignore_index=True
        ),
    } | {
        f"90 % intervals of `fit --groups {groups}` (score of Gneiting & Raftery 2007: mean width plus 20 times the "
        "miss; aims: coverage .85 on each, score .41)": pd.concat(
            [pd.DataFrame(rows), pd.DataFrame([_pooled(pd.DataFrame(rows))])], ignore_index=True
        )
        for groups, rows in intervals.items()
    }


def _task(task: Task, train: pd.DataFrame, test: pd.DataFrame) -> tuple[Row, dict[str, Row]]:
    truth = {name: _normal(part[task.column], task.chance) for name, part in (("train", train), ("test", test))}
    y = np.clip(truth["train"], 0.0, 1.0)
    law = (
        _law(*_imputed(train[task.metrics].to_numpy(), test[task.metrics].to_numpy()), truth["train"]) - truth["test"]
    ) ** 2
    compute = [np.log10(part[FLOPS].fillna(train[FLOPS].max()).to_numpy())[:, None] for part in (train, test)]
    alone = ProxyRegressor("best_feature", BOUNDS).fit(compute[0], y).predict(compute[1])
    references, target = (
        part[task.metrics].add_prefix("accuracy.").assign(model=part["Model"], family=part["Model Family"])
        for part in (train, test)
    )
    references[TARGET] = y
    found = {groups: fit_proxy(references, target=TARGET, bounds=BOUNDS, groups=groups) for groups in GROUPS}
    estimates = {groups: proxy.predict(target) for groups, proxy in found.items()}
    estimate = estimates["family"]["estimate"].to_numpy(dtype=float, na_value=np.nan)
    given = ~np.isnan(estimate)  # withheld where a model lies too far outside the references
    error: Row = {
        "task": task.name,
        "train": len(train),
        "test": len(test),
        "families": train["Model Family"].nunique(),
        "law MSE": float(law.mean()),
        "log compute": float(np.mean((alone - truth["test"]) ** 2) / law.mean()),
        "default": float(np.mean((estimate - truth["test"])[given] ** 2) / np.mean(law[given])),
        "chosen": found["family"].chosen,
    }
    return error, {groups: _interval(task, table, truth["test"]) for groups, table in estimates.items()}


def _interval(task: Task, given: pd.DataFrame, truth: Array) -> Row:
    """Coverage and score of 90 % intervals as `estimate` gives them, against `truth` (m,)."""
    inside = given["in_domain"].to_numpy(dtype=bool)
    lower, upper = (given[name].to_numpy(dtype=float, na_value=np.nan) for name in ("lower", "upper"))
    known = ~np.isnan(lower)
    miss = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
    return {
        "task": task.name,
        "test": len(truth),
        "coverage": _covered(lower, upper, truth, known),
        "score": float(np.mean((upper - lower + 20 * miss)[known])),
        "withheld": float(np.mean(~known)),
        "outside the domain": float(np.mean(~inside)),
        "coverage inside": _covered(lower, upper, truth, inside & known),
        "coverage outside": _covered(lower, upper, truth, ~inside & known),
    }


def _covered(lower: Array, upper: Array, truth: Array, rows: NDArray[np.bool_]) -> float:
    share = np.clip(truth, 0, 1)
    return float(((lower - 1e-9 <= share) & (share <= upper + 1e-9))[rows].mean()) if rows.any() else float("nan")


def _pooled(intervals: pd.DataFrame) -> Row:
    """Average over models; where intervals were withheld or lay outside, over those that are counted there."""
    tests = intervals["test"].to_numpy(dtype=float)
    counts = {
        "coverage": tests * (1 - intervals["withheld"]),
        "score": tests * (1 - intervals["withheld"]),
        "coverage inside": tests * (1 - intervals["outside the domain"]),
        "coverage outside": tests * (intervals["outside the domain"] - intervals["withheld"]),
    }
    values = {}
    for name in intervals.columns[2:]:
        weights = np.asarray(counts.get(name, tests))
        some = weights > 1e-9
        values[name] = float(np.average(intervals[name].to_numpy(dtype=float)[some], weights=weights[some]))
    return {"task": "all models", "test": int(tests.sum()), **values}


def _normal(column: pd.Series, chance: float) -> Array:
    return np.asarray((column.to_numpy(dtype=float) - chance) / (1 - chance))


def _law(known: Array, new: Array, y: Array) -> Array:
    """Fit the authors' law: three principal components (not standardised) through a sigmoid, least squares."""
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:3].T
    design, target = (np.column_stack([np.ones(len(part)), (part - centre) @ axes]) for part in (known, new))
    share = np.clip(y, 0.02, 0.98)
    starts = np.zeros(design.shape[1]), np.linalg.lstsq(design, np.log(share / (1 - share)), rcond=None)[0]

    def loss(w: Array) -> tuple[float, Array]:
        found = _sigmoid(design @ w)
        return float(np.mean((found - y) ** 2)), 2 * design.T @ ((found - y) * found * (1 - found)) / len(y)

    fits = [minimize(loss, start, jac=True, method="BFGS") for start in starts]
    return _sigmoid(target @ min(fits, key=lambda fit: fit.fun).x)


def _sigmoid(eta: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(eta, -50, 50))))


def _imputed(known: Array, new: Array) -> tuple[Array, Array]:
    """Fill gaps as the authors do: repeated projection on one principal component of the standardised training rows."""
    mean, spread = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    filled = []
    centre = axis = np.zeros(0)
    for part, learn in ((known, True), (new, False)):
        Z = (part - mean) / spread
        gaps = np.isnan(Z)
        Z[gaps] = 0.0
        for _ in range(1000):
            if learn:
                centre = Z.mean(axis=0)
                axis = np.linalg.svd(Z - centre, full_matrices=False)[2][:1]
            before = Z[gaps].copy()
            Z[gaps] = ((Z - centre) @ axis.T @ axis + centre)[gaps]
            if np.allclose(before, Z[gaps], atol=1e-7):
                break
        filled.append(np.clip(Z * spread + mean, 0.0, 1.0))
    return filled[0], filled[1]
