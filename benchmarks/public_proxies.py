"""Proxies on data that other people published, beside simple baselines; deterministic; fills docs/public-proxies.md.

    python benchmarks/public_proxies.py --data DIR [--cache DIR] [--out FILE] [--parts ...]

`DIR` of `--data` holds `obsscaling/` (the CSV files of github.com/ryoungj/ObsScaling, eval_results/) and
`alpaca_outputs/` (AlpacaEval's published answers, see docs/public-proxies.md); the parts `emergence` and `answers` need
no data but a bank. Features of answers are kept in `--cache` under names that change with the settings: a first run
reads 130 models' answers (about ten minutes), and what is chosen by leaving families out takes a quarter of an hour
each time. Each part is written into the page as it finishes and leaves the other parts as they are.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import public_alpaca
import public_answers
import public_emergence
import public_observational

from estimators.contracts.cells import markdown
from proxy.banks.bank import SHIPPED

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "public-proxies.md"
CACHE = Path.home() / ".cache" / "emergence-proxy" / "public-proxies"
MARK = "<!-- results of benchmarks/public_proxies.py -->"
TITLES = {
    "observational": "Observational Scaling Laws",
    "alpaca": "Win rate from answers alone",
    "emergence": "Emergence itself, from what models say next",
    "answers": "Emergence from free answers, and profiles from smaller models",
}


def main() -> None:
    """Run the parts asked for and put their tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with obsscaling/ and alpaca_outputs/")
    parser.add_argument("--cache", type=Path, default=CACHE, help="features of answers; default: %(default)s")
    parser.add_argument("--readers", nargs="*", default=["gpt2-2m"], help="bundled models that read the answers")
    parser.add_argument("--alpaca-eval", type=Path, help="checkout of AlpacaEval, for its models that --data lacks")
    parser.add_argument(
        "--bank", type=Path, default=SHIPPED, help="of the parts emergence and answers; default: the one that ships"
    )
    parser.add_argument("--parts", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--out", type=Path, default=PAGE, help="page whose results are replaced; default: %(default)s")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)

    parts: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
        "observational": lambda: public_observational.evaluate(given.data / "obsscaling"),
        "alpaca": lambda: public_alpaca.evaluate(
            given.data / "alpaca_outputs", given.readers, given.cache, given.alpaca_eval
        ),
        "emergence": lambda: public_emergence.evaluate(given.bank),
        "answers": lambda: public_answers.evaluate(given.bank),
    }
    for name in given.parts:
        started = time.process_time()
        text = section(name, parts[name]())
        page = given.out.read_text(encoding="utf-8") if given.out.is_file() else ""
        given.out.write_text(replaced(page, name, text), encoding="utf-8")
        sys.stderr.write(f"{TITLES[name]}: {time.process_time() - started:.0f} s of CPU time, into {given.out}\n")


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with one part's results put in, in the order of `TITLES`; the other parts stay."""
    before, _, after = page.partition(MARK)
    kept = dict(re.findall(r"<!-- part (\w+) -->\n(.*?)<!-- end -->", after, re.S)) | {name: text}
    found = "\n".join(f"<!-- part {part} -->\n{kept[part]}<!-- end -->\n" for part in TITLES if part in kept)
    return f"{before.rstrip()}\n\n{MARK}\n\n{found}"


def section(name: str, tables: dict[str, pd.DataFrame]) -> str:
    """Return the tables of one part in markdown, under its heading."""
    parts = [f"\n## {TITLES[name]}: what the run printed\n"]
    for title, table in tables.items():
        parts.append(f"**{title}**\n\n{markdown(table, '.3g', missing='')}\n")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
