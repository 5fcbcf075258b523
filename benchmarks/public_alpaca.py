"""Win rate of models from their answers alone (AlpacaEval's published answers). Part of public_proxies.py.

Nothing but the text of the answers is used: no names, no parameters, no column made from win rates. Two questions:
whole families left out, where a family is what goes back to one base model, and all API-only models left out while
only open ones train. What merely wraps an API model (corrects or mixes its answers) is neither open nor API-only: it
takes no part in the second question.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from public_cache import table_path
from scipy.stats import rankdata
from sklearn.base import clone

from extraction import load_model
from proxy.features.behaviour import behaviour_features
from proxy.features.readers import RESOLUTIONS, Reader, read_features
from proxy.regression.domain import Domain, estimate_models
from proxy.regression.intervals import LEVELS, Intervals
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
BOUNDS = (0.0, 100.0)
GAMED = ("NullModel", "gpt4_gamed")  # answers written against the judge, not to the question
EVERY, CHARACTERS = 4, 200  # the reader reads every fourth answer, its first characters
# Words whose share of answers is a feature: the commonest in all answers, no target is looked at. How many of them is
# chosen by leaving families out of the models that train.
COUNTS = (100, 200, 400, 800)
THIRD, OF_ANY, OF_LONG = 3, 600, 300  # words are counted in every third answer, in so many first characters
# Sets whose intervals are made for left-out families: eleven nested choices for each family, so the slow part.
INTERVALS = ("behaviour", "behaviour, no length", "behaviour + words", "behaviour + words, no length")
LENGTH = ("behaviour.log_characters", "behaviour.log_words", "behaviour.length_spread")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\*\*|#+|\n\n|[:;!?()\"-]|\d+\.")
# The base model a name goes back to: what is left out together. The first that matches.
FAMILIES = {
    "gpt-3.5": r"^gpt-3\.5|text_davinci",
    "gpt-4": r"^gpt-?4|gpt-4-turbo",
    "claude": r"claude-3",
    "blendaxai": r"^blendaxai",
    "gemma-2": r"gemma-2",
    "qwen": r"qwen|causallm",
    "mixtures of agents": r"moa|^TOA|Samba",
    "llama-3": r"llama-?3(?!\d)|ghost-8b|GPO",
    "yi": r"yi-1\.5",
    "pythia": r"pythia",
    "starcoder": r"opencoder",
    "mixtral": r"mixtral",
    "mistral": r"mistral|zephyr|starling|conifer|deita|merlinite|ghost-7b|evo-|LMCocktail",
    "llama-2": r"llama-?2|v1\.5|v2\.0|recycled|cut-13b|minichat|claude2-alpaca",
    "llama": r"vicuna|alpaca|airoboros|baize|humpback|nous|oasst|ultralm",
}
WRAPPERS = r"^aligner-2b_(?:gpt|claude)|^openpipe-moa-gpt"  # open weights around an API model's answers


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
    if not information:
        sets = {name: columns for name, columns in sets.items() if "information" not in name and "NLL" not in name}
    truth = table["lc_win_rate"].to_numpy(dtype=float)
    api = (table["access"] == "api").to_numpy()
    open_ = ~api & ~table["model"].str.contains(WRAPPERS, regex=True).to_numpy()
    families = table["family"].to_numpy(dtype=str)
    rng = np.random.default_rng(seed)
    by_family = [_drawn_families(families, rng) for _ in range(draws)]
    by_model = list(rng.integers(0, api.sum(), (draws, api.sum())))
    scores, left_out = [], {}
    for name, columns in sets.items():
        single = name in ("answer length", "reader's NLL", "best single feature")
        chosen = "best_feature" if single else "auto"
        found, closed = np.full((len(table), 4), np.nan), np.full((len(table), 4), np.nan)
        for family in np.unique(families):
            left = families == family
            found[left] = _estimates(table, columns, truth, ~left, left, chosen, single or name in INTERVALS)
        closed[api] = _estimates(table, columns, truth, open_, api, chosen, True)
        left_out[name] = found
        scores.append(
            {
                "features": name,
                "count": len(columns),
                **_scores("families", found, truth, by_family),
                **_scores("API", closed[api], truth[api], by_model),
            }
        )
        sys.stderr.write(f"{name}: {scores[-1]['families: Spearman']:.3f} {scores[-1]['API: Spearman']:.3f}\n")
    counted = pd.DataFrame(
        [
            {
                "models": len(table),
                "families": len(np.unique(families)),
                "API-only": int(api.sum()),
                "wrappers of API models": int((~api & ~open_).sum()),
                "target": "length-controlled win rate, %",
            }
        ]
    )
    listed = table.groupby("family")["model"].agg(", ".join).reset_index().rename(columns={"model": "models"})
    return {
        "Data": counted,
        "Left-out families, and API-only models from open ones (with 90 % bootstrap intervals over families, and "
        "over the API-only models; coverage is that of the product's 90 % intervals, those withheld beside it)": (
            pd.DataFrame(scores)
        ),
        "What features add on left-out families (paired bootstrap over families)": _ablation(
            left_out, truth, by_family
        ),
        "Families": listed,
    }


def _family(model: str) -> str:
    return next((name for name, pattern in FAMILIES.items() if re.search(pattern, model, re.IGNORECASE)), model)


def _features(data: Path, readers: list[str], cache: Path) -> pd.DataFrame:
    """Features of every model, from the cache where they are there."""
    parts = []
    settings = {"behaviour": (), "words": (COUNTS[-1], THIRD, OF_ANY), "words_of_long": (COUNTS[-1], THIRD, OF_LONG)}
    for source in ("behaviour", "words", "words_of_long", *readers):
        saved = table_path(cache, source, *settings.get(source, (EVERY, CHARACTERS, RESOLUTIONS)))
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
        sys.stderr.write(f"{source}: read {model}\n")
    return pd.DataFrame(rows)


def _words(data: Path, source: str) -> pd.DataFrame:
    """Log odds that a common word or mark is among an answer's first 600 characters, for every third prompt.

    Longer answers hold more words; `words_of_long` looks at the first 300 characters of answers that have as many.
    """
    answers = pd.read_parquet(data / "outputs.parquet")
    answers = answers[answers["prompt_id"].isin(sorted(answers["prompt_id"].unique())[::THIRD])]
    characters = OF_ANY
    if source == "words_of_long":
        characters = OF_LONG
        answers = answers[answers["output"].str.len() >= characters]
    counts: dict[str, Counter[str]] = {}
    for model, own in answers.groupby("model")["output"]:
        counts[str(model)] = Counter(word for text in own for word in set(WORD.findall(text[:characters].lower())))
    asked = answers.groupby("model").size()
    share: Counter[str] = Counter()
    for model, count in counts.items():
        for word in sorted(count):
            share[word] += count[word] / asked[model]  # type: ignore[assignment]
    common = sorted(share, key=lambda word: (-share[word], word))[: COUNTS[-1]]
    rows = [
        {
            "model": model,
            **{f"{source}.{word}": np.log((count[word] + 0.5) / (asked[model] - count[word] + 0.5)) for word in common},
        }
        for model, count in counts.items()
    ]
    return pd.DataFrame(rows)


def _drawn_families(families: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows of as many families as there are, sampled with replacement."""
    names = np.unique(families)
    return np.concatenate([np.flatnonzero(families == name) for name in rng.choice(names, len(names))])


def _estimates(
    table: pd.DataFrame,
    columns: list[str],
    truth: Array,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    candidate: str,
    with_intervals: bool,
) -> Array:
    """Return estimate, lower, upper and whether inside the domain (m, 4) of models by a fit on others."""
    regressor = ProxyRegressor(candidate, BOUNDS, "family", "family")
    columns = _with_words(regressor, table[train], columns, truth[train])
    X = table[columns].astype(float).assign(family=table["family"])
    if not with_intervals:
        estimate = regressor.fit(X[train], truth[train]).predict(X[test])
        return np.column_stack([estimate, np.full((len(estimate), 3), np.nan)])
    families = table.loc[train, "family"].to_numpy(dtype=str)
    intervals = Intervals.fit(regressor, X[train], truth[train], np.ones(int(train.sum())), families)
    found = estimate_models(intervals, Domain.of(intervals.regressor, X[train]), X[test])
    at = LEVELS.index(0.9)
    return np.column_stack([found.estimate, found.lower[:, at], found.upper[:, at], found.inside])


def _with_words(regressor: ProxyRegressor, train: pd.DataFrame, columns: list[str], truth: Array) -> list[str]:
    """The columns with as many of the commonest words as do best on families left out of the models that train."""
    words = [column for column in columns if column.startswith("words")]
    rest = [column for column in columns if not column.startswith("words")]
    losses = {}
    for count in COUNTS if words else ():
        X = train[rest + words[:count]].astype(float).assign(family=train["family"])
        losses[count] = min(clone(regressor).fit(X, truth).scores_.values())
    return rest + words[: min(losses, key=losses.__getitem__)] if losses else columns


def _scores(name: str, found: Array, truth: Array, draws: list[NDArray[np.int64]]) -> dict[str, object]:
    given = ~np.isnan(found[:, 1])
    inside = (found[:, 1] <= truth) & (truth <= found[:, 2])
    ranks = [_spearman(found[at, 0], truth[at]) for at in draws]
    return {
        f"{name}: Spearman": _spearman(found[:, 0], truth),
        f"{name}: its interval": f"{np.nanquantile(ranks, 0.05):.2f} to {np.nanquantile(ranks, 0.95):.2f}",
        f"{name}: RMSE": float(np.sqrt(np.mean((found[:, 0] - truth) ** 2))),
        f"{name}: coverage": float(inside[given].mean()) if given.any() else float("nan"),
        f"{name}: width": float(np.mean((found[:, 2] - found[:, 1])[given])) if given.any() else float("nan"),
        f"{name}: outside": float(1 - found[:, 3].mean()),
        f"{name}: withheld": float(1 - given.mean()),
    }


def _spearman(a: Array, b: Array) -> float:
    first, second = rankdata(a), rankdata(b)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ablation(left_out: dict[str, Array], truth: Array, draws: list[NDArray[np.int64]]) -> pd.DataFrame:
    rows = []
    for name, base in (
        ("behaviour + information", "behaviour"),
        ("behaviour + information, no length", "behaviour, no length"),
        ("behaviour + words + information", "behaviour + words"),
        ("behaviour + words", "behaviour"),
        ("behaviour + words, no length", "behaviour, no length"),
        ("behaviour", "behaviour, no length"),
    ):
        if name not in left_out:
            continue
        more, less = left_out[name][:, 0], left_out[base][:, 0]
        gains = np.array([_spearman(more[at], truth[at]) - _spearman(less[at], truth[at]) for at in draws])
        squares = (less - truth) ** 2 - (more - truth) ** 2
        falls = np.array([squares[at].mean() for at in draws])
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
