"""`emergence collect`: the answers of a model that is open only through an API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import emit, progress, screen


def collect(
    model: Annotated[str, typer.Argument(help="The model's name at the server.")],
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .json; the log lies beside it.")],
    prompts: Annotated[
        str, typer.Option(help="Built-in set (demo, lists, questions) or a .txt, .jsonl, .csv or .parquet file.")
    ] = "demo",
    base_url: Annotated[str | None, typer.Option(help="Server; by default OPENAI_BASE_URL, or OpenAI.")] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "OPENAI_API_KEY",
    endpoint: Annotated[str, typer.Option(help="auto, chat, completions or responses.")] = "auto",
    samples: Annotated[int, typer.Option(help="Answers per prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in the server's tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 1.0,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    seed: Annotated[int, typer.Option(help="From which each answer's own seed is derived.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Most calls at once.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Ask a model behind an OpenAI-compatible API; every answer is kept as it arrives and paid for once.

    The same command again asks only for what is missing or failed. The key is read from the environment.

    Example: `emergence collect gpt-4o-mini --prompts demo --samples 2 --out answers.parquet`

    A server on this machine needs no key:
    `emergence collect gemma-2m --base-url http://127.0.0.1:8000/v1 --out answers.parquet`
    """
    from extraction.collect import collect as ask
    from extraction.collect import log_path
    from extraction.prompts import prompts as read_prompts

    with progress(f"Asking {model}") as tell:
        table = ask(
            model,
            read_prompts(prompts),
            base_url=base_url,
            out=out,
            key_env=key_env,
            endpoint=endpoint,
            samples=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            system=system,
            seed=seed,
            concurrency=concurrency,
            progress=tell,
        )
    screen.print(
        f"Wrote {len(table)} answers to {out}; they are kept in {log_path(out)}", highlight=False, soft_wrap=True
    )
    if as_json:
        emit(table, None, as_json=True)
    failed = table[table["error"].notna()]
    for reason, count in failed["error"].value_counts().head(10).items():
        screen.print(f"{count} failed: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    if len(failed):
        raise typer.Exit(1)
