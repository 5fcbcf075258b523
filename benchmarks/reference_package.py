"""The estimators of Czyz et al.'s own package, as their classes stand, on tasks of known truth.

Runs in an environment of its own, for its jax is older than this project's numpy allows:

    python3 -m venv bmi && bmi/bin/pip install benchmark-mi 'jax<0.4.34' 'jaxlib<0.4.34' 'numpy<2'
    bmi/bin/python benchmarks/reference_package.py FOLDER --out docs/public-tasks.csv

Every result is appended as it comes, and what the file holds already is not run again. Errors and truth in nats.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
from bmi.estimators import (
    CCAMutualInformationEstimator,
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    KSGEnsembleFirstEstimator,
    MINEEstimator,
    NWJEstimator,
)

ESTIMATORS = {
    "CCA": CCAMutualInformationEstimator,
    "KSG": lambda: KSGEnsembleFirstEstimator(neighborhoods=(10,)),
    "MINE": lambda: MINEEstimator(verbose=False),
    "InfoNCE": lambda: InfoNCEEstimator(verbose=False),
    "Donsker-Varadhan": lambda: DonskerVaradhanEstimator(verbose=False),
    "NWJ": lambda: NWJEstimator(verbose=False),
}
COLUMNS = ["estimator", "task", "truth", "error", "seconds"]


def main() -> None:
    """Run what the file of results lacks, then print each estimator's mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truths", type=Path, help="folder of .npz files with x, y and mutual_information_bits")
    parser.add_argument("--out", type=Path, required=True, help="results (.csv), appended to")
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    options = parser.parse_args()
    if not options.out.exists():
        options.out.write_text(",".join(COLUMNS) + "\n")
    with options.out.open() as file:
        done = {(row["estimator"], row["task"]) for row in csv.DictReader(file)}
    for path in sorted(options.truths.glob("*.npz")):
        with np.load(path) as task:
            x, y, truth = task["x"], task["y"], float(task["mutual_information_bits"]) * math.log(2)
        for name in options.estimators:
            if (name, path.stem) in done:
                continue
            start = time.perf_counter()
            found = float(ESTIMATORS[name]().estimate(x, y))
            seconds = time.perf_counter() - start
            with options.out.open("a") as file:
                file.write(f"{name},{path.stem},{truth:.4f},{found - truth:+.4f},{seconds:.1f}\n")
    with options.out.open() as file:
        rows = list(csv.DictReader(file))
    for name in options.estimators:
        errors = [abs(float(row["error"])) for row in rows if row["estimator"] == name]
        print(f"{name}: mean absolute error {sum(errors) / len(errors):.3f} nats on {len(errors)} tasks")


if __name__ == "__main__":
    main()
