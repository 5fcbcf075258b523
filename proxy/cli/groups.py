"""Options of `emergence measure` that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
