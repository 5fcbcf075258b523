"""How long `emergence features` takes beside the bare forward passes of its reader over the same answers.

    python benchmarks/features_speed.py [--reader gpt2-2m] [--answers 805] [--characters 800]

The answers are passages of this project's own documentation. Both are timed in turn, by the clock and by the processor,
three times, and the least of each is printed: a busy machine only adds to a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from extraction import LanguageModel, load_model
from proxy import compute_features

REPEATS = 3
BATCH_TOKENS = 8192
DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", default="gpt2-2m", help="default: %(default)s")
    parser.add_argument("--answers", type=int, default=805, help="default: %(default)s")
    parser.add_argument("--characters", type=int, default=800, help="of each answer; default: %(default)s")
    given = parser.parse_args()
    reader = load_model(given.reader)
    texts = passages(given.answers, given.characters)
    answers = pd.DataFrame({"model": "m", "prompt_id": [str(number) for number in range(len(texts))], "text": texts})
    rows = [encoded(reader, text) for text in texts]
    print(f"{len(texts)} answers, {sum(map(len, rows)):,} tokens, {torch.get_num_threads()} threads")
    forward = least(lambda: forward_passes(reader, rows))
    features = least(lambda: compute_features(answers, [reader]))
    for name, taken in {"bare forward passes": forward, "features": features}.items():
        print(f"{name}: {taken[0]:.1f} s by the clock, {taken[1]:.1f} s of the processor")
    clock, processor = (features[at] / forward[at] for at in (0, 1))
    print(f"features / forward: {clock:.2f} by the clock, {processor:.2f} of the processor")


def passages(count: int, characters: int) -> list[str]:
    """Return as many passages of the documentation, from places spread over it."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md")))
    step = max(1, (len(text) - characters) // count)
    return [text[number * step : number * step + characters] for number in range(count)]


def encoded(reader: LanguageModel, text: str) -> list[int]:
    """Return the ids that the reader is run on, up to its context."""
    ids: list[int] = reader.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [*reader.prefix, *ids][: reader.context]


def forward_passes(reader: LanguageModel, rows: list[list[int]]) -> None:
    """Run the reader once over all answers, those of like length together."""
    rows = sorted(rows, key=len)
    with torch.inference_mode():
        while rows:
            size = max(1, min(len(rows), BATCH_TOKENS // len(rows[0])))
            batch, rows = rows[:size], rows[size:]
            ids = torch.zeros(len(batch), len(batch[-1]), dtype=torch.long)
            for place, row in enumerate(batch):
                ids[place, : len(row)] = torch.tensor(row)
            reader.model(input_ids=ids.to(reader.device), use_cache=False)


def least(run: Callable[[], object]) -> tuple[float, float]:
    """Return the least of the clock's and of the processor's seconds."""
    clock, processor = [], []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        run()
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return min(clock), min(processor)


if __name__ == "__main__":
    main()
