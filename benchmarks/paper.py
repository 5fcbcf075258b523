"""The claims of arXiv 2405.12617 tested on the bundled models, beside random-weights twins and shuffled controls.

    python benchmarks/paper.py --results results/study --out docs       about ten minutes on two idle cores
    python benchmarks/paper.py --sweep results/paper --out paper-study  the same questions put to a sweep of your own
    python benchmarks/paper.py --tables results/depth --out docs        put to the tables of benchmarks/depth.py

Measures, judges each claim by a rule that is written beside it, draws the figures and writes OUT/study.md. All numbers
follow from the seed. Measurements are kept in RESULTS: a run that was stopped goes on, and a model that changed is
measured again. With `--sweep` nothing is measured: what a finished sweep holds is judged (`emergence sweep paper`
measures the paper's own four models on the hub, with a GPU), and claims it holds no data for are left out. With
`--tables` what `depth.py` measured by the predictive observer is judged, and the page is OUT/study-predictive.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from paper_claims import judge_all
from paper_rules import LISTS, Study, with_controls_as_rows
from paper_text import write_predictive_study, write_study

from estimators import estimate, estimate_many, shuffled_pairs
from estimators.contracts.conventions import SHUFFLED, TWIN
from extraction import LanguageModel, Projection, Windows, extract, load_model, random_twin, reference_models, windows
from extraction.tables import read_table, write_table
from proxy.measurement.table import Propagation, measure
from proxy.schemas import EMERGENCE

TEXT = "python-docs"
SHOTS = 12
SEEDS = 3  # of the paper's MINE
TRAINED = {  # name in the tables: method and its options; small budgets, no second fits on halves
    "infonce": ("infonce", {"steps": 100, "folds": 2, "halves": False}),
    "mine": ("mine", {"steps": 100, "folds": 2, "halves": False}),
}


def measured(arguments: argparse.Namespace) -> Study:
    """Measure all that the claims need, leaving out what RESULTS holds already."""
    few, some, many = arguments.windows // 4, arguments.windows, 2 * arguments.windows
    families = {name.rsplit("-", 1)[0]: [] for name in arguments.models}
    for name in arguments.models:
        families[name.rsplit("-", 1)[0]].append(name)
    largest = [names[-1] for names in families.values()]  # names come by size
    ends = [name for names in families.values() for name in dict.fromkeys((names[0], names[-1]))]
    tables: dict[str, list[pd.DataFrame]] = {}
    for number, name in enumerate(arguments.models):
        tell(f"{name}, {number + 1} of {len(arguments.models)}")
        trained = load_model(name, device="cpu")
        kept = Kept(arguments.results, trained)
        twin = random_twin(trained, seed=arguments.seed)
        for model, shuffled in ((trained, False), (twin, False), (trained, True)):
            for corpus in (TEXT, "animal"):
                table = emergence(kept, model, corpus, arguments, shuffled=shuffled)
                tables.setdefault("main", []).append(table)
            for count in (few, some, many) if name in largest else ():
                table = emergence(kept, model, "country", arguments, shuffled=shuffled, count=count, tokens=2 * SHOTS)
                tables.setdefault("shots", []).append(table)
        tables.setdefault("trained", []).append(
            kept(
                "trained",
                lambda models=(trained, twin)[: 1 + (name in ends)]: by_trained_estimators(models, arguments),
                arguments.samples,
                arguments.seed,
                name in ends,
            )
        )
        if name in ends:
            tables.setdefault("preset", []).append(
                kept(
                    "preset",
                    lambda models=(trained, twin): by_paper_preset(models, arguments),
                    arguments.samples,
                    arguments.epochs,
                    arguments.seed,
                    SEEDS,
                )
            )
    return Study(**{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()})


@dataclass(frozen=True)
class Kept:
    """Tables of one model in a folder, each under a key of all that determines it."""

    folder: Path
    model: LanguageModel

    def __call__(self, what: str, make: Callable[[], pd.DataFrame], *settings: object) -> pd.DataFrame:
        """Return the table kept under these settings, or make it and keep it."""
        digest = hashlib.sha256(repr((what, self.model.name, settings)).encode())
        for name, weight in sorted(self.model.model.state_dict().items()):
            digest.update(name.encode() + weight.numpy().tobytes())
        path = self.folder / f"{self.model.name}-{what}-{digest.hexdigest()[:16]}.parquet".replace(", ", "-")
        if path.exists():
            return pd.read_parquet(path)
        table = make()
        write_table(table, path)
        return table


def emergence(
    kept: Kept,
    model: LanguageModel,
    corpus: str,
    arguments: argparse.Namespace,
    *,
    shuffled: bool = False,
    count: int | None = None,
    tokens: int | None = None,
) -> pd.DataFrame:
    """Measure one model, or its twin, on one corpus, perhaps with its tokens shuffled over the windows."""
    count = count or arguments.windows
    chosen = windows(corpus, model.tokenizer, count=count, tokens=tokens, seed=arguments.seed, prefix=model.prefix)
    if shuffled:
        chosen = chosen.shuffled(arguments.seed)
    return kept(
        f"{chosen.corpus}-{count}" + ("-random" if model.name.endswith(TWIN) else ""),
        lambda: measure(
            model,
            chosen,
            estimator="sample-propagation",
            propagation=Propagation(queries=arguments.queries),
            seed=arguments.seed,
        ),
        chosen.hash,
        arguments.queries,
        arguments.seed,
    )


def tell(line: str) -> None:
    """Say on stderr what is being measured."""
    print(line, file=sys.stderr, flush=True)


def pairs(model: LanguageModel, count: int, seed: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Windows]:
    """States entering and leaving the last block: the macro pair at the last position, then the micro pairs."""
    text = windows(TEXT, model.tokenizer, count=count, seed=seed)
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
            shuffled = shuffled_pairs(x, y, method, seed=arguments.seed, **options)
            rows.append(
                {
                    "model": model.name,
                    "family": model.family,
                    "parameters": model.parameters,
                    "estimator": label,
                    "macro_bits": macro.bits,
                    "macro_ceiling_bits": macro.ceiling_bits,
                    "micro_bits": float(np.mean([one.bits for one in micro])),
                    "ie_bits": macro.bits - float(np.mean([one.bits for one in micro])),
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


def from_sweep(folder: Path) -> Study:
    """What a finished sweep holds: rows with 24 tokens or more of a category show the shots, the rest the rest."""
    path = folder / "emergence.parquet"
    if not path.is_file():
        sys.exit(f"No finished sweep in {folder}: it has no emergence.parquet; give the folder of its results.")
    table = with_controls_as_rows(read_table(path, EMERGENCE))
    longest = table.groupby(["corpus", "windows"])["position"].transform("max")
    is_list = table["corpus"].str.removesuffix(SHUFFLED).isin(LISTS)
    return Study(main=table[~(is_list & (longest >= 2 * SHOTS))], shots=table[is_list & (longest >= 2 * SHOTS)])


def from_tables(folder: Path) -> Study:
    """What `depth.py` has measured, by the predictive observer alone."""
    tables = [read_table(path, EMERGENCE) for path in sorted(folder.glob("*.parquet"))]
    if not tables:
        sys.exit(f"No tables in {folder}; run benchmarks/depth.py first, or give its --results.")
    table = pd.concat(tables, ignore_index=True)
    return Study(main=with_controls_as_rows(table[table["estimator"] == "predictive"]))


def main() -> None:
    """Measure, judge, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/study"), help="where measurements are kept")
    parser.add_argument("--sweep", type=Path, help="judge this sweep's results folder instead of measuring")
    parser.add_argument("--tables", type=Path, help="judge the tables of depth.py in this folder instead of measuring")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for study.md and images/study_*.png")
    parser.add_argument("--models", nargs="+", default=list(reference_models.names()), help="bundled models, by size")
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=500, help="windows whose information is read")
    parser.add_argument("--samples", type=int, default=400, help="windows given to trained estimators")
    parser.add_argument("--epochs", type=int, default=100, help="of the paper's MINE (it used 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    if arguments.tables is not None:
        study = from_tables(arguments.tables)
        claims = judge_all(study, arguments.out / "images" / "predictive")
        write_predictive_study(claims, study, arguments.out / "study-predictive.md")
        print(json.dumps({claim.title: claim.verdict for claim in claims}, indent=1))
        return
    if arguments.sweep is not None:
        study = from_sweep(arguments.sweep)
    else:
        arguments.results.mkdir(parents=True, exist_ok=True)
        study = measured(arguments)
    setting = {
        key: getattr(arguments, key)
        for key in ("windows", "queries", "samples", "epochs", "seed")
        if not arguments.sweep
    }
    claims = judge_all(study, arguments.out / "images")
    write_study(claims, study, setting, arguments.out / "study.md")
    print(json.dumps({claim.title: claim.verdict for claim in claims}, indent=1))


if __name__ == "__main__":
    main()
