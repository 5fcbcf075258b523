"""`emergence answer`: open models answer prompts here, in the table that an API's answers come in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import during, emit, progress


def answer(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Bundled name, folder, .gguf file or hub id.")
    ],
    prompts: Annotated[str, typer.Option(help="demo, lists, questions, or a .txt, .jsonl, .csv or .parquet file.")],
    out: Annotated[Path | None, typer.Option(help="Responses table to write: .parquet, .csv or .json.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers per prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in the model's tokens.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token every time.")] = 1.0,
    logprobs: Annotated[
        int,
        typer.Option(min=0, help="Alternatives per token to record; worth it if the closed model's API gives them."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON on stdout.")] = False,
) -> None:
    """Let open models answer prompts in this process: what `collect` does for models behind an API.

    Example: `emergence answer gpt2-30k gpt2-2m --prompts demo --out open.parquet`
    """
    import pandas as pd

    from extraction import Sampling, generate_answers, load_model
    from extraction import prompts as read_prompts
    from extraction.models.names import distinct_models
    from extraction.tables import RESPONSES, check_table_path

    if out is not None:
        check_table_path(out)
    asked = read_prompts(prompts)
    sampling = Sampling(max_tokens, temperature, seed, logprobs=logprobs)
    tables = []
    for name, display_name in distinct_models(models).items():
        with during(f"Loading {display_name}"):
            model = replace(load_model(name, device=device), name=display_name)
        with progress(f"{display_name} answers") as report:
            tables.append(
                generate_answers(
                    model,
                    asked,
                    sampling=sampling,
                    samples=samples,
                    progress=report,
                )
            )
    emit(pd.concat(tables, ignore_index=True), out, as_json=as_json, schema=RESPONSES)
