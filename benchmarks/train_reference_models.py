r"""Train the reference models bundled in extraction/reference_models, from books and category lists.

    python benchmarks/train_reference_models.py --text DIR --out DIR --seed 0

`DIR` of `--text` holds English books as `*.txt` or `*.txt.gz`. Every model sees the same sequences in the same order,
each in a process with one thread, so the result depends on the seed and not on the number of processes. A model that
is finished is skipped when the command runs again. Beside the bundled models the script writes their card, README.md.
The further references of the bank, eight architectures of two sizes, and the stages of their training:

    python benchmarks/train_reference_models.py --text DIR --out STAGES --keep-checkpoints STAGES --only \
        {llama,qwen3,olmo2,gpt_neox,phi,falcon,opt,bloom}-{90k,280k} {gpt2,gemma}-{30k,90k,280k}
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from reference_card import card, finished
from reference_networks import BUNDLED, MODELS, build, save
from reference_text import BATCH, CONTEXT, Data, books, prepare
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

STEPS = 2200


def train(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    data: Data,
    *,
    steps: int,
    seed: int,
    out: Path,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Train one model and save it below `out`, with checkpoints at 1/8, 1/4 and 1/2 of the steps."""
    torch.set_num_threads(1)
    disable_progress_bar()
    model = build(name, tokenizer.eos_token_id, seed).train()
    width = MODELS[name][1].width
    peak, warm_up = 0.003 * math.sqrt(64 / width), max(1, min(100, steps // 10))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    marks = {round(steps * part): percent for part, percent in ((1 / 8, 12), (1 / 4, 25), (1 / 2, 50))}
    began = reported = time.monotonic()
    for step, batch in enumerate(data.train.split(BATCH)[:steps], start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=width > 64):  # pays from this width on
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        seconds = time.monotonic() - began
        facts = {
            "model": name,
            "steps": step,
            "of_steps": steps,
            "tokens": step * BATCH * CONTEXT,
            "seed": seed,
            "seconds": round(seconds, 1),
        }
        if checkpoints and step in marks:
            save(model, tokenizer, data, checkpoints / f"{name}@{marks[step]}", facts)
        if time.monotonic() - reported > 30:
            reported = time.monotonic()
            left = seconds / step * (steps - step)
            bits = loss.item() / math.log(2)
            print(f"{name}: step {step}/{steps}, {bits:.2f} bits, {left:.0f} s left", file=sys.stderr, flush=True)
    return save(model, tokenizer, data, out / name, facts)


def main() -> None:
    """Train what is not there yet, largest first, and write the card of those that are bundled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="DIR", help="books: *.txt or *.txt.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder per model goes here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", choices=list(MODELS), metavar="NAME", help="train these, of any architecture"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps (default {STEPS})")
    parser.add_argument("--keep-checkpoints", type=Path, metavar="DIR", help="also save NAME@12, @25, @50 here")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="models trained at a time")
    arguments = parser.parse_args()

    wanted = sorted(arguments.only or BUNDLED, key=lambda name: -MODELS[name][1].width)
    wanted = [name for name in wanted if not finished(arguments.out, name, arguments.seed, arguments.steps)]
    texts = books(arguments.text)
    tokenizer, data = prepare(texts, arguments.steps, arguments.seed)
    print(
        f"{len(wanted)} models to train on {arguments.steps * BATCH * CONTEXT:,} tokens each; held out: "
        f"{data.held_out.numel():,} tokens of {data.bytes_per_token:.2f} bytes",
        file=sys.stderr,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        futures = [
            pool.submit(
                train,
                name,
                tokenizer,
                data,
                steps=arguments.steps,
                seed=arguments.seed,
                out=arguments.out,
                checkpoints=arguments.keep_checkpoints,
            )
            for name in wanted
        ]
        for future in as_completed(futures):
            facts = future.result()
            print(
                f"{facts['model']}: {facts['bits_per_token']:.3f} bits per held-out token, "
                f"{facts['bits_per_token_lists']:.3f} on lists, {facts['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    if all(finished(arguments.out, name, arguments.seed, arguments.steps) for name in BUNDLED):
        text = card(arguments.out, texts, data, arguments.seed, arguments.steps)
        (arguments.out / "README.md").write_text(text)


if __name__ == "__main__":
    main()
