"""Is text written by language models higher in emergence than text written by people, as arXiv 2405.12617 reports?

    python benchmarks/human_vs_models.py --data DIR [--out DIR] [--readers gpt2-2m gemma-2m] [--models N]
    python benchmarks/human_vs_models.py --data DIR --sampled --estimator predictive --readers gpt2-2m SmolLM2.gguf

`DIR` of `--data` holds AlpacaEval's published answers: outputs.parquet and human.parquet (model, prompt_id, output) and
models.csv (model, access, lc_win_rate). People and each model answer the same prompts; as many windows are taken from
each prompt of both; both are read by the same reader on the same scale. Intervals are 95 % bootstrap intervals over
prompts, paired. Two controls are read beside: a reader with random weights, and answers whose words were shuffled, so
that a difference of theirs is not one of what the reader has learned, or of how words follow each other. With
`--sampled` people are compared with one answer to each prompt, sampled from all models: a large reader has no time for
more. `--estimator predictive` asks what the reader's output tells about the token after a window, calibrated on other
prompts of both sides together. Writes human_vs_models.csv and .png and prints a summary; what was read is kept in OUT,
so that a run that was stopped goes on. It computes in one thread, so that the same command gives the same figures on
any number of cores: about 10 minutes of one core for 130 models and two bundled readers, as long for two of 135 and 270
million parameters with `--sampled`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd
import torch

from estimators import DEFAULT_RESOLUTION
from estimators.folds import FOLDS, assign_folds
from estimators.information_emergence import macro_less_micro
from estimators.predictive import TEMPERATURES, cross_calibrated, gain_bits, token_log_probabilities, unigram
from extraction import LanguageModel, load_model, random_twin
from proxy.cli.console import progress, show
from proxy.features.readers import TOKENS, Reader, answer_windows
from proxy.measurement.prefix import with_prefix

CASES = ("trained", "random weights", "shuffled words")
PER_PROMPT = 4  # windows
RESAMPLES = 2000
FEWEST_PROMPTS = 100  # models that share fewer are left out: their answers are mostly too short to read
DRAWN = "one of the models for each prompt"
ROWS = 64  # sequences at once


def main() -> None:
    """Read the answers through every reader, compare, write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/human-vs-models"))
    parser.add_argument("--readers", nargs="+", default=["gpt2-2m", "gemma-2m"])
    parser.add_argument("--models", type=int, help="only so many models, evenly from the list by win rate")
    parser.add_argument("--sampled", action="store_true", help="one answer to each prompt, sampled from all models")
    parser.add_argument("--estimator", choices=["sample-propagation", "predictive"], default="sample-propagation")
    parser.add_argument("--resolution", type=float, default=DEFAULT_RESOLUTION)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums of floats depend on how they are shared out
    human = pd.read_parquet(given.data / "human.parquet").set_index("prompt_id")["output"]
    outputs = pd.read_parquet(given.data / "outputs.parquet")
    outputs = outputs[outputs["prompt_id"].isin(human.index)]
    about = pd.read_csv(given.data / "models.csv").sort_values(["lc_win_rate", "model"], ignore_index=True)
    if given.models:
        about = about.iloc[np.unique(np.linspace(0, len(about) - 1, given.models).astype(int))]
    if given.sampled:
        outputs = outputs[outputs["model"].isin(about["model"])].sort_values(["prompt_id", "model"])
        outputs = outputs.groupby("prompt_id").sample(1, random_state=given.seed).assign(model=DRAWN)
        about = pd.DataFrame({"model": [DRAWN], "access": "any", "lc_win_rate": np.nan})
    answers = {name: group.set_index("prompt_id")["output"] for name, group in outputs.groupby("model")}
    parts = []
    for name in given.readers:
        loaded = with_prefix(load_model(name, device="cpu"))
        for case in CASES:
            kept = given.out / f"{loaded.name}-{case.replace(' ', '-')}-{digest(given, loaded, about)}.parquet"
            if not kept.exists():
                model = random_twin(loaded, seed=given.seed) if case == CASES[1] else loaded
                read(model, case, human, answers, about, given).to_parquet(kept)
            parts.append(pd.read_parquet(kept))
    table = pd.concat(parts, ignore_index=True)
    table.to_csv(given.out / "human_vs_models.csv", index=False)
    if not given.sampled:
        figure(table, given.out / "human_vs_models.png")
    how = given.estimator + (f" at resolution {given.resolution:g}" if given.estimator != "predictive" else "")
    show(summary(table), f"Emergence by {how}, models less people, same prompts and windows")


def digest(given: argparse.Namespace, reader: LanguageModel, about: pd.DataFrame) -> str:
    """Of all that a table of one reader and case follows from, beside the answers."""
    settings = (given.estimator, given.resolution, given.seed, PER_PROMPT, reader.revision, reader.prefix)
    return hashlib.sha256(repr((settings, about["model"].tolist())).encode()).hexdigest()[:12]


def read(
    reader: LanguageModel,
    case: str,
    human: pd.Series,
    answers: dict[str, pd.Series],
    about: pd.DataFrame,
    given: argparse.Namespace,
) -> pd.DataFrame:
    """A row per model: its emergence and that of people, read by one reader in one case."""
    if given.estimator == "predictive":
        by_prompt: ByPrompt = NextTokens(reader, given.seed)
    else:
        by_prompt = Propagated(Reader(reader, given.seed), given.resolution)
    comparison = Comparison(reader, by_prompt, human, given.seed, shuffled=case == CASES[2])
    rows = []
    with progress(f"{reader.name} reads {len(about)} models, {case}") as advance:
        for place, model in enumerate(about["model"]):
            rows.append({"reader": reader.name, "case": case, "model": model, **comparison.with_model(answers[model])})
            advance(place + 1, len(about))
    found = pd.DataFrame(rows).assign(reader=reader.name.partition("~")[0])
    return found[found["prompts"] >= FEWEST_PROMPTS].merge(about[["model", "access", "lc_win_rate"]], on="model")


class ByPrompt(Protocol):
    """An observer of texts, which reads so many tokens of a window."""

    tokens: ClassVar[int]

    def __call__(self, people: Sequence[str], models: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(prompts, 3) emergence, macro and micro information in bits of each prompt's windows, of both sides."""


@dataclass
class Propagated:
    """Sample propagation through a reader on its fixed scale; people's numbers are kept."""

    tokens: ClassVar[int] = TOKENS
    reader: Reader
    resolution: float
    known: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    def __call__(self, people: Sequence[str], models: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Read both sides."""
        key = tuple(people)
        if key not in self.known:
            self.known[key] = self.side(people)
        return self.known[key], self.side(models)

    def side(self, texts: Sequence[str]) -> np.ndarray:
        """(prompts, 3) of one side."""
        windows = answer_windows(
            self.reader.model, [[text] for text in texts], count=PER_PROMPT * len(texts), seed=self.reader.seed
        )
        (one,) = self.reader.emergence(windows, [self.resolution])
        macro = one.pointwise_macro_bits.numpy()  # (N,)
        return means(macro, one.value.pointwise_bits.numpy(), windows.documents, windows.weights, len(texts))


@dataclass
class NextTokens:
    """What a reader's output tells of the next token, calibrated and held against the unigram on other prompts.

    Temperature, share and unigram distribution are fitted on both sides together, so that they favour neither.
    """

    tokens: ClassVar[int] = TOKENS + 1  # with the one that follows
    model: LanguageModel
    seed: int

    def __call__(self, people: Sequence[str], models: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Read both sides."""
        how = {"count": PER_PROMPT * len(people), "seed": self.seed, "tokens": self.tokens}
        sides = [answer_windows(self.model, [[text] for text in texts], **how) for texts in (people, models)]
        tokens = np.concatenate([side.tokens for side in sides])  # (n, T + 1)
        weights = np.concatenate([side.weights for side in sides])
        prompts = np.concatenate([side.documents for side in sides])
        fold, _ = assign_folds(len(tokens), prompts, self.seed)
        log_u = torch.stack(
            [unigram(tokens[fold != k, 1:], weights[fold != k], self.model.vocabulary) for k in range(FOLDS)]
        )  # (K, V)
        macro = self.gain(tokens[:, :-1], tokens[:, -1], log_u, weights, fold)  # (n,)
        each = np.repeat(np.arange(len(tokens)), TOKENS)
        alone = self.gain(tokens[:, :-1].reshape(-1, 1), tokens[:, 1:].ravel(), log_u, weights[each], fold[each])
        _, ie = macro_less_micro(macro, alone.reshape(-1, TOKENS))  # (n,)
        edge = len(sides[0].tokens)
        parts = (slice(edge), slice(edge, None))
        first, second = (means(macro[part], ie[part], prompts[part], weights[part], len(people)) for part in parts)
        return first, second

    def gain(
        self, contexts: np.ndarray, following: np.ndarray, log_u: torch.Tensor, weights: np.ndarray, fold: np.ndarray
    ) -> np.ndarray:
        """(n,) bits that what follows costs less after its context than by the unigram distribution."""
        distinct, row = np.unique(contexts, axis=0, return_inverse=True)
        token = torch.from_numpy(following)
        log_p = torch.empty(len(TEMPERATURES), len(token))
        front = torch.tensor(self.model.prefix, dtype=torch.int64)
        row = row.ravel()
        for start in range(0, len(distinct), ROWS):
            part = torch.from_numpy(distinct[start : start + ROWS])
            mine = np.flatnonzero((row >= start) & (row < start + ROWS))
            with torch.inference_mode():
                ids = torch.cat([front.expand(len(part), -1), part], dim=1)
                logits = self.model.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
                log_p[:, mine] = token_log_probabilities(
                    logits, torch.from_numpy(row[mine] - start), token[mine], TEMPERATURES
                )
        of_fold = torch.from_numpy(fold)
        known = log_u[of_fold, token]
        gains = torch.empty(len(token), dtype=torch.float64)
        for k, chosen in enumerate(cross_calibrated(log_p, known, torch.from_numpy(weights), of_fold, FOLDS)):
            mine = of_fold == k
            at = TEMPERATURES.index(chosen.temperature)
            gains[mine] = gain_bits(log_p[at, mine].double(), known[mine].double(), chosen.share)
        return gains.numpy()


def means(macro: np.ndarray, ie: np.ndarray, prompts: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(prompts, 3) means of emergence, macro and micro over the windows of each prompt.

    A window that two prompts share is counted with the first of them; few are.
    """
    total = np.maximum(np.bincount(prompts, weights, minlength=count), 1)
    mean_macro, mean_ie = (np.bincount(prompts, weights * each, minlength=count) / total for each in (macro, ie))
    return np.stack([mean_ie, mean_macro, mean_macro - mean_ie], axis=1)


class Comparison:
    """People and models on the same prompts through one reader, perhaps with the words of each answer shuffled."""

    def __init__(
        self, reader: LanguageModel, by_prompt: ByPrompt, human: pd.Series, seed: int, *, shuffled: bool = False
    ) -> None:
        self.reader, self.by_prompt, self.seed, self.shuffled = reader, by_prompt, seed, shuffled
        self.human = human[[self.long_enough(text) for text in human]]

    def long_enough(self, text: str) -> bool:
        """Whether a prompt's windows can be taken from the text, each from another place."""
        ids = self.reader.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return len(ids) >= self.by_prompt.tokens + PER_PROMPT - 1

    def with_model(self, answers: pd.Series) -> dict[str, float]:
        """Emergence of both, and their difference with its interval, on the prompts that both answered at length."""
        shared = [
            prompt for prompt in self.human.index if prompt in answers.index and self.long_enough(answers[prompt])
        ]
        people, model = self.by_prompt(self.texts(self.human[shared]), self.texts(answers[shared]))
        rng = np.random.default_rng(self.seed)
        sampled = rng.integers(len(shared), size=(RESAMPLES, len(shared)))
        ie = [values[sampled, 0].mean(axis=1) for values in (people, model)]
        low, high = np.quantile(ie[1] - ie[0], [0.025, 0.975])
        found = {"prompts": len(shared), "windows": PER_PROMPT * len(shared)}
        for name, values, resampled in (("human", people, ie[0]), ("model", model, ie[1])):
            bounds = np.quantile(resampled, [0.025, 0.975])
            found |= {f"{name}_ie": values[:, 0].mean(), f"{name}_ie_low": bounds[0], f"{name}_ie_high": bounds[1]}
            found |= {f"{name}_macro": values[:, 1].mean(), f"{name}_micro": values[:, 2].mean()}
        return {**found, "difference": found["model_ie"] - found["human_ie"], "low": low, "high": high}

    def texts(self, texts: pd.Series) -> list[str]:
        """The texts, their words perhaps shuffled."""
        if not self.shuffled:
            return texts.tolist()
        rng = np.random.default_rng([self.seed, 5])
        return [" ".join(rng.permutation(text.split())) for text in texts]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per reader and case, and per access where the models differ in it."""
    rows = []
    trained = table[(table["case"] == CASES[0]) & (table["access"] != "any")]
    for (reader, case, access), part in [
        *(((*key, "all"), group) for key, group in table.groupby(["reader", "case"], sort=False)),
        *(((reader, CASES[0], access), group) for (reader, access), group in trained.groupby(["reader", "access"])),
    ]:
        rows.append(
            {
                "reader": reader,
                "case": case,
                "models": f"{len(part)} {access}",
                "people, bits": part["human_ie"].mean(),
                "models, bits": part["model_ie"].mean(),
                "difference": part["difference"].mean(),
                "95 %": f"{part['low'].mean():+.3f} to {part['high'].mean():+.3f}",
                "higher": int((part["difference"] > 0).sum()),
                "surely higher": int((part["low"] > 0).sum()),
                "surely lower": int((part["high"] < 0).sum()),
                "Spearman with win rate": part["model_ie"].corr(part["lc_win_rate"], method="spearman"),
            }
        )
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, path: Path) -> None:
    """Models sorted by their difference from people, with intervals, one panel per reader."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    readers = table["reader"].unique()
    _, panels = plt.subplots(1, len(readers), figsize=(5.5 * len(readers), 4.2), squeeze=False, layout="constrained")
    for panel, reader in zip(panels[0], readers, strict=True):
        part = table[(table["reader"] == reader) & (table["case"] == CASES[0])]
        part = part.sort_values("difference", ignore_index=True)
        for access, colour in (("open", "#4477aa"), ("api", "#cc6677")):
            some = part[(part["access"] == "open") == (access == "open")]
            label = {"open": "open models", "api": "open only through an API"}[access]
            panel.errorbar(
                some.index,
                some["difference"],
                yerr=[some["difference"] - some["low"], some["high"] - some["difference"]],
                fmt="o",
                markersize=3,
                linewidth=0.8,
                color=colour,
                label=label,
            )
        panel.axhline(0, color="black", linewidth=0.8)
        panel.annotate("people", (0, 0), xytext=(2, 3), textcoords="offset points", fontsize=8)
        panel.set(xlabel="models, sorted", ylabel="emergence less that of people (bits)", title=f"read by {reader}")
        panel.legend(frameon=False, fontsize=8, loc="lower right")
    plt.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
