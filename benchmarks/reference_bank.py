"""Measure the bundled models and the stages of their training, and build the bank that ships with the package.

    python benchmarks/reference_bank.py --stages DIR --book sherlock_holmes.txt --tables DIR --out proxy/banks/shipped

`--stages` holds the checkpoints that `benchmarks/train_reference_models.py --keep-checkpoints` wrote for the three
smallest models of both architectures; the bank that ships has 15 of these 18. `--book` is an English book in the public
domain. Every model is measured on three corpora: blocks by the predictive observer and by sample propagation, the
output by all readings. A table that is in `--tables` already is not measured again. One model and corpus takes about
15 s of one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from estimators import DEFAULT_RESOLUTION
from extraction import LanguageModel, load_model, reference_models, windows
from proxy import measure
from proxy.banks.bank import load_bank
from proxy.banks.building import build_bank
from proxy.features.output import SAMPLES, needed_readings
from proxy.measurement.output import corpus_contexts, measure_output
from proxy.measurement.table import Propagation

WINDOWS = 2000
CORPUS = "python-docs"  # the bank's default
READINGS = [name for shown in (20, SAMPLES) for name in needed_readings(shown)]
LICENCE = "tables: that of this package; python-docs: PSF-2.0; the book: public domain"


def main() -> None:
    """Measure what is not measured yet, and build the bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=Path, help="folder of training stages, NAME@SHARE")
    parser.add_argument("--book", type=Path, required=True, help="text of a book in the public domain")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the bank")
    given = parser.parse_args()
    given.tables.mkdir(parents=True, exist_ok=True)
    folders = {name: reference_models.path(name) for name in reference_models.names()}
    if given.stages is not None:
        folders |= {path.name: path for path in sorted(given.stages.iterdir()) if (path / "training.json").is_file()}
    tables = []
    for corpus in (CORPUS, str(given.book), "animal"):
        for name, folder in folders.items():
            saved = given.tables / f"{name}.{Path(corpus).name}.parquet"
            if not saved.is_file():
                rows = measured(load_model(str(folder)), corpus)
                rows.assign(model=name, family=name.split("-")[0], path=None).to_parquet(saved)
                sys.stderr.write(f"measured {name} on {Path(corpus).name}\n")
            tables.append(saved)
    build_bank(
        tables,
        given.out,
        name="bundled",
        licence=LICENCE,
        provenance="benchmarks/reference_bank.py: the ten bundled models and the stages of their training, none with "
        "more than 2 million parameters",
        corpora=[CORPUS, str(given.book)],
        windows=WINDOWS,
    )
    sys.stderr.write(f"{len(load_bank(given.out).models)} models in {given.out}\n")


def measured(model: LanguageModel, corpus: str) -> pd.DataFrame:
    """Blocks and output of one model on one corpus, last position."""
    drawn = windows(corpus, model.tokenizer, count=WINDOWS, prefix=model.prefix)
    how = Propagation(resolutions=(DEFAULT_RESOLUTION,), queries=1000)
    blocks = measure(model, drawn, estimator="predictive,sample-propagation", propagation=how)
    output = measure_output(model, corpus_contexts(corpus, model.tokenizer, count=WINDOWS), READINGS)
    return pd.concat([blocks[blocks["position"] == blocks["position"].max()], output], ignore_index=True)


if __name__ == "__main__":
    main()
