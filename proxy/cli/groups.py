"""Options that several commands have, and options of `emergence measure` that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

SERVER = "Models behind an API"
COST = "What it may cost"
MLFLOW = "MLflow"

KeyEnv = Annotated[str, typer.Option(help="Environment variable that holds the API key.", rich_help_panel=SERVER)]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="Tokenizer that cuts windows: hub id, folder, .gguf, bundled name, tiktoken:ENCODING.",
        rich_help_panel=SERVER,
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(help="Maximum number of concurrent calls; lowered when the server complains.", rich_help_panel=SERVER),
]
Batch = Annotated[
    bool,
    typer.Option(
        "--batch",
        help="Use the server's Batch API: submit now; the same command fetches the replies later.",
        rich_help_panel=SERVER,
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(help='JSON: {"MODEL": {"input": 2.5, "output": 10}}, per million tokens.', rich_help_panel=COST),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        help="Limit on what is billed for the log at these prices, earlier runs included.", rich_help_panel=COST
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what would be asked and what it would cost, then stop.", rich_help_panel=COST),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.", rich_help_panel=MLFLOW
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """Which windows are read; see the help of `emergence measure`."""

    corpus: str
    windows: int
    tokens: int | None
    column: str | None
    seed: int

    def arguments(self) -> dict[str, Any]:
        """Return how many windows, and which, as `extraction.windows` takes it."""
        from extraction import CorpusOptions

        options = CorpusOptions(column=self.column)
        return {"tokens": self.tokens, "count": self.windows, "seed": self.seed, "options": options}

    def check(self, tokenizer: Any, *, follows: bool) -> None:
        """Refuse a corpus that gives no windows, before a model is loaded or asked; see `check_corpus`."""
        from extraction import CorpusOptions
        from extraction.corpora.loading import check_corpus

        check_corpus(
            self.corpus, tokenizer, tokens=self.tokens, follows=follows, options=CorpusOptions(column=self.column)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """What is measured beside each model."""

    twin: bool
    shuffled: bool
    controls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What is written and printed."""

    out: Path | None
    beside: Path | None
    plot: Path | None
    as_json: bool
