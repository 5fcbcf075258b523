"""`emergence demo`: the whole path on the bundled models, as the very commands a user would type."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from proxy.cli.console import show
from proxy.cli.groups import TrackingUri

if TYPE_CHECKING:
    import pandas as pd

STAND_IN = "gemma-2m"  # the largest bundled model of one architecture plays the model behind an API
CORPUS = "python-docs"
# Targets for the estimate of the peak, fixed before its results were known.
MOST_ERROR, MOST_WIDTH = 0.25, 1.2
READINGS = "predictive-20,output-20,output-2-of-20"


def demo(
    results: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-results"),
    tracking_uri: TrackingUri = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sweep.")] = 0,
) -> None:
    """Run the whole path on the bundled models: no network, no key, no GPU, a few minutes on two cores.

    Ten small models are measured; one of them then plays a model that is open only through an API, and its
    emergence is estimated from what it says next. As its weights are here, the truth stands beside the estimate.

    Example: `emergence demo --results demo-results`
    """
    from estimators.base import InputError
    from extraction import load_model, reference_models
    from extraction.answers.completions import serve_completions
    from extraction.tables import read_table
    from proxy.schemas import EMERGENCE
    from tracking.mlflow.store import open_store, store_uri

    open_store(tracking_uri, create=True)  # before minutes of work
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{results} cannot be a folder ({error.strerror}); choose another by --results.") from error
    started = time.perf_counter()
    say = Console(highlight=False)
    here = shlex.quote(str(results))
    store = f" --tracking-uri {shlex.quote(store_uri(tracking_uri))}" if tracking_uri else ""
    for made in ("proxy", "estimate"):  # of an earlier demo: its proxy, and what its server replied
        shutil.rmtree(results / made, ignore_errors=True)

    say.rule("[bold]1. Measure ten open models: emergence of every block, on Ray", align="left")
    run(f"sweep demo --seed {seed} --results {here}/sweep")
    run(f"track {here}/sweep{store}")
    run(f"report {here}/sweep --out {here}/report.html")
    say.rule(f"[bold]2. The references that ship, without {STAND_IN}, and a proxy learned from them", align="left")
    run("bank show")
    run(f"bank table --corpus {CORPUS} --without {STAND_IN} --out {here}/references.parquet")
    run(f"fit {here}/references.parquet --target emergence_peak --out {here}/proxy --register emergence-demo{store}")
    say.rule(f"[bold]3. Ask {STAND_IN} through an API what it says next, and estimate its blocks", align="left")
    with serve_completions(load_model(str(reference_models.path(STAND_IN)), device="cpu")) as base_url:
        run(
            f"estimate {STAND_IN} --base-url {base_url} --tokenizer {STAND_IN} --corpus {CORPUS} --yes "
            f"--out {here}/estimate --track{store}"
        )
    say.rule("[bold]4. The truth, which only a stand-in can tell", align="left")
    run(f"measure {STAND_IN} --corpus {CORPUS} --estimator predictive --out {here}/truth.parquet")
    run(f"measure {STAND_IN} --corpus {CORPUS} --estimator {READINGS} --out {here}/truth-output.parquet")
    outputs = beside(
        read_table(results / "estimate" / "measured.parquet", EMERGENCE),
        read_table(results / "truth-output.parquet", EMERGENCE),
    )
    show(outputs, f"Emergence of the output of {STAND_IN}, bits")
    compared = against_truth(
        read_table(results / "estimate" / "estimate.csv"),
        read_table(results / "truth.parquet", EMERGENCE),
        read_table(results / "references.parquet"),
    )
    show(compared, f"E of the blocks of {STAND_IN}, bits")
    for line in reached(compared):
        say.print(line)
    say.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Tables, report.html, the proxy and the estimate with their "
        f"cards: {results}\nCurves and the registered proxy, in MLflow's own pages: [bold]emergence ui[/bold]"
    )


def run(command: str) -> None:
    """Print a command as a user would type it, and run it in this process.

    Raises:
        EmergenceError: if a part of it failed (it has listed what).
    """
    from estimators.base import EmergenceError
    from proxy.cli import app

    Console(highlight=False).print(f"[dim]$[/dim] [cyan]emergence {command}[/cyan]", soft_wrap=True)
    code = app(shlex.split(command), standalone_mode=False)
    if code:
        raise EmergenceError(f"The demo stopped because emergence {shlex.split(command)[0]} did not fully succeed.")


def beside(closed: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Put what the API gave beside what the weights give, reading by reading."""
    columns = {"ie_bits": "through the API", "ie_std_error": "std error"}
    through = closed.rename(columns=columns)[["estimator", *columns.values()]]
    found = through.merge(weights[["estimator", "ie_bits"]].rename(columns={"ie_bits": "from its weights"}))
    return found.assign(difference=found["through the API"] - found["from its weights"])


def against_truth(estimate: pd.DataFrame, truth: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Truth, estimate and baselines of the peak and of each depth, in bits.

    Args:
        estimate: of `emergence estimate`.
        truth: emergence table of the stand-in, by its weights.
        references: the reference table, without the stand-in.

    Returns:
        target, how, truth, estimate, lower, upper, error, mean and its error, and the same of a line in log parameters,
        which an API hides.
    """
    import numpy as np
    import pandas as pd

    from proxy.banks.targets import profile_targets

    last = truth[truth["position"] == truth["position"].max()]
    measured = profile_targets(last).iloc[0]
    size = references["meta.log_parameters"].astype(float)
    own_size = float(np.log10(truth["parameters"].iloc[0]))
    rows = []
    for row in estimate.to_dict(orient="records"):
        values = references[row["target"]].astype(float)
        slope, height = np.polyfit(size, values, 1)
        true = float(measured[row["target"]])
        rows.append(
            {
                "target": row["target"],
                "how": row["how"],
                "truth": true,
                "estimate": row["estimate"],
                "lower": row["lower"],
                "upper": row["upper"],
                "error": row["estimate"] - true,
                "error of the mean": float(values.mean()) - true,
                "error of log parameters": height + slope * own_size - true,
            }
        )
    return pd.DataFrame(rows)


def reached(compared: pd.DataFrame) -> list[str]:
    """Say of each target for the peak whether it was reached."""
    import pandas as pd

    peak = compared.iloc[0].to_dict()
    if pd.isna(peak["estimate"]) or pd.isna(peak["lower"]):
        return ["No estimate of the peak is given: the model is too far from the references."]
    error, width = abs(peak["error"]), peak["upper"] - peak["lower"]
    inside = peak["lower"] <= peak["truth"] <= peak["upper"]
    aims = [
        (f"error of the peak at most {MOST_ERROR} bits", error <= MOST_ERROR, f"{error:.2f}"),
        (
            "below the error of the mean",
            error < abs(peak["error of the mean"]),
            f"{abs(peak['error of the mean']):.2f}",
        ),
        (f"interval at most {MOST_WIDTH} bits wide", width <= MOST_WIDTH, f"{width:.2f}"),
        ("the truth inside the interval", inside, f"{peak['truth']:.2f} in {peak['lower']:.2f} to {peak['upper']:.2f}"),
    ]
    return [f"{'Reached' if met else 'MISSED'}: {aim} ({value})." for aim, met, value in aims]
