"""Measure the bundled models and those of further architectures, and build the bank that ships with the package.

    python benchmarks/reference_bank.py --stages DIR --book sherlock_holmes.txt --tables DIR --out proxy/banks/shipped

`--stages` holds what `benchmarks/train_reference_models.py` wrote with `--keep-checkpoints`: stages of the three
smallest models of both bundled architectures, and models of eight further ones with their stages. `--book` is an
English book in the public domain. Every model is measured on three corpora, with a random twin and shuffled windows as
controls: blocks by the predictive observer and by sample propagation, the output by all readings, window by window,
and on the first corpus in its chat template too. Every model also answers the demo prompts, as `emergence answer` lets
it. What is in `--tables` already is not made again.
`--real` is a folder of models, GGUF files or folders, such as `benchmarks/real_models.py` fetches; they come into the
bank as others.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from estimators import DEFAULT_RESOLUTION
from estimators.contracts.controls import with_controls
from extraction import (
    LanguageModel,
    Sampling,
    Windows,
    generate_answers,
    load_model,
    prompts,
    random_twin,
    reference_models,
)
from extraction.answers.collecting.next_tokens import INSTRUCTION
from extraction.tables import RESPONSES, write_table
from proxy import Listeners, Propagation, measure
from proxy.banks.bank import load_bank
from proxy.banks.building import build_bank
from proxy.features.output import SAMPLES, needed_readings
from proxy.measurement.continuations import table_beside
from proxy.measurement.output import OnWindows, contexts_of, measure_output, output_windows
from proxy.measurement.prefix import with_prefix
from proxy.schemas import CONTINUATIONS

WINDOWS = 2000
CORPUS = "python-docs"  # the bank's default
CHAT_CORPUS = CORPUS  # a chat puts some sixty tokens before each window, so it is asked on one corpus alone
PROMPTS = "demo"
FURTHER_STAGES = ("", "25")  # two of a run tell most of what four would, in half the space
READINGS = [name for shown in (20, SAMPLES) for name in needed_readings(shown)]
LICENCE = "tables: that of this package; python-docs: PSF-2.0; the book: public domain"


def main() -> None:
    """Measure what is not measured yet, and build the bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=Path, help="folder of further models and of training stages, NAME@SHARE")
    parser.add_argument("--real", type=Path, help="folder of further models: GGUF files, folders")
    parser.add_argument("--book", type=Path, required=True, help="text of a book in the public domain")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the bank")
    given = parser.parse_args()
    given.tables.mkdir(parents=True, exist_ok=True)
    bundled = {name: reference_models.path(name) for name in reference_models.names()}
    folders = bundled | ({} if given.stages is None else further(given.stages, {*bundled}))
    real = {} if given.real is None else real_models(given.real)
    tables = collect(folders, real, [CORPUS, str(given.book), "animal"], given.tables)
    build_bank(
        [*tables, *answered(folders | real, given.tables)],
        given.out,
        name="bundled",
        licence=LICENCE,
        provenance="benchmarks/reference_bank.py: the ten bundled models, models of eight further architectures, and "
        f"stages of their training, none with more than 2 million parameters{''.join(f', {one}' for one in real)}",
        corpora=[CORPUS, str(given.book)],
        windows=WINDOWS,
    )
    sys.stderr.write(f"{len(load_bank(given.out).models)} models in {given.out}\n")


def further(folder: Path, bundled: set[str]) -> dict[str, Path]:
    """Models that are not bundled, by name: all stages of bundled ones, the end and a quarter of others' training."""
    found = {}
    for path in sorted(folder.iterdir()):
        name, _, share = path.name.partition("@")
        if (path / "training.json").is_file() and (share if name in bundled else share in FURTHER_STAGES):
            found[path.name] = path
    return found


def real_models(folder: Path) -> dict[str, Path]:
    """Models of a folder by name: GGUF files, and folders with a config.json."""
    files = {path.stem: path for path in sorted(folder.glob("*.gguf"))}
    return files | {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def collect(folders: dict[str, Path], real: dict[str, Path], corpora: list[str], tables: Path) -> list[Path]:
    """Measure what is not measured yet, and return the tables of all.

    Args:
        folders: models whose family is the first part of their name.
        real: models whose family their configuration tells.
        corpora: on which.
        tables: folder of the tables.
    """
    found = []
    for corpus in corpora:
        for name, place in (folders | real).items():
            saved = tables / f"{name}.{Path(corpus).name}.parquet"
            if not saved.is_file():
                model = load_model(str(place))
                if name in real:
                    save(name, with_prefix(model), None, corpus, saved)
                else:  # trained on sequences that begin anywhere in a text: no token in front is needed
                    save(name, model, name.split("-")[0], corpus, saved)
                sys.stderr.write(f"measured {name} on {Path(corpus).name}\n")
            found.append(saved)
    return found


def answered(folders: dict[str, Path], tables: Path) -> list[Path]:
    """Let models answer that did not yet, and return the tables of all their answers."""
    found = []
    for name, place in folders.items():
        saved = tables / f"{name}.answers.parquet"
        if not saved.is_file():
            model = replace(load_model(str(place)), name=name)
            answers = generate_answers(model, prompts(PROMPTS), sampling=Sampling(logprobs=0))
            write_table(answers, saved, RESPONSES)
            sys.stderr.write(f"answers of {name}\n")
        found.append(saved)
    return found


def save(name: str, model: LanguageModel, family: str | None, corpus: str, saved: Path) -> None:
    """Measure a model on a corpus, and keep both its tables under its name in the bank."""
    continued: list[pd.DataFrame] = []
    rows = measured(model, corpus, continued.append)
    rows = rows.assign(model=name, family=rows["family"] if family is None else family, path=None)
    windows = pd.concat(continued, ignore_index=True).assign(model=name)
    CONTINUATIONS.conform(windows).to_parquet(table_beside(saved))
    rows.to_parquet(saved)


def measured(model: LanguageModel, corpus: str, on_windows: OnWindows) -> pd.DataFrame:
    """Blocks and output of one model on one corpus, last position, its controls beside them."""
    make = {"count": WINDOWS, "prefix": model.prefix}
    own = output_windows(corpus, model.tokenizer, **make)
    mixed = output_windows(corpus, model.tokenizer, shuffled=True, **make)
    rows = with_controls(
        _rows(model, own, on_windows), twin=_rows(random_twin(model), own), shuffled=_rows(model, mixed)
    )
    if corpus == CHAT_CORPUS and model.tokenizer.chat_template:
        contexts = contexts_of(own, model.tokenizer)
        said = measure_output(model, contexts, READINGS, instruction=INSTRUCTION, on_windows=on_windows)
        rows = pd.concat([rows, said], ignore_index=True)
    return rows


def _rows(model: LanguageModel, windows: Windows, on_windows: OnWindows | None = None) -> pd.DataFrame:
    how = Propagation(resolutions=(DEFAULT_RESOLUTION,), queries=1000)
    names = ",".join(["predictive", "sample-propagation", *READINGS])
    found = measure(model, windows, estimator=names, propagation=how, listeners=Listeners(continuations=on_windows))
    return found[found["position"] == found["position"].max()].reset_index(drop=True)


if __name__ == "__main__":
    main()
