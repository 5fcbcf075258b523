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

if TYPE_CHECKING:
    import pandas as pd

STAND_IN = "gemma-2m"  # the largest bundled model of one architecture plays the model behind an API
READER = "gpt2-2m"
CORPUS = "python-docs"


def demo(
    results: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-results"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; sqlite in the working folder by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Governs every step.")] = 0,
) -> None:
    """Run the whole path on the bundled models: no network, no key, no GPU, a few minutes on two cores.

    Ten small models are measured; one of them then plays a model that is open only through an API, and its
    emergence is estimated from its answers alone. As its weights are here, the truth stands beside the estimate.

    Example: `emergence demo --results demo-results`
    """
    from estimators.base import InputError
    from extraction import reference_models
    from extraction.answers.serving import serve
    from extraction.tables import read_table
    from proxy.measurement.table import peak_emergence
    from proxy.schemas import EMERGENCE
    from tracking import track_estimates
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
    emergence_table = results / "sweep" / "emergence.parquet"
    open_models = [name for name in reference_models.names() if name != STAND_IN]

    say.rule("[bold]1. Measure ten open models: macro, micro and emergence of every block, on Ray", align="left")
    run(f"sweep demo --seed {seed} --results {here}/sweep")
    run(f"track {here}/sweep{store}")
    run(f"report {here}/sweep --out {here}/report.html")
    say.rule("[bold]2. Let nine of them answer 200 prompts", align="left")
    run(f"answer {' '.join(open_models)} --prompts demo --seed {seed} --out {here}/open.parquet")
    say.rule(f"[bold]3. Ask the tenth, {STAND_IN}, through an API: nothing but its answers is used", align="left")
    with serve(reference_models.path(STAND_IN)) as base_url:
        run(f"collect {STAND_IN} --base-url {base_url} --prompts demo --seed {seed} --out {here}/closed.parquet")
    say.rule("[bold]4. Turn answers into features: how a small model reads them, how they behave", align="left")
    run(
        f"features {here}/open.parquet --readers {READER} --emergence {here}/sweep/emergence.parquet "
        f"--corpus {CORPUS} --seed {seed} --out {here}/references.parquet"
    )
    run(f"features {here}/closed.parquet --readers {READER} --seed {seed} --out {here}/closed-features.parquet")
    run(f"track {here}/references.parquet{store}")
    say.rule("[bold]5. Learn the map from answers to emergence, and estimate the closed model", align="left")
    shutil.rmtree(results / "proxy", ignore_errors=True)  # of an earlier demo: fit writes to new folders only
    run(
        f"fit {here}/references.parquet --target emergence_bits --out {here}/proxy "
        f"--register emergence-demo --anyway{store}"
    )
    run(f"estimate {here}/proxy {here}/closed-features.parquet --out {here}/estimate.csv")
    say.rule("[bold]6. The truth, which only a stand-in can tell", align="left")
    peaks = peak_emergence(read_table(emergence_table, EMERGENCE))
    truth = peaks[(peaks["corpus"] == CORPUS) & (peaks["model"] == STAND_IN)].iloc[0]
    estimate = read_table(results / "estimate.csv").assign(truth=float(truth["emergence_bits"]))
    verdict(estimate, read_table(results / "references.parquet"), int(truth["parameters"]))
    track_estimates(estimate, tracking_uri=tracking_uri, name="demo estimate")
    say.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Tables, report.html and the proxy with its card: {results}\n"
        "Curves and the registered proxy, in MLflow's own pages: [bold]emergence ui[/bold]"
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


def verdict(estimate: pd.DataFrame, references: pd.DataFrame, parameters: int) -> None:
    """Print truth, estimate and the trivial baselines side by side, in bits.

    Args:
        estimate: the row of `emergence estimate`, with the stand-in's measured value as `truth`.
        references: the reference table the proxy was fitted on.
        parameters: how many the stand-in has.
    """
    import numpy as np
    import pandas as pd

    target = references["emergence_bits"].astype(float)
    slope, intercept = np.polyfit(references["meta.log_parameters"].astype(float), target, 1)
    row = estimate.iloc[0]
    measured = row["truth"]
    withheld = pd.isna(row["lower"])
    interval = "withheld" if withheld else f"{row['lower']:.2f} to {row['upper']:.2f}"
    rows = [
        ("truth, from its weights", measured, None),
        ("proxy, from its answers alone", row["estimate"], interval),
        ("baseline: mean of the references", target.mean(), None),
        ("baseline: log parameters, which an API hides", intercept + slope * np.log10(parameters), None),
    ]
    table = pd.DataFrame(rows, columns=["emergence of the closed model", "bits", f"{row['level']:.0%} interval"])
    table["error"] = table["bits"] - measured
    show(table)
    if withheld:
        said = "No interval is given, and so no promise: the model lies too far from the references."
    else:
        inside = row["lower"] <= measured <= row["upper"]
        said = (
            f"The truth lies {'inside' if inside else 'outside'} the interval; the proxy says the model is "
            f"{'within' if row['in_domain'] else 'outside'} the range of its references."
        )
    Console(highlight=False).print(said)
