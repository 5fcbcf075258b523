"""What the study measures, kept in a folder piece by piece, so that a run that was stopped goes on.

A model of over ten million parameters is read on fewer windows: two of 135 and 270 million take half an hour of one
core for all that is asked of them.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from paper_rules import LARGE, Study

from estimators import estimate, estimate_many, shuffled_pairs
from estimators.contracts.conventions import TWIN
from estimators.information_emergence import macro_less_micro
from extraction import LanguageModel, Projection, Windows, extract, load_model, random_twin, windows
from extraction.tables import write_table
from proxy.measurement.prefix import with_prefix
from proxy.measurement.table import Propagation, measure

TEXT, ANIMAL, COUNTRY = "python-docs", "animal", "country"
SHOTS = 12
SEEDS = 3  # of the paper's MINE
TRAINED = {  # name in the tables: method and its options; small budgets, no second fits on halves
    "infonce": ("infonce", {"steps": 100, "folds": 2, "halves": False}),
    "mine": ("mine", {"steps": 100, "folds": 2, "halves": False}),
}


def measured(arguments: argparse.Namespace) -> Study:
    """Measure all that the claims need, leaving out what RESULTS holds already."""
    tables: dict[str, list[pd.DataFrame]] = defaultdict(list)
    places = _places(arguments.models)
    for number, name in enumerate(arguments.models):
        trained = with_prefix(load_model(name, device="cpu"))
        one = _One(trained, arguments, f"{trained.name}, model {number + 1} of {len(arguments.models)}")
        for what, found in one.tables(largest=places[name].largest, end=places[name].end).items():
            tables[what] += found
    return Study(**{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts})


@dataclass(frozen=True)
class _Place:
    """Where a model stands in its family: whether it is the largest, and whether it is the largest or the smallest."""

    largest: bool
    end: bool


def _places(models: Sequence[str]) -> Mapping[str, _Place]:
    """Families go by what stands before the last dash; names come by size."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in models:
        families[name.rsplit("-", 1)[0]].append(name)
    return {
        name: _Place(largest=name == names[-1], end=name in (names[0], names[-1]))
        for names in families.values()
        for name in names
    }


class _One:
    """The measurements of one model, of its random twin and on shuffled windows."""

    def __init__(self, trained: LanguageModel, arguments: argparse.Namespace, title: str) -> None:
        self.trained, self.arguments, self.title = trained, arguments, title
        self.twin = random_twin(trained, seed=arguments.seed)
        self.kept = Kept(arguments.results, trained)
        self.large = large = trained.parameters > LARGE
        self.count = arguments.large_windows if large else arguments.windows
        self.next_count = arguments.large_windows if large else arguments.next_windows
        half = arguments.large_windows // 2
        self.shots = (half,) if large else (arguments.windows // 4, arguments.windows, 2 * arguments.windows)
        self.list_count = half if large else arguments.windows

    def tables(self, *, largest: bool, end: bool) -> dict[str, list[pd.DataFrame]]:
        """Every table the claims need of this model, by its name in the study."""
        found: dict[str, list[pd.DataFrame]] = defaultdict(list)
        for model, shuffled in ((self.trained, False), (self.twin, False), (self.trained, True)):
            if self.next_count == self.count:  # both observers read one pass
                both = self.emergence(model, TEXT, "predictive,sample-propagation", self.count, shuffled=shuffled)
                predictive = both["estimator"] == "predictive"
                found["next"].append(both[predictive])
                found["main"].append(both[~predictive])
            else:
                found["next"].append(self.emergence(model, TEXT, "predictive", self.next_count, shuffled=shuffled))
                found["main"].append(self.emergence(model, TEXT, "sample-propagation", self.count, shuffled=shuffled))
            found["main"].append(
                self.emergence(model, ANIMAL, "sample-propagation", self.list_count, shuffled=shuffled)
            )
            for count in self.shots if largest else ():
                found["shots"].append(
                    self.emergence(model, COUNTRY, "sample-propagation", count, shuffled=shuffled, tokens=2 * SHOTS)
                )
            if largest and not self.large:  # at every position, the head of a large model would take half an hour
                found["next_shots"].append(
                    self.emergence(model, COUNTRY, "predictive", self.list_count, shuffled=shuffled, tokens=2 * SHOTS)
                )
        asked = self.arguments
        models = (self.trained, self.twin)[: 1 + end]
        found["trained"].append(
            self.kept(
                "trained", lambda: by_trained_estimators(models, asked), self.on_notice, asked.samples, asked.seed, end
            )
        )
        if end:
            settings = (asked.samples, asked.epochs, asked.seed, SEEDS)
            found["preset"].append(
                self.kept("preset", lambda: by_paper_preset(models, asked), self.on_notice, *settings)
            )
        return found

    def emergence(
        self,
        model: LanguageModel,
        corpus: str,
        estimator: str,
        count: int,
        *,
        shuffled: bool,
        tokens: int | None = None,
    ) -> pd.DataFrame:
        """Measure the model, or its twin, on one corpus, perhaps with its tokens shuffled over the windows."""
        seed, queries = self.arguments.seed, self.arguments.queries
        options = {"full": True} if tokens and estimator == "predictive" else None  # every shot is asked for
        chosen = windows(corpus, model.tokenizer, count=count, tokens=tokens, seed=seed, prefix=model.prefix)
        if shuffled:
            chosen = chosen.shuffled(seed)
        return self.kept(
            f"{chosen.corpus}-{count}" + ("-random" if model.name.endswith(TWIN) else "") + f"-{estimator}",
            lambda: measure(
                model, chosen, estimator=estimator, propagation=Propagation(queries=queries), seed=seed, options=options
            ),
            self.on_notice,
            chosen.hash,
            model.prefix,
            queries,
            seed,
        )

    def on_notice(self, what: str) -> None:
        """Say on stderr what is being measured."""
        print(f"{self.title}: {what}", file=sys.stderr, flush=True)


class Kept:
    """Tables of one model in a folder, each under a key of all that determines it."""

    def __init__(self, folder: Path, model: LanguageModel) -> None:
        self.folder, self.name = folder, model.name
        self.weights = hashlib.sha256()
        for name, weight in sorted(model.model.state_dict().items()):
            self.weights.update(name.encode() + weight.numpy().tobytes())

    def __call__(
        self, what: str, make: Callable[[], pd.DataFrame], on_notice: Callable[[str], None], *settings: object
    ) -> pd.DataFrame:
        """Return the table kept under these settings, or say that it is made, make it and keep it."""
        digest = self.weights.copy()
        digest.update(repr((what, self.name, settings)).encode())
        path = self.folder / f"{self.name}-{what}-{digest.hexdigest()[:16]}.parquet".replace(", ", "-")
        if path.exists():
            return pd.read_parquet(path)
        on_notice(what)
        table = make()
        write_table(table, path)
        return table


@lru_cache(maxsize=2)
def pairs(model: LanguageModel, count: int, seed: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Windows]:
    """States entering and leaving the last block: the macro pair at the last position, then the micro pairs."""
    text = windows(TEXT, model.tokenizer, count=count, seed=seed, prefix=model.prefix)
    repeated = torch.from_numpy(np.repeat(np.arange(len(text)), text.weights.astype(np.int64)))
    tokens = torch.from_numpy(text.distinct_tokens()[1])[repeated]
    with extract(model, text, projection=Projection(seed=seed), entering=True, likelihoods=False) as states:
        block, last = states.blocks - 1, states.positions
        macro = (states.entering(block, last)[repeated], states.leaving(block, last)[repeated])
        entering, leaving = states.micro_entering(block), states.micro_leaving(block)
        micro = [(entering[column], leaving[column]) for column in tokens.T]
    return [macro, *micro], text


def by_trained_estimators(models: Sequence[LanguageModel], arguments: argparse.Namespace) -> pd.DataFrame:
    """E of the last block on text by trained estimators, for a model, perhaps its twin, and with pairs shuffled.

    The shuffled pairs are a control: the truth of what is estimated of them is 0 bits.
    """
    rows = []
    for model in models:
        problems, text = pairs(model, arguments.samples, arguments.seed)
        x, y = problems[0]
        for label, (method, options) in TRAINED.items():
            macro, *micro = estimate_many(problems, method, seed=arguments.seed, **options)
            mean, value = macro_less_micro(np.array(macro.bits), np.array([one.bits for one in micro]))
            shuffled = shuffled_pairs(x, y, method, seed=arguments.seed, **options)
            rows.append(
                {
                    "model": model.name,
                    "family": model.family,
                    "parameters": model.parameters,
                    "estimator": label,
                    "macro_bits": macro.bits,
                    "macro_ceiling_bits": macro.ceiling_bits,
                    "micro_bits": float(mean),
                    "ie_bits": float(value),
                    "ie_std_error": float(
                        np.sqrt(macro.std_error**2 + sum(one.std_error**2 for one in micro) / len(micro) ** 2)
                    ),
                    "shuffled_bits": shuffled.bits,
                    "flags": ",".join(macro.flags),
                    "samples": int(text.weights.sum()),
                }
            )
    return pd.DataFrame(rows)


def by_paper_preset(models: Sequence[LanguageModel], arguments: argparse.Namespace) -> pd.DataFrame:
    """Macro information of the last block by the paper's own MINE: what it reports (max), last and held out."""
    rows = []
    for model in models:
        problems, _ = pairs(model, arguments.samples, arguments.seed)
        x, y = problems[0]
        for seed in range(arguments.seed, arguments.seed + SEEDS):
            options = {"seed": seed, "preset": "paper", "epochs": arguments.epochs}
            true, shuffled = estimate(x, y, "mine", **options), shuffled_pairs(x, y, "mine", **options)
            for label, one, ceiling in (("true", true, true.ceiling_bits), ("shuffled pairs", shuffled, 0.0)):
                rows.append(
                    {
                        "model": model.name,
                        "pairs": label,
                        "seed": seed,
                        **{name: one.details[name] for name in ("max", "last", "held_out")},
                        "ceiling": ceiling,
                        "epochs": arguments.epochs,
                        "samples": len(x),
                    }
                )
    return pd.DataFrame(rows)
