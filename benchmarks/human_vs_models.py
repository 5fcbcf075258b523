"""Is text written by language models higher in emergence than text written by people, as arXiv 2405.12617 reports?

    python benchmarks/human_vs_models.py --data DIR [--out DIR] [--readers gpt2-2m gemma-2m] [--models N]

`DIR` of `--data` holds AlpacaEval's published answers: outputs.parquet and human.parquet (model, prompt_id, output) and
models.csv (model, access, lc_win_rate). People and each model answer the same prompts; as many windows are taken from
each prompt of both; both are read by the same reader on the same scale. Intervals are 95 % bootstrap intervals over
prompts, paired. Two controls are read beside: a reader with random weights, and answers whose words were shuffled, so
that a difference of theirs is not one of what the reader has learned, or of how words follow each other. Writes
human_vs_models.csv and .png and prints a summary. It computes in one thread, so that the same command gives the same
figures on any number of cores: about 10 minutes of one core for 130 models and two readers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from estimators import DEFAULT_RESOLUTION
from extraction import load_model, random_twin
from proxy.cli.console import progress, show
from proxy.features.readers import TOKENS, Reader, answer_windows

CASES = ("trained", "random weights", "shuffled words")
PER_PROMPT = 4  # windows
RESAMPLES = 2000
FEWEST_PROMPTS = 100  # models that share fewer are left out: their answers are mostly too short to read
FEWEST_TOKENS = TOKENS + PER_PROMPT - 1  # so that the windows of a prompt start at different places


def main() -> None:
    """Read the answers through every reader, compare, write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/human-vs-models"))
    parser.add_argument("--readers", nargs="+", default=["gpt2-2m", "gemma-2m"])
    parser.add_argument("--models", type=int, help="only so many models, evenly from the list by win rate")
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
    answers = {name: group.set_index("prompt_id")["output"] for name, group in outputs.groupby("model")}
    parts = []
    for name in given.readers:
        loaded = load_model(name)
        trained, random = (Reader(each, given.seed) for each in (loaded, random_twin(loaded, seed=given.seed)))
        comparisons = {
            case: Comparison(reader, human, given.resolution, given.seed, shuffled=case == CASES[2])
            for case, reader in zip(CASES, (trained, random, trained), strict=True)
        }
        rows = []
        with progress(f"{name} reads {len(about)} models") as tell:
            for place, model in enumerate(about["model"]):
                for case, comparison in comparisons.items():
                    rows.append({"reader": name, "case": case, "model": model, **comparison.with_model(answers[model])})
                tell(place + 1, len(about))
        read = pd.DataFrame(rows)
        parts.append(
            read[read["prompts"] >= FEWEST_PROMPTS].merge(about[["model", "access", "lc_win_rate"]], on="model")
        )
    table = pd.concat(parts, ignore_index=True)
    table.to_csv(given.out / "human_vs_models.csv", index=False)
    figure(table, given.out / "human_vs_models.png")
    show(summary(table), f"Emergence at resolution {given.resolution:g}, models less people, same prompts and windows")


class Comparison:
    """People and models on the same prompts through one reader, perhaps with the words of each answer shuffled."""

    def __init__(
        self, reader: Reader, human: pd.Series, resolution: float, seed: int, *, shuffled: bool = False
    ) -> None:
        self.reader, self.resolution, self.shuffled = reader, resolution, shuffled
        self.human = human[[self.long_enough(text) for text in human]]
        self.rng_seed = seed
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def long_enough(self, text: str) -> bool:
        """Whether a prompt's windows can be taken from the text."""
        return (
            len(self.reader.model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            >= FEWEST_TOKENS
        )

    def with_model(self, answers: pd.Series) -> dict[str, float]:
        """Emergence of both, and their difference with its interval, on the prompts that both answered at length."""
        shared = [
            prompt for prompt in self.human.index if prompt in answers.index and self.long_enough(answers[prompt])
        ]
        key = tuple(shared)
        if key not in self._known:
            self._known[key] = self.by_prompt(self.human[shared].tolist())
        people, model = self._known[key], self.by_prompt(answers[shared].tolist())
        rng = np.random.default_rng(self.rng_seed)
        sampled = rng.integers(len(shared), size=(RESAMPLES, len(shared)))
        ie = [values[sampled, 0].mean(axis=1) for values in (people, model)]
        low, high = np.quantile(ie[1] - ie[0], [0.025, 0.975])
        found = {"prompts": len(shared), "windows": PER_PROMPT * len(shared)}
        for name, values, resampled in (("human", people, ie[0]), ("model", model, ie[1])):
            bounds = np.quantile(resampled, [0.025, 0.975])
            found |= {f"{name}_ie": values[:, 0].mean(), f"{name}_ie_low": bounds[0], f"{name}_ie_high": bounds[1]}
            found |= {f"{name}_macro": values[:, 1].mean(), f"{name}_micro": values[:, 2].mean()}
        return {**found, "difference": found["model_ie"] - found["human_ie"], "low": low, "high": high}

    def by_prompt(self, texts: Sequence[str]) -> np.ndarray:
        """(prompts, 3) emergence, macro and micro information of each prompt's windows, in bits."""
        if self.shuffled:
            rng = np.random.default_rng([self.rng_seed, 5])
            texts = [" ".join(rng.permutation(text.split())) for text in texts]
        windows = answer_windows(
            self.reader.model, [[text] for text in texts], count=PER_PROMPT * len(texts), seed=self.rng_seed
        )
        (one,) = self.reader.emergence(windows, [self.resolution])
        macro = one.pointwise_macro_bits.numpy()  # (N,)
        pointwise = np.stack([macro, macro - one.value.pointwise_bits.numpy()])  # (2, N): macro, micro
        weights = np.bincount(windows.documents, windows.weights, minlength=len(texts))
        sums = [np.bincount(windows.documents, windows.weights * row, minlength=len(texts)) for row in pointwise]
        # A window that two prompts share is counted with the first of them; few are.
        means = np.stack(sums) / np.maximum(weights, 1)
        return np.stack([means[0] - means[1], means[0], means[1]], axis=1)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per reader and case, and per access where the models differ in it."""
    rows = []
    trained = table[table["case"] == CASES[0]]
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
