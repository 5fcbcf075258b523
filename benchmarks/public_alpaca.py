"""Win rate of models from their answers alone (AlpacaEval's published answers). Part of public_proxies.py.

Nothing but the text of the answers is used: no names, no parameters, no column made from win rates. Two questions:
whole families left out, and all API-only models left out while only open ones train.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from extraction import load_model
from proxy.behaviour_features import behaviour_features
from proxy.intervals import LEVELS, Intervals
from proxy.reader_features import RESOLUTIONS, Reader, read_features
from proxy.regression import ProxyRegressor

Array = NDArray[np.float64]
BOUNDS = (0.0, 100.0)
GAMED = ("NullModel", "gpt4_gamed")  # answers written against the judge, not to the question
EVERY, CHARACTERS = 4, 200  # the reader reads every fourth answer, its first characters
COMMONEST = 400  # words whose share of answers is a feature; the commonest in all answers, no target is looked at
INTERVALS = ("answer length", "best single feature", "behaviour", "behaviour + words")  # nested, so slow
LENGTH = ("behaviour.log_characters", "behaviour.log_words", "behaviour.length_spread")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\*\*|#+|\n\n|[:;!?()\"-]|\d+\.")
# The model a name goes back to: what is left out together. The first that matches.
FAMILIES = {
    "gpt-3.5": r"^gpt-3\.5|text_davinci",
    "gpt-4": r"^gpt-?4",
    "blendaxai": r"^blendaxai",
    "mixtures of agents": r"moa|^TOA|Samba",
    "aligner": r"^aligner",
    "gemma-2": r"gemma-2",
    "qwen": r"qwen",
    "llama-3": r"llama-?3|ghost-8b|GPO",
    "yi": r"yi-1\.5",
    "pythia": r"pythia",
    "mixtral": r"mixtral",
    "mistral": r"mistral|zephyr|starling|conifer|deita|merlinite|ghost-7b|evo-|LMCocktail",
    "llama-2": r"llama-?2|v1\.5|v2\.0|recycled|cut-13b|minichat|causallm",
    "llama": r"vicuna|alpaca|airoboros|baize|humpback|nous|oasst|ultralm|opencoder",
}


def evaluate(
    data: Path, readers: list[str], cache: Path, *, draws: int = 2000, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    models = pd.read_csv(data / "models.csv")
    models = models[models["lc_win_rate"].notna() & ~models["model"].isin(GAMED)]
    models["family"] = models["model"].map(_family)
    table = models.merge(_features(data, readers, cache), on="model", validate="one_to_one")
    table = table.sort_values(["family", "model"]).reset_index(drop=True)
    varied = [c for c in table.columns if c.startswith(("small.", "behaviour.")) and table[c].std() > 0]
    behaviour = [c for c in varied if c.startswith("behaviour.")]
    information = [c for c in varied if c.startswith("small.")]
    words = [c for c in table.columns if c.startswith("words.")]
    plain_words = [c for c in table.columns if c.startswith("words_of_long.")]
    plain = [c for c in behaviour if c not in LENGTH]
    sets = {
        "answer length": ["behaviour.log_characters"],
        "reader's NLL": [c for c in information if c.endswith(".nll")][:1],
        "best single feature": varied,
        "information": information,
        "behaviour": behaviour,
        "behaviour + information": varied,
        "behaviour + words": behaviour + words,
        "behaviour + words + information": behaviour + words + information,
        "behaviour, no length": plain,
        "behaviour + information, no length": plain + information,
        "behaviour + words, no length": plain + plain_words,
    }
    truth = table["lc_win_rate"].to_numpy(dtype=float)
    api = (table["access"] == "api").to_numpy()
    scores, left_out = [], {}
    for name, columns in sets.items():
        single = name in ("answer length", "reader's NLL", "best single feature")
        chosen = "best_feature" if single else "auto"
        found = _left_out(table, columns, truth, chosen, name in INTERVALS)
        closed = _estimates(table, columns, truth, ~api, api, chosen, True)
        print(f"{name}: {_spearman(found[:, 0], truth):.3f} {_spearman(closed[:, 0], truth[api]):.3f}", file=sys.stderr)
        left_out[name] = found
        scores.append(
            {
                "features": name,
                "count": len(columns),
                **_scores("families", found, truth),
                **_scores("API-only", closed, truth[api]),
            }
        )
    counted = pd.DataFrame(
        [
            {
                "models": len(table),
                "families": table["family"].nunique(),
                "API-only": int(api.sum()),
                "target": "LC win rate, %",
            }
        ]
    )
    return {
        "Data": counted,
        "Left-out families, and API-only models from open ones": pd.DataFrame(scores),
        "What features add on left-out families (paired bootstrap over models)": _ablation(
            left_out, truth, draws, seed
        ),
    }


def _family(model: str) -> str:
    return next((name for name, pattern in FAMILIES.items() if re.search(pattern, model, re.IGNORECASE)), model)


def _features(data: Path, readers: list[str], cache: Path) -> pd.DataFrame:
    """Features of every model, from the cache where they are there."""
    parts = []
    for source in ("behaviour", "words", "words_of_long", *readers):
        saved = cache / f"{source}.parquet"
        if not saved.is_file():
            _read(data, source).to_parquet(saved)
        parts.append(pd.read_parquet(saved).set_index("model"))
    return pd.concat(parts, axis=1).reset_index()


def _read(data: Path, source: str) -> pd.DataFrame:
    if source.startswith("words"):
        return _words(data, source)
    answers = pd.read_parquet(data / "outputs.parquet").rename(columns={"output": "text"})
    asked = pd.read_parquet(data / "prompts.parquet").rename(columns={"instruction": "prompt"})
    answers = answers.merge(asked[["prompt_id", "prompt"]], on="prompt_id").assign(finish_reason=pd.NA, logprobs=pd.NA)
    kept = sorted(answers["prompt_id"].unique())[::EVERY]
    answers["prompt_id"] = answers["prompt_id"].astype(str)
    reader = None if source == "behaviour" else Reader(load_model(source))
    rows = []
    for model, own in answers.groupby("model"):
        if reader is None:
            found = {f"behaviour.{name}": value for name, value in behaviour_features(own).items()}
        else:
            own = own[own["prompt_id"].isin([str(prompt) for prompt in kept]) & (own["text"].str.strip() != "")]
            seen = read_features(own.assign(text=own["text"].str[:CHARACTERS]), reader, RESOLUTIONS)
            found = {f"small.{source}.{name}": value for name, value in seen.items()}
        rows.append({"model": model, **found})
        print(f"{source}: read {model}", flush=True)
    return pd.DataFrame(rows)


def _words(data: Path, source: str) -> pd.DataFrame:
    """Log odds that a common word or mark is among an answer's first 600 characters, for every third prompt.

    Longer answers hold more words; `words_of_long` looks at the first 300 characters of answers that have as many.
    """
    answers = pd.read_parquet(data / "outputs.parquet")
    answers = answers[answers["prompt_id"].isin(sorted(answers["prompt_id"].unique())[::3])]
    characters = 600
    if source == "words_of_long":
        characters = 300
        answers = answers[answers["output"].str.len() >= characters]
    counts: dict[str, Counter[str]] = {}
    for model, own in answers.groupby("model")["output"]:
        counts[str(model)] = Counter(word for text in own for word in set(WORD.findall(text[:characters].lower())))
    asked = answers.groupby("model").size()
    share: Counter[str] = Counter()
    for model, count in counts.items():
        for word in sorted(count):
            share[word] += count[word] / asked[model]  # type: ignore[assignment]
    common = sorted(share, key=lambda word: (-share[word], word))[:COMMONEST]
    rows = [
        {
            "model": model,
            **{f"{source}.{word}": np.log((count[word] + 0.5) / (asked[model] - count[word] + 0.5)) for word in common},
        }
        for model, count in counts.items()
    ]
    return pd.DataFrame(rows)


def _left_out(table: pd.DataFrame, columns: list[str], truth: Array, candidate: str, intervals: bool) -> Array:
    """Estimate, lower, upper (n, 3) of every model by a fit without its family."""
    found = np.full((len(table), 3), np.nan)
    for family in table["family"].unique():
        left = (table["family"] == family).to_numpy()
        found[left] = _estimates(table, columns, truth, ~left, left, candidate, intervals)
    return found


def _estimates(
    table: pd.DataFrame,
    columns: list[str],
    truth: Array,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    candidate: str,
    intervals: bool,
) -> Array:
    X = table[columns].astype(float).assign(family=table["family"])
    regressor = ProxyRegressor(candidate, BOUNDS, "family", "family")
    if not intervals:
        estimate = regressor.fit(X[train], truth[train]).predict(X[test])
        return np.column_stack([estimate, np.full((len(estimate), 2), np.nan)])
    families = table.loc[train, "family"].to_numpy(dtype=str)
    conformal = Intervals.fit(regressor, X[train], truth[train], np.ones(train.sum()), families)
    estimate, lower, upper = conformal.predict(X[test])
    at = LEVELS.index(0.9)
    return np.column_stack([estimate, lower[:, at], upper[:, at]])


def _scores(name: str, found: Array, truth: Array) -> dict[str, float]:
    inside = ((found[:, 1] <= truth) & (truth <= found[:, 2])).astype(float)
    inside[np.isnan(found[:, 1])] = np.nan
    return {
        f"{name}: Spearman": _spearman(found[:, 0], truth),
        f"{name}: RMSE": float(np.sqrt(np.mean((found[:, 0] - truth) ** 2))),
        f"{name}: 90 % coverage": float(inside.mean()),
        f"{name}: width": float(np.mean(found[:, 2] - found[:, 1])),
    }


def _spearman(a: Array, b: Array) -> float:
    return float(pd.Series(a).corr(pd.Series(b), method="spearman"))


def _ablation(left_out: dict[str, Array], truth: Array, draws: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for name, base in (
        ("behaviour + information", "behaviour"),
        ("behaviour + information, no length", "behaviour, no length"),
        ("behaviour + words + information", "behaviour + words"),
        ("behaviour + words", "behaviour"),
    ):
        more, less = left_out[name][:, 0], left_out[base][:, 0]
        drawn = rng.integers(0, len(truth), (draws, len(truth)))
        gains = np.array([_spearman(more[at], truth[at]) - _spearman(less[at], truth[at]) for at in drawn])
        squares = (less - truth) ** 2 - (more - truth) ** 2
        falls = squares[drawn].mean(axis=1)
        rows.append(
            {
                "features": name,
                "against": base,
                "gain in Spearman": _spearman(more, truth) - _spearman(less, truth),
                "90 % interval": f"{np.quantile(gains, 0.05):+.3f} to {np.quantile(gains, 0.95):+.3f}",
                "fall of MSE": float(squares.mean()),
                "90 % interval of it": f"{np.quantile(falls, 0.05):+.1f} to {np.quantile(falls, 0.95):+.1f}",
            }
        )
    return pd.DataFrame(rows)
