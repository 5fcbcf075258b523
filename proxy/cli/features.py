"""`emergence features`: answers to one row of features per model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import during, emit, progress, screen

if TYPE_CHECKING:
    import pandas as pd


def features(
    responses: Annotated[
        list[str] | None,
        typer.Argument(metavar="RESPONSES...", help="Tables of answers, AlpacaEval JSON, hf:NAME[:SPLIT]."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Table to write: .parquet, .csv or .json.")] = None,
    readers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Reader, repeatable: bundled name, folder, .gguf file or hub id. By default gpt2-2m."
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Known scores by model, such as a leaderboard; its columns join the rows."),
    ] = None,
    emergence: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Emergence table whose peaks become the target column.")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(metavar="TABLE", help="Emergence table of what models say next, repeatable; becomes output.*."),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Reference bank that places models by single windows; default: the one that ships."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of each prompt to read; all by default.")] = None,
    characters: Annotated[
        int | None, typer.Option(min=1, help="Characters of each answer to read; all by default.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus of these tables to use.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows and noise.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Turn answers, and what models say next, into features, one row per model.

    Takes responses tables, tables with model, prompt_id and output columns, AlpacaEval's JSON and data sets of the hub:
    what readers see in answers, how they behave, their words. By `--output` the readings that `emergence measure` takes
    of a model's output become `output.*`. Either may be left out.

    With `--targets` models without a score stay in the table: `fit` estimates them. Where it has no column family,
    families are proposed from names and shown, for you to correct in the table. After a run that was killed the same
    command continues.

    Example: `emergence features open.parquet --emergence emergence.parquet --corpus animal --out references.parquet`

    Example: `emergence features outputs/*.json --targets models.csv --out references.parquet`

    Example: `emergence features --output outputs.parquet --emergence emergence.parquet --out references.parquet`
    """
    import pandas as pd

    from estimators.base import InputError
    from extraction.answers.responses import read_responses
    from extraction.models.names import distinct_models
    from extraction.tables import check_table_path, read_table
    from proxy.features.kept import Kept
    from proxy.features.output import NOISE
    from proxy.features.provenance import ASKED
    from proxy.features.readers import DEFAULT_READERS, load_reader
    from proxy.features.scores import join_scores
    from proxy.features.table import (
        check_answers,
        compute_features,
        join_output,
        join_target,
        measured_target,
        names_measured,
    )
    from proxy.schemas import EMERGENCE, REFERENCES

    if out is not None:
        check_table_path(out)
    if not responses and not output:
        raise InputError("Give tables of answers, or by --output what models say next (emergence measure --estimator).")
    scores = None if targets is None else read_table(targets)
    said = None if not output else output_of(output, corpus, bank)
    measured = None if emergence is None else measured_target(read_table(emergence, EMERGENCE), corpus)
    kept = Kept(None if out is None else out.with_name(f"{out.name}.partial"))
    frame, remarks = said, []
    if responses:
        parts = []
        for source in responses:
            with during(f"Opening {source}"):
                read = read_responses(source)
            if alone := read.attrs["reasoning_alone"]:
                screen.print(
                    f"{source}: {alone} of {len(read)} answers are reasoning alone and count as missing; ask for them "
                    "again with room for an answer, or with reasoning turned off.",
                    style="yellow", highlight=False, markup=False, soft_wrap=True,
                )  # fmt: skip
            parts.append(read)
        answers = pd.concat(parts, ignore_index=True)
        check_answers(answers, samples=samples, characters=characters)
        if measured is not None:
            names_measured(answers["model"].dropna().unique().tolist(), measured)
        models = []
        for name, display_name in distinct_models(readers or [*DEFAULT_READERS]).items():
            with during(f"Loading the reader {display_name}"):
                models.append(load_reader(name, display_name))
        if len(kept):
            screen.print(f"Continuing from {kept.path}: {len(kept)} results of an earlier run.", highlight=False)
        with progress("Reading answers") as advance:
            frame = compute_features(
                answers, models, seed=seed, samples=samples, characters=characters, kept=kept, progress=advance
            )
        remarks = frame.attrs["remarks"]
        frame = frame if said is None else join_output(frame, said)
    assert frame is not None  # noqa: S101  # answers, or what models say next, were given
    if measured is not None:
        frame = join_target(frame, measured)
    proposed: dict[str, list[str]] = {}
    if scores is not None:
        frame = join_scores(frame, scores)
        proposed = frame.attrs["proposed"]
    shown = frame
    if out is None and not as_json:  # a screen has no room for thousands of words
        shown = frame[[name for name in frame.columns if not name.startswith(("words.", "provenance", ASKED, NOISE))]]
        hidden = len(frame.columns) - len(shown.columns)
        if hidden:
            screen.print(f"Not shown: {hidden} of words.*, noise.* and provenance; --out keeps them.", markup=False)
    emit(shown, out, as_json=as_json, schema=None if measured is None and scores is None else REFERENCES)
    kept.clear()
    if proposed:
        screen.print("Families proposed from names; correct the column family where they are wrong:", highlight=False)
    for family, members in proposed.items():
        screen.print(f"  {family}: {', '.join(members)}", markup=False, highlight=False, soft_wrap=True)
    for remark in remarks:
        screen.print(f"Left empty: {remark}", style="red", markup=False, highlight=False, soft_wrap=True)
    if remarks:
        raise typer.Exit(1)


def output_of(paths: list[Path], corpus: str | None, bank: Path | None) -> pd.DataFrame:
    """Output features of the models of emergence tables, and where single windows lie beside these, their place.

    Raises:
        InputError: if the tables hold no output, several corpora, or models that were not read alike.
    """
    import pandas as pd

    from extraction.tables import read_table
    from proxy.banks.bank import SHIPPED, load_bank
    from proxy.banks.targets import place_models
    from proxy.features.joining import check_apart
    from proxy.features.output import asked_in_chat, common_shown, output_features
    from proxy.features.provenance import ASKED, how_asked
    from proxy.measurement.continuations import table_beside
    from proxy.schemas import CONTINUATIONS, EMERGENCE

    table = pd.concat([read_table(path, EMERGENCE) for path in paths], ignore_index=True)
    if corpus is not None:
        table = table[table["corpus"] == corpus]
    shown = common_shown(table)
    features = output_features(table, shown=shown)
    beside = [read_table(each, CONTINUATIONS) for path in paths if (each := table_beside(path)).is_file()]
    windows = pd.concat(beside, ignore_index=True) if beside else CONTINUATIONS.empty()
    name = str(table.loc[table["layer"] < 0, "corpus"].iloc[0])
    placed = place_models(load_bank(bank or SHIPPED), windows, corpus=name, shown=shown, chat=asked_in_chat(table))
    check_apart("Features of single windows", features.columns, placed.columns.drop("model"))
    tokens = int(table.loc[table["layer"] < 0, "position"].max())
    asked = how_asked(name, tokens=tokens, shown=shown, chat=asked_in_chat(table))
    return features.merge(placed, on="model", how="left").assign(**{ASKED: asked})
