"""Observational Scaling Laws (Ruan, Maddison & Hashimoto 2024, arXiv 2405.10938). Part of public_proxies.py.

Their question: the accuracy of the most trained models on a task, from that of less trained ones, given eight standard
benchmarks of each model. Their splits, their chance levels. Their law (three principal components of the benchmarks
through a sigmoid) is fitted beside ours. Ours is `fit_proxy` on columns ``accuracy.*`` with its defaults, as `emergence
fit` calls it, and beside it each candidate by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from proxy.regression.candidates import CANDIDATES, LAW
from proxy.regression.intervals import LEVELS
from proxy.regression.proxy import Proxy, fit_proxy
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
LAWLIKE = "principal_components"
NAMED = ("auto", LAWLIKE)  # whose intervals are looked at
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
    errors, intervals = [], {name: [] for name in NAMED}
    for task in TASKS:
        table = pd.read_csv(data / f"base_llm_{task.file}_eval.csv")[["Model", task.column]]
        models = base if task.everyone else base[base["Model Family"].isin(EVALUATED)]
        models = models.merge(table, on="Model").dropna(subset=[task.column])
        trained = (models[FLOPS] <= task.cutoff).to_numpy()
        error, given = _task(task, models[trained], models[~trained])
        errors.append(error)
        for name, interval in given.items():
            intervals[name].append(interval)
    ratios = pd.DataFrame(errors)
    ours = [name for name in CANDIDATES if name in ratios.columns]
    ratios["best in hindsight"] = ratios[ours].min(axis=1)
    means = {
        name: float(np.exp(np.log(ratios[name]).mean())) for name in ratios.columns[4:] if name != "auto has chosen"
    }
    best = min(ours, key=lambda name: means[name])
    summary = [
        ("the authors' law, three components (chosen with the test errors in view)", 1.0),
        ("the law, components by 95 % of the variance (sees no target)", means["law, k by 95 % variance"]),
        ("the law, components by leaving families out", means["law, k by families"]),
        (f"`fit` by default: `{LAW}`, as features are accuracies and the target has two bounds", means["auto"]),
        *((f"`{name}` by name", means[name]) for name in ours),
        (f"the best single candidate in hindsight, `{best}`", means[best]),
        ("the best candidate of each task in hindsight", means["best in hindsight"]),
    ]
    rows = pd.concat([ratios, pd.DataFrame([{"task": "geometric mean", **means}])], ignore_index=True)
    return {
        "Geometric mean over ten tasks of test MSE, as a multiple of the authors' law; the aim was 1.0": pd.DataFrame(
            summary, columns=["choice", "ratio"]
        ),
        "By task: test MSE of the law (accuracy from chance to 1), then multiples of it": rows,
    } | {
        f"90 % intervals of `{name}`: quantile over rows (MAPIE's own), over families, and as the product gives them "
        "(score: Gneiting & Raftery 2007, mean width plus 20 times the miss; aims: coverage .85 on each, score .41)": (
            pd.concat([counted, pd.DataFrame([_pooled(counted)])], ignore_index=True)
        )
        for name, counted in ((name, pd.DataFrame(rows)) for name, rows in intervals.items())
    }


def _task(
    task: Task, train: pd.DataFrame, test: pd.DataFrame
) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    truth = {name: _normal(part[task.column], task.chance) for name, part in (("train", train), ("test", test))}
    y = np.clip(truth["train"], 0.0, 1.0)
    known, new = _imputed(train[task.metrics].to_numpy(), test[task.metrics].to_numpy())
    families = train["Model Family"].to_numpy(dtype=str)

    def mse(estimate: Array) -> float:
        return float(np.mean((estimate - truth["test"]) ** 2))

    law = mse(_law(known, truth["train"], new, 3))
    error: Row = {
        "task": task.name,
        "train": len(train),
        "test": len(test),
        "law MSE": law,
        "law, k by 95 % variance": mse(_law(known, truth["train"], new, _by_variance(known))) / law,
        "law, k by families": mse(_law(known, truth["train"], new, _by_families(known, truth["train"], families)))
        / law,
    }
    references, target = (
        part[task.metrics].add_prefix("accuracy.").assign(model=part["Model"], family=part["Model Family"])
        for part in (train, test)
    )
    references[TARGET] = y
    for name in CANDIDATES:  # what `fit_proxy(candidate=name)` estimates, without its validation
        if name != "log_parameters":
            regressor = ProxyRegressor(name, BOUNDS, "family", "family", one_unit=True)
            fitted = regressor.fit(references.drop(columns=["model", TARGET]), y)
            error[name] = mse(fitted.predict(target.drop(columns="model"))) / law
    compute = [np.log10(part[FLOPS].fillna(train[FLOPS].max()).to_numpy())[:, None] for part in (train, test)]
    error["log compute"] = mse(ProxyRegressor("best_feature", BOUNDS).fit(compute[0], y).predict(compute[1])) / law
    proxies = {name: fit_proxy(references, target=TARGET, bounds=BOUNDS, candidate=name) for name in NAMED}
    estimate = proxies["auto"].predict(target)["estimate"].to_numpy(dtype=float, na_value=np.nan)
    given = ~np.isnan(estimate)  # withheld where a model lies too far outside the references
    squares = (_law(known, truth["train"], new, 3) - truth["test"]) ** 2
    error["auto"] = float(np.mean((estimate - truth["test"])[given] ** 2) / np.mean(squares[given]))
    error["auto has chosen"] = proxies["auto"].chosen
    return error, {name: _interval(task, proxy, target, truth["test"]) for name, proxy in proxies.items()}


def _interval(task: Task, proxy: Proxy, target: pd.DataFrame, truth: Array) -> Row:
    """Coverage and score of the 90 % intervals of one proxy by their kind, against `truth` (m,)."""
    fit, at, inputs = proxy.intervals, LEVELS.index(0.9), target[[*proxy.features, "family"]]
    _, lower, upper = fit.predict(inputs)
    _, row_lower, row_upper = replace(fit, labels=np.arange(len(fit.labels)).astype(str)).predict(inputs)
    given = proxy.predict(target)
    inside = given["in_domain"].to_numpy(dtype=bool)
    product = [given[name].to_numpy(dtype=float, na_value=np.nan) for name in ("lower", "upper")]
    ends = {"rows": (row_lower[:, at], row_upper[:, at]), "families": (lower[:, at], upper[:, at]), "product": product}
    interval: Row = {"task": task.name, "families": fit.groups, "test": len(truth)}
    for name, (a, b) in ends.items():
        known = ~np.isnan(a)
        interval[f"{name}: coverage"] = _covered(a, b, truth, known)
        miss = np.maximum(a - truth, 0) + np.maximum(truth - b, 0)
        interval[f"{name}: score"] = float(np.mean((b - a + 20 * miss)[known]))
    interval["withheld"] = float(np.isnan(product[0]).mean())
    interval["outside the domain"] = float(np.mean(~inside))
    interval["product: coverage inside"] = _covered(*product, truth, inside & ~np.isnan(product[0]))
    interval["product: coverage outside"] = _covered(*product, truth, ~inside & ~np.isnan(product[0]))
    return interval


def _covered(lower: Array, upper: Array, truth: Array, rows: NDArray[np.bool_]) -> float:
    share = np.clip(truth, 0, 1)
    return float(((lower - 1e-9 <= share) & (share <= upper + 1e-9))[rows].mean()) if rows.any() else float("nan")


def _pooled(intervals: pd.DataFrame) -> Row:
    """Average over models; where intervals were withheld or lay outside, over those that are counted there."""
    tests = intervals["test"].to_numpy(dtype=float)
    counts = {
        "product: coverage": tests * (1 - intervals["withheld"]),
        "product: score": tests * (1 - intervals["withheld"]),
        "product: coverage inside": tests * (1 - intervals["outside the domain"]),
        "product: coverage outside": tests * (intervals["outside the domain"] - intervals["withheld"]),
    }
    values = {}
    for name in intervals.columns[3:]:
        weights = np.asarray(counts.get(name, tests))
        some = weights > 1e-9
        values[name] = float(np.average(intervals[name].to_numpy(dtype=float)[some], weights=weights[some]))
    return {"task": "all models", "test": int(tests.sum()), **values}


def _normal(column: pd.Series, chance: float) -> Array:
    return np.asarray((column.to_numpy(dtype=float) - chance) / (1 - chance))


def _law(known: Array, y: Array, new: Array, components: int) -> Array:
    """Fit the authors' law: principal components (features not standardised) through a sigmoid, least squares."""
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:components].T
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


def _by_variance(known: Array) -> int:
    share = np.cumsum(np.linalg.svd(known - known.mean(axis=0), compute_uv=False) ** 2)
    return int(np.searchsorted(share / share[-1], 0.95)) + 1


def _by_families(known: Array, y: Array, families: NDArray[np.str_]) -> int:
    losses = []
    for components in range(1, 6):
        left = [families == family for family in np.unique(families)]
        losses.append(sum(np.sum((_law(known[~out], y[~out], known[out], components) - y[out]) ** 2) for out in left))
    return int(np.argmin(losses)) + 1


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
