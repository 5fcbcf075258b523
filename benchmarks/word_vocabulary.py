"""Choose the words and marks whose shares are features, and write them beside proxy/features/words.py.

    python benchmarks/word_vocabulary.py --data DIR

`DIR` holds AlpacaEval's published answers (`outputs.parquet`). A word ranks by the number of prompts to which at least
a quarter of the models answer with it, ties by how many answers hold it, then by the alphabet: what many models agree
that an answer to the prompt has in it. No target is looked at. The list holds words, nothing of any answer.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pandas as pd

from proxy.features.words import words_of

COUNT = 2400
AGREED = 0.25  # share of the models
OUT = Path(__file__).parents[1] / "proxy" / "features" / "vocabulary.txt"


def main() -> None:
    """Rank the words and write the first of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with outputs.parquet")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    given = parser.parse_args()
    chosen = ranked(pd.read_parquet(given.data / "outputs.parquet"))[:COUNT]
    given.out.write_text("\n".join(chosen) + "\n", encoding="utf-8")


def ranked(answers: pd.DataFrame) -> list[str]:
    """Return all words, the most agreed upon first; columns model, prompt_id and output."""
    needed = AGREED * answers["model"].nunique()
    agreed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for _, texts in answers.groupby("prompt_id")["output"]:
        counts = Counter(word for text in texts for word in words_of(text))
        total.update(counts)
        agreed.update(word for word, count in counts.items() if count >= needed)
    return sorted(total, key=lambda word: (-agreed[word], -total[word], word))


if __name__ == "__main__":
    main()
