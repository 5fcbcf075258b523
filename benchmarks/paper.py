"""The claims of arXiv 2405.12617 tested on bundled and real models, beside random twins and shuffled windows.

    python benchmarks/paper.py --results results/study --out docs       about fifteen minutes on two idle cores
    python benchmarks/paper.py --real ~/.cache/emergence-real           with real models, see real_models.py: half an
                                                                        hour of one core more
    python benchmarks/paper.py --sweep results/paper --out paper-study  the same questions put to a sweep of your own

Measures by two observers, judges each claim by a rule that is written beside it, draws the figures and writes
OUT/study.md (sample propagation, the paper's kind of observer) and OUT/study-predictive.md (what comes next). All
numbers follow from the seed. Measurements are kept in RESULTS: a run that was stopped goes on, and a model that changed
is measured again. With `--sweep` nothing is measured: what a finished sweep holds is judged (`emergence sweep paper`
measures the paper's own four models on the hub, with a GPU), and claims it holds no data for are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import paper_figures as figures
from paper_claims import judge_all
from paper_measured import SHOTS, measured
from paper_rules import LISTS, Study, of_next, with_controls_as_rows
from paper_text import write_predictive_study, write_study

from estimators.contracts.conventions import SHUFFLED
from extraction import reference_models
from extraction.tables import read_table
from proxy.schemas import EMERGENCE

SETTINGS = ("windows", "next_windows", "large_windows", "queries", "samples", "epochs", "seed")


def from_sweep(folder: Path) -> Study:
    """What a finished sweep holds: rows with 24 tokens or more of a category show the shots, the rest the rest."""
    path = folder / "emergence.parquet"
    if not path.is_file():
        sys.exit(f"No finished sweep in {folder}: it has no emergence.parquet; give the folder of its results.")
    table = with_controls_as_rows(read_table(path, EMERGENCE))
    predictive = table["estimator"] == "predictive"
    longest = table.groupby(["corpus", "windows"])["position"].transform("max")
    shots = table["corpus"].str.removesuffix(SHUFFLED).isin(LISTS) & (longest >= 2 * SHOTS)
    return Study(
        main=table[~shots & ~predictive],
        shots=table[shots & ~predictive],
        next=table[~shots & predictive],
        next_shots=table[shots & predictive],
    )


def main() -> None:
    """Measure, judge, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/study"), help="where measurements are kept")
    parser.add_argument("--sweep", type=Path, help="judge this sweep's results folder instead of measuring")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pages and images/")
    parser.add_argument(
        "--models", nargs="+", default=list(reference_models.names()), help="bundled names and .gguf files, by size"
    )
    parser.add_argument("--real", type=Path, help="folder whose .gguf files are measured after them")
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--next-windows", type=int, default=2000, help="windows given to the predictive observer")
    parser.add_argument("--large-windows", type=int, default=300, help="windows given to all, over 10 million weights")
    parser.add_argument("--queries", type=int, default=500, help="windows whose information is read")
    parser.add_argument("--samples", type=int, default=400, help="windows given to trained estimators")
    parser.add_argument("--epochs", type=int, default=100, help="of the paper's MINE (it used 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.real is not None:
        files = sorted(arguments.real.expanduser().glob("*.gguf"), key=lambda path: path.stat().st_size)
        if not files:
            sys.exit(f"No .gguf file in {arguments.real}; benchmarks/real_models.py fetches two.")
        arguments.models += map(str, files)
    images = arguments.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    if arguments.sweep is not None:
        study, setting = from_sweep(arguments.sweep), {}
    else:
        arguments.results.mkdir(parents=True, exist_ok=True)
        study = measured(arguments)
        setting = {name.replace("_", "-"): getattr(arguments, name) for name in SETTINGS}
    verdicts = {}
    if not study.main.empty:
        claims = judge_all(study, images)
        write_study(claims, study, setting, arguments.out / "study.md")
        verdicts["study.md"] = {claim.title: claim.verdict for claim in claims}
    if not study.next.empty:
        claims = judge_all(of_next(study), images / "predictive")
        figures.beside_controls(study.next, images)
        write_predictive_study(claims, study, arguments.out / "study-predictive.md")
        verdicts["study-predictive.md"] = {claim.title: claim.verdict for claim in claims}
    print(json.dumps(verdicts, indent=1))


if __name__ == "__main__":
    main()
