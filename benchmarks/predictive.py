"""What the predictive observer costs beside running the model, and beside sample propagation from the same pass.

    python benchmarks/predictive.py SmolLM2-135M-Instruct.gguf                   # 5,000 windows, some minutes idle
    python benchmarks/predictive.py gpt2-2m --windows 500

All blocks and all positions (`--full`). Times are of the processor, of all threads together, so that what else the
machine does counts little; seconds on the clock stand beside. Peak memory is above that of the loaded model.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from extraction import LanguageModel, Windows, load_model, windows
from extraction.models.batches import rows_at_once
from extraction.models.blocks import run_decoder
from proxy import Propagation, measure
from proxy.measurement.prefix import with_prefix


def bare(model: LanguageModel, text: Windows) -> None:
    """Run all windows, and each distinct token alone, without a hook or the head."""
    front = torch.tensor(text.prefix, dtype=torch.int64)
    alone = torch.from_numpy(text.distinct_tokens()[0])[:, None]
    with torch.inference_mode():
        for ids in (torch.from_numpy(text.tokens), alone):
            tokens = len(front) + ids.shape[1]
            step = rows_at_once(model, tokens, head=False, held=0)
            for part in torch.split(ids, step):
                run_decoder(model.model, torch.cat([front.expand(len(part), -1), part], dim=1), head=False)


def timed(name: str, work: Callable[[], object]) -> tuple[float, float]:
    """Return processor and clock seconds, and print them with the peak of memory since the start of this work."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    processor, clock = time.process_time(), time.perf_counter()
    work()
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    peak = resident("VmHWM") - before
    print(f"{name:45} {processor:8.1f} s of processor, {clock:8.1f} s on the clock, {peak:5.2f} GB above", flush=True)
    return processor, clock


def resident(field: str) -> float:
    """Return a size of this process from /proc in GB; 0 where there is none."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e9
    return 0.0


def main() -> None:
    """Print a line per work, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="bundled name, folder, .gguf or hub id")
    parser.add_argument("--corpus", default="python-docs")
    parser.add_argument("--windows", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=4000, help="of sample propagation")
    given = parser.parse_args()
    model = with_prefix(load_model(given.model, device="cpu"))
    text = windows(given.corpus, model.tokenizer, count=given.windows, prefix=model.prefix)
    cores = min(torch.get_num_threads(), os.cpu_count() or 1)
    print(
        f"{model.name}, {len(model.blocks)} blocks, {len(text)} distinct windows of {text.tokens.shape[1]} tokens, "
        f"{cores} threads"
    )
    how = Propagation(queries=given.queries)
    run, _ = timed("bare forward passes", lambda: bare(model, text))
    by_default, _ = timed("predictive, by default", lambda: measure(model, text))
    predictive, _ = timed("predictive, --full", lambda: measure(model, text, options={"full": True}))
    states, _ = timed(
        "sample-propagation", lambda: measure(model, text, estimator="sample-propagation", propagation=how)
    )
    both, _ = timed(
        "predictive,sample-propagation, --full",
        lambda: measure(
            model, text, estimator="predictive,sample-propagation", propagation=how, options={"full": True}
        ),
    )
    beyond = max(0.0, predictive - 1.6 * run) / cores
    print(
        f"predictive, --full: {predictive / run:.2f} x the bare passes; beyond 1.6 x: {beyond:.0f} s on {cores} idle "
        "cores"
    )
    print(f"predictive, by default: {by_default / run:.2f} x the bare passes")
    print(
        f"both together: {both / max(predictive, states):.2f} x the dearer alone, "
        f"{both / (predictive + states):.2f} x the two"
    )


if __name__ == "__main__":
    main()
