"""`emergence bank`: reference banks, built, shown, checked and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import during, progress, screen, show

READING = "Reading the bank"


def build(
    sources: Annotated[list[Path], typer.Argument(help="Results of sweeps, emergence tables, tables of answers.")],
    out: Annotated[Path, typer.Option(help="New folder for the bank.")],
    name: Annotated[str | None, typer.Option(help="Name of the bank; default: of its folder.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of its tables.")] = "not stated",
    provenance: Annotated[str, typer.Option(help="How the models were measured.")] = "not stated",
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="File of a corpus whose text goes into the bank, repeatable; the first is the default."),
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Number of windows requested; default: taken from the rows.")
    ] = None,
) -> None:
    """Make a bank of open models that were measured: their blocks and their output, on the same corpora.

    With tables of what they answered (`emergence answer`, all to the same prompts) the bank also estimates models of
    which only answers are known.

    Models are measured by `emergence measure MODELS --estimator
    predictive,predictive-20,output-20,output-2-of-20,output-2`. `MODEL@STAGE` is a checkpoint of the run MODEL;
    checkpoints of a run count as one.

    Example: `emergence bank build results/references answers.parquet --out my-bank --licence CC0-1.0`
    """
    from proxy.banks.building import build_bank

    with progress(f"Building {out}") as advance:
        made = build_bank(
            sources,
            out,
            name=name or out.name,
            licence=licence,
            provenance=provenance,
            corpora=corpus or (),
            windows=windows,
            progress=advance,
        )
    screen.print(f"Wrote {out}: {len(made.models)} models of {made.runs} runs", highlight=False, soft_wrap=True)


def show_bank(
    bank: Annotated[Path | None, typer.Argument(help="Folder of a bank; default: the one that ships.")] = None,
) -> None:
    """Show what a bank holds: corpora, models, and the proxies that it gives.

    Example: `emergence bank show`
    """
    import pandas as pd

    from proxy.banks.answers import prompts_of
    from proxy.banks.bank import SHIPPED, load_bank
    from proxy.banks.estimating import FEWEST_RUNS
    from proxy.banks.ways import proxies
    from proxy.regression.references import provenances

    with during(READING):
        found = load_bank(bank or SHIPPED)
    count = found.answers["model"].nunique()
    asked = [f"{count} models, {prompts_of(one)}; {one.sentence}" for one in provenances(found.answers)[:1]]
    facts = {
        "name": found.name,
        "models": len(found.models),
        "runs": found.runs,
        "families": ", ".join(sorted(found.models["family"].unique())),
        "answers": asked[0] if asked else "none",
        "licence": found.licence,
        "provenance": found.provenance,
    }
    show(pd.DataFrame({"bank": [*facts], "": [str(value) for value in facts.values()]}))
    rows = [
        {
            "corpus": corpus.name,
            "version": corpus.version,
            "kept": corpus.kept,
            "tokens": corpus.tokens,
            "windows": corpus.windows,
            "blocks by": ", ".join(found.estimators(corpus.name)),
            "proxies": ", ".join(proxies(found, corpus.name, (found.estimators(corpus.name) or [""])[0])),
        }
        for corpus in found.corpora
    ]
    show(pd.DataFrame(rows))
    if found.runs < FEWEST_RUNS:
        screen.print(f"It has {found.runs} runs; estimates need {FEWEST_RUNS}.", style="red", highlight=False)


def check(bank: Annotated[Path, typer.Argument(help="Folder of a bank.")]) -> None:
    """Check a bank: its schema, its hashes, that it holds nothing else, and that proxies can be fitted from it.

    Example: `emergence bank check my-bank`
    """
    from proxy.banks.bank import load_bank
    from proxy.banks.estimating import check_runs

    with during(READING):
        found = load_bank(bank)
    check_runs(found)
    screen.print(f"{bank} is whole: {len(found.models)} models of {found.runs} runs", highlight=False, soft_wrap=True)


def merge(
    banks: Annotated[list[Path], typer.Argument(help="Folders of banks of different models.")],
    out: Annotated[Path, typer.Option(help="New folder for the bank.")],
    name: Annotated[str | None, typer.Option(help="Name of the bank; default: of its folder.")] = None,
) -> None:
    """Put banks together, on the corpora that all of them have.

    Example: `emergence bank merge my-bank other-bank --out both`
    """
    from proxy.banks.building import merge_banks

    with during(f"Merging {len(banks)} banks"):
        made = merge_banks(banks, out, name=name or out.name)
    screen.print(f"Wrote {out}: {len(made.models)} models of {made.runs} runs", highlight=False, soft_wrap=True)


def table(
    out: Annotated[Path, typer.Option(help="Reference table to write: .parquet, .csv or .json.")],
    bank: Annotated[Path | None, typer.Argument(help="Folder of a bank; default: the one that ships.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus of the bank; default: its first.")] = None,
    estimator: Annotated[
        str, typer.Option(help="Estimator of the blocks: predictive or sample-propagation.")
    ] = "predictive",
    without: Annotated[str | None, typer.Option(help="Model to leave out, with its whole run.")] = None,
) -> None:
    """Write the reference table of a bank: output features and targets of each model, for `emergence fit`.

    Example: `emergence bank table --out references.parquet`
    """
    from extraction.tables import check_table_path
    from proxy.banks.bank import SHIPPED, load_bank
    from proxy.banks.targets import reference_table, without_model
    from proxy.cli.console import emit
    from proxy.schemas import REFERENCES

    check_table_path(out)
    with during(READING):
        found = load_bank(bank or SHIPPED)
    chosen = found.corpus(corpus).name
    if without is not None:
        found, _ = without_model(found, without)
    shown = max(found.shown(chosen), default=0)
    with during(f"Placing {len(found.models)} models by single windows"):
        references = reference_table(found, chosen, shown=shown, estimator=estimator)
    emit(references, out, schema=REFERENCES)
    for remark in references.attrs["remarks"]:
        screen.print(f"Note: {remark}.", highlight=False, soft_wrap=True)


COMMANDS = {"build": build, "show": show_bank, "table": table, "check": check, "merge": merge}
