"""Win rate of models from their answers alone (AlpacaEval's published answers). Part of public_proxies.py.

Every number is what a user's commands give with their defaults: `features --targets` (families as proposed from names),
`fit` and `estimate`, by the functions those call. Three questions: families left out (what `fit` prints), API-only
models from open ones, and models of AlpacaEval that are not in the folder at all, given a checkout of it. What merely
wraps an API model (corrects or mixes its answers) is neither open nor API-only: it takes no part in the second.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from public_cache import table_path

from extraction import load_model
from extraction.answers.responses import read_responses
from proxy import Proxy, compute_features, fit_proxy, load_proxy
from proxy.features.families import proposed_family
from proxy.features.kept import Kept
from proxy.features.scores import join_scores

TARGET = "lc_win_rate"
PROMPTS = 300  # of 805, those whose hash comes first: as many as a user may pay for
GAMED = ("NullModel", "gpt4_gamed")  # answers written against the annotator, not to the question
WRAPPERS = r"^aligner-2b_(?:gpt|claude)|^openpipe-moa-gpt"  # open weights around an API model's answers
CLOSED = (  # of the models that are not in the folder, those behind an API
    r"^claude|^cohere|^gemini|^gpt35|^jina|^mistral-(?:large|medium)|^text_davinci|^yi-large|^bedrock|^Nanbeige-Plus"
)
BOARD = "src/alpaca_eval/leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
LENGTH = ("behaviour.log_characters", "behaviour.log_words", "behaviour.length_spread")
SINGLE = "best single feature"
DEFAULT = "all kinds"


def evaluate(data: Path, readers: Sequence[str], cache: Path, checkout: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return tables by title.

    Args:
        data: folder with outputs.parquet, prompts.parquet and models.csv.
        readers: models that read the answers, besides behaviour and words.
        cache: where features are kept.
        checkout: of AlpacaEval, for the models that are not in the folder.
    """
    prompts = pd.read_parquet(data / "prompts.parquet").rename(columns={"instruction": "prompt"})
    asked = sorted(prompts["prompt"], key=lambda prompt: hashlib.sha256(prompt.encode()).hexdigest())[:PROMPTS]
    answers = pd.read_parquet(data / "outputs.parquet").rename(columns={"output": "text"})
    answers = answers.merge(prompts[["prompt_id", "prompt"]], on="prompt_id")
    scores = pd.read_csv(data / "models.csv")
    scores = scores[~scores["model"].isin(GAMED)][["model", "access", TARGET]]
    longest = int(answers["text"].str.len().max())  # the folder holds so many characters of each answer
    table = join_scores(_features(answers[answers["prompt"].isin(asked)], scores, readers, cache), scores)
    table = table[table[TARGET].notna()].reset_index(drop=True)
    api = table["access"] == "api"
    open_ = ~api & ~table["model"].str.contains(WRAPPERS, regex=True)
    rows, unseen = [], pd.DataFrame()
    for name, columns in _sets(table).items():
        candidate = "best_feature" if name == SINGLE else "auto"
        known = table[["model", "family", TARGET, "provenance", *columns]]
        proxy = _fitted(known, candidate, cache)
        closed = _fitted(known[open_], candidate, cache).predict(known[api])
        rows.append(
            {
                "features": name,
                "count": len(columns),
                "kinds in use": " + ".join(proxy.intervals.regressor.kinds_),
                "candidate": proxy.chosen,
                **_compared("families", proxy.validation),
                **_compared("API", closed.assign(truth=known.loc[api, TARGET].to_numpy())),
            }
        )
        sys.stderr.write(f"{name}: {rows[-1]['families: Spearman']:.3f} {rows[-1]['API: Spearman']:.3f}\n")
        if name == DEFAULT and checkout is not None:
            unseen = _unseen(checkout, {*answers["model"]}, asked, longest, readers, cache, proxy)
    families = table.groupby("family")["model"].agg(["count", ", ".join]).reset_index()
    tables = {
        "Data": pd.DataFrame(
            [{"models": len(table), "families": len(families), "API-only": int(api.sum()), "prompts": len(asked)}]
        ),
        "Families left out, and API-only models from open ones; coverage and width of 90 % intervals": pd.DataFrame(
            rows
        ),
        "Families as proposed from names": families.rename(columns={"join": "models"}),
    }
    if len(unseen):
        tables["Models that are not in the folder, by the default proxy of all that are"] = unseen
    return tables


def _fitted(references: pd.DataFrame, candidate: str, cache: Path) -> Proxy:
    """The proxy of these references, fitted once: a set of features takes minutes."""
    version = importlib.metadata.version("emergence-proxy")
    rows = hashlib.sha256(pd.util.hash_pandas_object(references).to_numpy().tobytes()).hexdigest()
    folder = table_path(cache, "alpaca", version, candidate, [*references.columns], rows).with_suffix(".proxy")
    if not folder.is_dir():
        fit_proxy(references, target=TARGET, candidate=candidate).save(folder)
    return load_proxy(folder)


def _sets(table: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of eleven sets of features, or of those that need no reader."""
    kinds = {
        kind: [name for name in table.columns if name.startswith(f"{kind}.") and table[name].astype(float).std() > 0]
        for kind in ("behaviour", "words", "small")
    }
    plain = [name for name in kinds["behaviour"] if name not in LENGTH]
    sets = {
        "answer length": ["behaviour.log_characters"],
        "best single feature": kinds["behaviour"] + kinds["small"],
        "behaviour": kinds["behaviour"],
        "behaviour, no length": plain,
        "words": kinds["words"],
        "behaviour + words": kinds["behaviour"] + kinds["words"],
        "behaviour + words, no length": plain + kinds["words"],
        "information": kinds["small"],
        "behaviour + information": kinds["behaviour"] + kinds["small"],
        "words + information": kinds["words"] + kinds["small"],
        DEFAULT: kinds["behaviour"] + kinds["words"] + kinds["small"],
    }
    return {name: columns for name, columns in sets.items() if kinds["small"] or "information" not in name}


def _features(answers: pd.DataFrame, scores: pd.DataFrame, readers: Sequence[str], cache: Path) -> pd.DataFrame:
    answers = answers[answers["model"].isin(scores["model"])].assign(prompt_id=answers["prompt_id"].astype(str))
    return compute_features(answers, [load_model(name) for name in readers], kept=_kept(cache))


def _kept(cache: Path) -> Kept:
    return Kept(table_path(cache, "alpaca", PROMPTS).with_suffix(".jsonl"))


def _unseen(
    checkout: Path,
    seen: set[str],
    asked: Sequence[str],
    longest: int,
    readers: Sequence[str],
    cache: Path,
    proxy: Proxy,
) -> pd.DataFrame:
    """Estimate every model of a checkout of AlpacaEval that has a score and is not in the folder."""
    board = pd.read_csv(checkout / BOARD).rename(columns={"Unnamed: 0": "model"}).set_index("model")
    truth = board["length_controlled_winrate"].dropna()
    parts = []
    for file in sorted(checkout.glob("results/*/model_outputs.json")):
        model = file.parent.name
        if model in truth.index and model not in seen:
            parts.append(read_responses(file).assign(model=model))
    answers = pd.concat(parts, ignore_index=True)
    answers = answers[answers["prompt"].isin(asked)]
    loaded = [load_model(name) for name in readers]
    features = compute_features(answers, loaded, characters=longest, kept=_kept(cache))
    found = proxy.predict(features)
    found["truth"] = truth.reindex(found["model"]).to_numpy()
    closed = found["model"].str.contains(CLOSED, regex=True)
    new = ~found["model"].map(proposed_family).isin({*proxy.references["family"]})
    groups = {"all": closed | ~closed, "API-only": closed, "open": ~closed, "of families that the folder lacks": new}
    return pd.DataFrame(
        [
            {"models": name, "number": int(rows.sum()), **_compared("", found[rows.to_numpy(dtype=bool)])}
            for name, rows in groups.items()
        ]
    )


def _compared(name: str, found: pd.DataFrame) -> dict[str, float]:
    """Estimates with their intervals against the truth, where they are given."""
    prefix = f"{name}: " if name else ""
    given = found[found["estimate"].notna()]
    estimate, truth = (given[column].to_numpy(dtype=float) for column in ("estimate", "truth"))
    lower, upper = (given[column].to_numpy(dtype=float) for column in ("lower", "upper"))
    known = ~np.isnan(lower)
    held = (lower <= truth) & (truth <= upper)
    return {
        f"{prefix}Spearman": float(pd.Series(estimate).corr(pd.Series(truth), method="spearman")),
        f"{prefix}RMSE": float(np.sqrt(np.mean((estimate - truth) ** 2))),
        f"{prefix}bias": float(np.mean(estimate - truth)),
        f"{prefix}coverage": float(held[known].mean()) if known.any() else float("nan"),
        f"{prefix}width": float((upper - lower)[known].mean()) if known.any() else float("nan"),
        f"{prefix}withheld": 1 - float(known.sum()) / len(found),
    }
