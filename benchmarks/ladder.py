"""Train a ladder of GPT-2 and Gemma models between 8 and 100 million parameters, as references for a bank. Needs a GPU.

    python benchmarks/ladder.py --text DIR --out DIR [--seeds 0 1 2] [--tokens 400000000] [--only gpt2-8m]
    python benchmarks/reference_bank.py --stages DIR --book BOOK.txt --tables DIR --out my-bank

`--text` holds texts that may be used, as `*.txt` or `*.txt.gz`. Every model of a seed reads the same windows in one
order and is saved as NAME-sSEED, with the stages NAME-sSEED@12, @25 and @50; a model that is there is not trained
again. The weights stay out of the package; their tables join a bank. Not run so far, as it needs a GPU: no number of
this manual comes from it, and the bank that ships holds none of these models.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reference_text import END, books, split
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

STAGES = {1 / 8: "@12", 1 / 4: "@25", 1 / 2: "@50", 1.0: ""}
PEAK_RATE, LEAST_RATE, WARM_UP = 1e-3, 0.05, 0.02


@dataclass(frozen=True)
class Shape:
    """Width, blocks and heads of one rung; its name says about how many parameters that makes with 8,192 tokens."""

    width: int
    blocks: int
    heads: int


RUNGS = {
    "8m": Shape(256, 8, 4),
    "16m": Shape(384, 8, 6),
    "32m": Shape(512, 9, 8),
    "64m": Shape(640, 12, 10),
    "100m": Shape(768, 13, 12),
}


@dataclass(frozen=True)
class Plan:
    """How much is read, and in which portions."""

    tokens: int
    vocabulary: int = 8192
    context: int = 256
    batch: int = 64


def network(name: str, tokenizer: Tokenizer, context: int, seed: int, rungs: dict[str, Shape]) -> PreTrainedModel:
    """The untrained model ARCHITECTURE-RUNG."""
    architecture, _, rung = name.partition("-")
    shape = rungs[rung]
    torch.manual_seed(seed)
    end = tokenizer.convert_tokens_to_ids(END)
    shared = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end, "tie_word_embeddings": True}
    if architecture == "gpt2":
        inner = {"n_embd": shape.width, "n_layer": shape.blocks, "n_head": shape.heads, "n_positions": context}
        return GPT2LMHeadModel(GPT2Config(**inner, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shared))
    return GemmaForCausalLM(
        GemmaConfig(
            hidden_size=shape.width,
            intermediate_size=8 * shape.width // 3,  # gated, so that a block has as many parameters as GPT-2's
            num_hidden_layers=shape.blocks,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            head_dim=shape.width // shape.heads,
            max_position_embeddings=context,
            **shared,
        )
    )


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE of the texts."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(tokenizer_object=backend, bos_token=END, eos_token=END)


def rate(share: float) -> float:
    """Learning rate after a share of the steps: a linear start, then a cosine."""
    if share < WARM_UP:
        return PEAK_RATE * share / WARM_UP
    return PEAK_RATE * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


def train(
    name: str, seed: int, tokenizer: Tokenizer, ids: torch.Tensor, plan: Plan, out: Path, rungs: dict[str, Shape]
) -> None:
    """Train one model and save its stages.

    Args:
        name: ARCHITECTURE-RUNG.
        seed: of weights and order.
        tokenizer: of the ids.
        ids: (n,) tokens of all training texts.
        plan: how much is read.
        out: folder of the models.
        rungs: shapes by name.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(name, tokenizer, plan.context, seed, rungs).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    steps = max(8, plan.tokens // (plan.batch * plan.context))
    marks = {round(steps * share): mark for share, mark in STAGES.items()}
    order = np.random.default_rng(seed)
    for step in range(1, steps + 1):
        starts = torch.from_numpy(order.integers(len(ids) - plan.context, size=plan.batch))
        batch = ids[starts[:, None] + torch.arange(plan.context)].to(device)  # (b, t)
        for group in optimizer.param_groups:
            group["lr"] = rate(step / steps)
        with torch.autocast(device, torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in marks:
            folder = out / f"{name}-s{seed}{marks[step]}"
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            facts = {
                "model": folder.name, "seed": seed, "steps": step, "of_steps": steps,
                "tokens": step * plan.batch * plan.context, "parameters": model.num_parameters(),
                "bits_per_token": round(loss.item() / math.log(2), 4),
            }  # fmt: skip
            (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
            sys.stderr.write(f"{folder.name}: {facts['bits_per_token']} bits, {facts['parameters']:,} parameters\n")


def climb(
    texts: list[str], out: Path, names: list[str], seeds: list[int], plan: Plan, rungs: dict[str, Shape] = RUNGS
) -> None:
    """Train what is not there yet, each model with each seed."""
    tokenizer = train_tokenizer(texts, plan.vocabulary)
    ids = torch.tensor(tokenizer(END.join(texts))["input_ids"])
    for seed in seeds:
        for name in names:
            if not (out / f"{name}-s{seed}" / "training.json").is_file():
                train(name, seed, tokenizer, ids, plan, out, rungs)


def main() -> None:
    """Read the texts and train."""
    every = [f"{architecture}-{rung}" for rung in RUNGS for architecture in ("gpt2", "gemma")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="texts: *.txt or *.txt.gz")
    parser.add_argument("--out", type=Path, required=True, help="a folder per model and stage goes here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=400_000_000, help="read by each model (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="NAME", help="train these alone")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; on a CPU the ladder would take months.")
    training, _ = split(books(given.text))
    climb(training, given.out, given.only, given.seeds, Plan(given.tokens))


if __name__ == "__main__":
    main()
