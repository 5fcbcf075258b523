"""What the estimators cost and how right they are, beside the published setting, in one run.

    python benchmarks/estimators_compared.py                                   everything
    python benchmarks/estimators_compared.py --only baseline full              some parts
    python benchmarks/estimators_compared.py --truths FOLDER                   with the public tasks (.npz files)

Parts:
    baseline   sample propagation beside `mine --preset paper` on the same windows; the published 10,000 epochs are
               extrapolated from the epochs timed here, and its error is that of the epochs run: --epochs gives it more
    full       `estimate` at the paper's size, 303,600 windows x 768 features, with time and memory
    batch      96 problems of 5,000 x 64 at once beside one after another; one after another is timed on a few
    public     every trained estimator, one setting, on the public tasks, beside what was recorded of the package of
               Czyz et al. by benchmarks/reference_package.py
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from estimators import MIEstimate, estimate, estimate_many
from estimators.calibration import CONTINUOUS_METHODS
from estimators.truths import folder_truths

PAPER_EPOCHS = 10_000
RECORDED = Path(__file__).parent.parent / "docs" / "public-tasks.csv"


def asked(x: torch.Tensor, y: torch.Tensor, method: str, **options: Any) -> tuple[MIEstimate, float]:
    """Return one estimate and the seconds of wall time it took."""
    start = time.perf_counter()
    found = estimate(x, y, method, **options)
    seconds = time.perf_counter() - start
    return (found[0] if isinstance(found, list) else found), seconds


def baseline(epochs: int, windows: int = 4_096, features: int = 768) -> None:
    """Compare with the published setting: equally likely symbols, each with a random state of its own."""
    print(f"\n{windows} windows x {features} features; published setting: {epochs} of {PAPER_EPOCHS} epochs run")
    print(
        "truth, bits | sample propagation | mine, paper: max / last / held-out | times less | error ratio / to its best"
    )
    generator = torch.Generator().manual_seed(1)
    layer = torch.randn(features, features, generator=generator) / math.sqrt(features)
    for symbols in (16, 256, windows):
        tokens = torch.arange(windows) % symbols
        entering = torch.randn(symbols, features, generator=generator)[tokens]
        leaving = entering + torch.relu(entering @ layer)
        truth = math.log2(symbols)
        ours, seconds = asked(tokens, leaving, "sample-propagation")
        theirs, theirs_seconds = asked(entering, leaving, "mine", preset="paper", epochs=epochs)
        extrapolated = theirs_seconds / epochs * PAPER_EPOCHS
        found = theirs.details
        error, best = abs(ours.bits - truth), min(abs(value - truth) for value in found.values())
        print(
            f"{truth:6.2f} | {ours.bits:7.3f} bits in {seconds:7.2f} s | {found['max']:6.2f} / {found['last']:5.2f} / "
            f"{found['held_out']:5.2f} in {extrapolated:7.0f} s* | {extrapolated / seconds:10,.0f} | "
            f"{error / abs(theirs.bits - truth):.4f} / {error / best:.4f}",
            flush=True,
        )
    print("* extrapolated from the epochs run; sample propagation compares 2,048 windows with every one")
    print(
        f"Its errors are those of {epochs} epochs, with the rate falling to nothing over just these. Its maximum grows "
        f"with epochs, past the truth, and the others come nearer, so `to its best` is fair only with --epochs "
        f"{PAPER_EPOCHS}: here {3 * extrapolated / 3600:.1f} h for the three."
    )


def full(windows: int = 303_600, features: int = 768, queries: int = 2_049) -> None:
    """Time the paper's own size, random states, and the memory above them; the last block has one query."""
    states = torch.randn(windows, features, generator=torch.Generator().manual_seed(1))
    tokens = torch.randperm(windows, generator=torch.Generator().manual_seed(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, used = time.perf_counter(), time.process_time()
    found = estimate(tokens, states, resolution=(0.06, 0.12, 0.18, 0.25, 0.5), queries=queries)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9  # kilobytes on Linux
    print(f"\n{windows} windows x {features} features, {queries} queries, 5 resolutions")
    print(f"{seconds:.1f} s ({used:.1f} s of CPU), {above:.2f} GB above the {states.nbytes / 1e9:.2f} GB of input")
    assert isinstance(found, list)  # noqa: S101 - several resolutions
    for one in found:
        print(
            f"  resolution {one.resolution:.2f}: {one.bits:6.3f} +- {one.std_error:.3f} bits of at most "
            f"{one.ceiling_bits:.3f} {' '.join(one.flags)}"
        )


def batch(problems: int, alone: int, samples: int = 5_000, features: int = 64) -> None:
    """Time many problems in one call and one after another, side by side on this device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(1)
    pairs = []
    for _ in range(problems):
        x = torch.randn(samples, features, generator=generator)
        noise = torch.randn(samples, features, generator=generator)
        pairs.append((x.to(device), (0.3 * x + math.sqrt(1 - 0.09) * noise).to(device)))
    estimate(*pairs[0], "infonce", steps=1)  # start the libraries
    start = time.perf_counter()
    for x, y in pairs[:alone]:
        estimate(x, y, "infonce")
    one_by_one = time.perf_counter() - start
    start = time.perf_counter()
    estimate_many(pairs, "infonce")
    together = time.perf_counter() - start
    one_by_one *= problems / alone
    print(f"\n{problems} problems of {samples} x {features} on {device}, infonce")
    print(
        f"at once {together:.1f} s; one after another {one_by_one:.1f} s, from {alone} of them; "
        f"ratio {together / one_by_one:.3f}"
    )


def public(folder: Path, methods: list[str]) -> None:
    """Ask every trained estimator, one setting for all, about the public tasks."""
    truths = list(folder_truths(folder))
    print(f"\n{len(truths)} public tasks; errors in nats, seconds of wall time")
    for method in methods:
        errors, seconds, cpu, worst = [], [], [], ("", 0.0)
        asked(truths[0].x[:200], truths[0].y[:200], method)  # what is loaded once counts for no task
        for truth in truths:
            used = time.process_time()
            found, took = asked(truth.x, truth.y, method)
            used = time.process_time() - used
            nats = truth.bits * math.log(2)
            error = found.bits * math.log(2) - nats
            print(
                f"  {method:9} {truth.name:50} {nats:6.3f} {error:+7.3f} {took:6.1f} s, {used:5.1f} s of CPU",
                flush=True,
            )
            errors.append(abs(error))
            seconds.append(took)
            cpu.append(used)
            if abs(error) > abs(worst[1]):
                worst = (truth.name, error)
        median = sorted(seconds)[len(seconds) // 2]
        print(
            f"{method}: mean absolute error {sum(errors) / len(errors):.4f}, median {median:.1f} s, "
            f"longest {max(seconds):.1f} s ({max(cpu):.1f} s of CPU), worst {worst[1]:+.3f} on {worst[0]}",
            flush=True,
        )
    recorded = pd.read_csv(RECORDED).assign(error=lambda table: table["error"].abs())
    recorded = recorded[recorded["task"].isin([truth.name for truth in truths])]
    for name, rows in recorded.groupby("estimator", sort=False):
        on = f"{len(rows)} of these {len(truths)} tasks"
        print(f"recorded of the reference package, {name}: mean absolute error {rows['error'].mean():.3f} on {on}")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["baseline", "full", "batch", "public"])
    parser.add_argument("--epochs", type=int, default=60, help="epochs of the published setting to run")
    parser.add_argument("--problems", type=int, default=96, help="problems estimated at once")
    parser.add_argument("--alone", type=int, default=8, help="how many of them are timed one after another")
    parser.add_argument("--truths", type=Path, help="folder of the public tasks")
    parser.add_argument("--methods", nargs="+", default=list(CONTINUOUS_METHODS))
    options = parser.parse_args()
    parts = options.only or ["baseline", "full", "batch", *(["public"] if options.truths else [])]
    if "public" in parts and options.truths is None:
        sys.exit("The public tasks need --truths FOLDER.")
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {load:.1f} at the start")
    if "baseline" in parts:
        baseline(options.epochs)
    if "full" in parts:
        full()
    if "batch" in parts:
        batch(options.problems, min(options.alone, options.problems))
    if "public" in parts:
        public(options.truths, options.methods)


if __name__ == "__main__":
    main()
