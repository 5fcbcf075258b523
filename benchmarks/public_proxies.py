"""Proxies on data that nobody here made, beside the obvious baselines; deterministic.

    python benchmarks/public_proxies.py --data DIR [--checkpoints DIR] [--cache DIR] [--out docs/public-proxies.md]

`DIR` of `--data` holds `obsscaling/` (the CSV files of github.com/ryoungj/ObsScaling, eval_results/) and
`alpaca_outputs/` (AlpacaEval's published answers, see docs/public-proxies.md). `--checkpoints` holds the stages of the
bundled models' training (`benchmarks/train_reference_models.py --keep-checkpoints DIR` makes them); without it the part
on emergence itself is left out. Features and measurements are kept in `--cache`, so that a second run takes minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
import public_alpaca
import public_emergence
import public_observational

MARK = "<!-- results of benchmarks/public_proxies.py -->"


def main() -> None:
    """Run the parts asked for and print, or put into the document, their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with obsscaling/ and alpaca_outputs/")
    parser.add_argument("--checkpoints", type=Path, help="stages of the bundled models' training")
    parser.add_argument("--cache", type=Path, default=Path("public-proxies-cache"), help="features and measurements")
    parser.add_argument("--readers", nargs="+", default=["gpt2-2m"], help="bundled models that read the answers")
    parser.add_argument("--corpora", nargs="+", default=["animal", "python-docs"], help="for emergence itself")
    parser.add_argument("--parts", nargs="+", default=["observational", "alpaca", "emergence"])
    parser.add_argument("--out", type=Path, help="document whose results are replaced")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    sections = []
    if "observational" in arguments.parts:
        sections.append(
            _section("Observational Scaling Laws", public_observational.evaluate(arguments.data / "obsscaling"))
        )
    if "alpaca" in arguments.parts:
        found = public_alpaca.evaluate(arguments.data / "alpaca_outputs", arguments.readers, arguments.cache)
        sections.append(_section("Win rate from answers alone", found))
    if "emergence" in arguments.parts and arguments.checkpoints is not None:
        found = public_emergence.evaluate(arguments.checkpoints, arguments.corpora, arguments.cache)
        sections.append(_section("Emergence itself", found))
    text = "\n".join(sections)
    sys.stdout.write(text)
    if arguments.out is not None:
        before = arguments.out.read_text(encoding="utf-8").split(MARK)[0]
        arguments.out.write_text(f"{before}{MARK}\n\n{text}", encoding="utf-8")
    sys.stderr.write(f"{time.process_time():.0f} s of CPU time\n")


def _section(title: str, tables: dict[str, pd.DataFrame]) -> str:
    parts = [f"## {title}\n"]
    for name, table in tables.items():
        parts.append(f"**{name}**\n\n{_markdown(table)}\n")
    return "\n".join(parts)


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if value != value else f"{value:.3g}"
        return "" if value is None else str(value)

    rows = ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(["| " + " | ".join(map(str, table.columns)) + " |", "|" + " --- |" * len(table.columns), *rows])


if __name__ == "__main__":
    main()
