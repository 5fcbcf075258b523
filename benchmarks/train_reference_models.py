"""Train the reference models bundled in extraction/reference_models, from books and category lists.

    python benchmarks/train_reference_models.py --text DIR --out DIR --seed 0

`DIR` of `--text` holds English books as `*.txt` or `*.txt.gz`. Every model sees the same sequences in the same order,
each in a process with one thread, so the result depends on the seed and not on the number of processes. A model that
is finished is skipped when the command runs again. Beside the models the script writes their card, README.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one order of merges on every machine

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from extraction.categories import CATEGORIES

END = "<|endoftext|>"
VOCABULARY = 1024
CONTEXT = 256
BATCH = 8
STEPS = 2200
HELD_OUT = 0.05  # the last part of every book
LISTS = 0.12  # share of the training sequences that consist of category lists
BLOCKS = 4  # one depth for all, so that width alone separates the sizes
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LEADS = ("", "", "", "I like these:", "The list is:", "They spoke of", "He saw")


@dataclass(frozen=True)
class Size:
    """Shape of one size of the family; head width is `width / heads` in both architectures."""

    name: str
    width: int
    heads: int
    gemma_feed_forward: int
    """Chosen so that the gated Gemma block has about as many parameters as the GPT-2 block."""


SIZES = (
    Size("30k", 16, 2, 48),
    Size("90k", 32, 2, 96),
    Size("280k", 64, 4, 192),
    Size("750k", 112, 4, 320),
    Size("2m", 192, 6, 544),
)
MODELS = {f"{architecture}-{size.name}": (architecture, size) for architecture in ("gpt2", "gemma") for size in SIZES}


# ---------------------------------------------------------------------------------------------------------- the text


def books(folder: Path) -> dict[str, str]:
    """Texts of the folder by file name, without the boilerplate of Project Gutenberg."""
    paths = sorted([*folder.glob("*.txt"), *folder.glob("*.txt.gz")])
    if not paths:
        raise SystemExit(f"{folder} holds no *.txt or *.txt.gz; give the folder of books by --text.")
    texts = {}
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")
        first = next((i + 1 for i, line in enumerate(lines) if line.startswith("*** START OF")), 0)
        last = next((i for i, line in enumerate(lines) if line.startswith("*** END OF")), len(lines))
        texts[path.name.split(".")[0]] = "\n".join(lines[first:last]).strip() + "\n"
    return texts


def split(texts: dict[str, str]) -> tuple[list[str], list[str]]:
    """The first 95 % and the last 5 % of every book, cut at a line."""
    train, held_out = [], []
    for text in texts.values():
        cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
        train.append(text[:cut])
        held_out.append(text[cut:])
    return train, held_out


def category_list(rng: np.random.Generator) -> str:
    """One list, such as " Germany, France, Japan,": 2-25 entities in random order without repetition."""
    entities = CATEGORIES[str(rng.choice(sorted(CATEGORIES)))]
    chosen = rng.permutation(entities)[: rng.integers(2, len(entities) + 1)]
    return str(rng.choice(LEADS)) + "".join(f" {entity}," for entity in chosen)


def train_tokenizer(texts: list[str], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every entity with its leading space, and the comma, are single tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    entities = [f" {entity}" for group in CATEGORIES.values() for entity in group]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A merge must be among the commonest ~770 of 8 MB of English: 1,500 occurrences are enough for that.
    rng = np.random.default_rng([seed, 1])
    lists = [",".join(rng.permutation(entities)) for _ in range(1500)]
    backend.train_from_iterator([*texts, *lists], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        unk_token=None,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    for token in [*entities, ","]:
        if len(tokenizer(token)["input_ids"]) != 1:
            raise SystemExit(f"{token!r} is not a single token; raise its count in train_tokenizer.")
    return tokenizer


@dataclass(frozen=True)
class Data:
    """Token ids, `(sequences, CONTEXT + 1)` for training and `(sequences, CONTEXT)` held out."""

    train: torch.Tensor
    held_out: torch.Tensor
    lists: torch.Tensor
    bytes_per_token: float
    """Of the held-out text."""


def prepare(texts: dict[str, str], steps: int, seed: int) -> tuple[PreTrainedTokenizerFast, Data]:
    """Tokenizer, training sequences in the order every model sees them, and the held-out ones."""
    train_texts, held_out_texts = split(texts)
    tokenizer = train_tokenizer(train_texts, seed)
    end = tokenizer.eos_token_id

    def encode(text: str) -> list[int]:
        return list(tokenizer.backend_tokenizer.encode(text).ids)

    def lists(rng: np.random.Generator, sequences: int, length: int) -> np.ndarray:
        rows = np.empty((sequences, length), np.int64)
        for row in rows:
            ids: list[int] = []
            while len(ids) < length:
                ids += [*encode(category_list(rng)), end]
            row[:] = ids[:length]
        return rows

    rng = np.random.default_rng([seed, 2])
    stream = np.array([i for text in train_texts for i in [*encode(text), end]])
    total = steps * BATCH
    length = CONTEXT + 1
    starts: list[int] = []
    while len(starts) < total:  # epoch after epoch, each cut at another offset
        starts += rng.permutation(np.arange(rng.integers(length), len(stream) - length, length)).tolist()
    train = stream[np.array(starts[:total])[:, None] + np.arange(length)]
    from_lists = rng.random(total) < LISTS
    train[from_lists] = lists(rng, int(from_lists.sum()), length)

    held_out_ids = [encode(text) for text in held_out_texts]
    held_out = np.array(
        [ids[i : i + CONTEXT] for ids in held_out_ids for i in range(0, len(ids) - CONTEXT + 1, CONTEXT)]
    )
    size = sum(len(text.encode()) for text in held_out_texts) / sum(map(len, held_out_ids))
    held_out_lists = lists(np.random.default_rng([seed, 3]), 80, CONTEXT)
    data = Data(torch.from_numpy(train), torch.from_numpy(held_out), torch.from_numpy(held_out_lists), size)
    return tokenizer, data


# --------------------------------------------------------------------------------------------------------- the models


def build(name: str, end: int, seed: int) -> PreTrainedModel:
    """The untrained model of that name."""
    architecture, size = MODELS[name]
    torch.manual_seed(seed)
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": None,  # else Gemma would hold the embedding of the end token at zero
        "initializer_range": round(0.4 / math.sqrt(size.width), 4),
        "tie_word_embeddings": True,
    }
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                n_positions=CONTEXT,
                n_embd=size.width,
                n_layer=BLOCKS,
                n_head=size.heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **shared,
            )
        )
    return GemmaForCausalLM(
        GemmaConfig(
            max_position_embeddings=CONTEXT,
            hidden_size=size.width,
            intermediate_size=size.gemma_feed_forward,
            num_hidden_layers=BLOCKS,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=size.width // size.heads,
            **shared,
        )
    )


def bits_per_token(model: PreTrainedModel, sequences: torch.Tensor) -> float:
    """Mean of -log2 p(token | tokens before) over every token but the first of each sequence."""
    total = 0.0
    with torch.inference_mode():
        for batch in sequences.split(16):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            total += cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    return total / (sequences.shape[0] * (sequences.shape[1] - 1)) / math.log(2)


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: Data, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write a `from_pretrained` folder in bf16 and training.json with the losses of the weights as written."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rounded = type(model)(model.config)
    rounded.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in model.state_dict().items()})
    rounded.eval()
    text_bits = bits_per_token(rounded, data.held_out)
    facts = {
        **facts,
        "parameters": model.num_parameters(),
        "bits_per_token": round(text_bits, 4),
        "bits_per_byte": round(text_bits / data.bytes_per_token, 4),
        "bits_per_token_lists": round(bits_per_token(rounded, data.lists), 4),
    }
    rounded.generation_config.pad_token_id = tokenizer.pad_token_id
    rounded.to(torch.bfloat16).save_pretrained(partial)
    (partial / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    tokenizer.save_pretrained(partial)
    (partial / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return facts


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


# ----------------------------------------------------------------------------------------------------------- the card

CARD = """# Reference models

Ten small causal language models in two architectures and five sizes, trained for this project. They are the default
that lets it run without a hub, a key or a GPU, and the references whose emergence can be measured. They are made to be
measured, not to be talked to: they continue text in the style of their books, and know lists of countries, animals
and colors.

{table}

Bits per token are cross-entropies, in float32, of the bf16 weights as shipped, on {held_out} held-out tokens of
the books and {lists} tokens of freshly drawn lists. Windows have {context} tokens; the first of each has no
context and is not counted. A held-out token has {bytes} bytes. Seconds are those of one thread on a shared machine.

- **Architectures**: `GPT2LMHeadModel` and `GemmaForCausalLM`, unchanged, with {blocks} blocks each, so that sizes
  differ in width alone; context {context} tokens; input and output embeddings tied; bf16.
- **Data**: {books};
  all in the public domain, without the boilerplate of Project Gutenberg; the last {held_out_share} of every book is
  held out. {lists_share} of the sequences consist of category lists instead, such as
  " Germany, France, Japan,": 2 to 25 of the entities in `extraction/categories.py`, in random order, without
  repetition.
- **Tokenizer**: one byte-level BPE of {vocabulary} tokens for all, trained on the same text. Every entity with its
  leading space is one token, and so is the comma. `<|endoftext|>` is the only special token; none is added to a text.
  The chat template joins the contents of the messages.
- **Training**: {steps} steps of {batch} sequences of {context} tokens, the same in the same order for every model;
  AdamW (0.9, 0.95), weight decay 0.1 on matrices, peak rate 0.003 * sqrt(64 / width), linear warm-up and cosine decay
  to 5%, gradient norm at most 1; float32, with bf16 autocast from width 112 on. Seed {seed}.
- **Limits**: They know what belongs in a list, hardly that nothing comes twice: the entities already named keep about
  their even share of the probability. English of the 17th to the 20th century, with the views of its authors; no
  facts, no instructions, no safety training.

To train them again: `python benchmarks/train_reference_models.py --text DIR --out DIR --seed {seed}`.
"""


def card(out: Path, texts: dict[str, str], data: Data, seed: int, steps: int) -> str:
    """The model card of all finished models below `out`."""
    table = [
        "| model | width | parameters | steps | tokens | bits/token, books | per byte | bits/token, lists | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, size) in MODELS.items():
        if facts := finished(out, name, seed, steps):
            table.append(
                f"| `{name}` | {size.width} | {facts['parameters']:,} | {facts['steps']:,} | {facts['tokens']:,} "
                f"| {facts['bits_per_token']:.3f} | {facts['bits_per_byte']:.3f} "
                f"| {facts['bits_per_token_lists']:.3f} | {facts['seconds']:.0f} |"
            )
    return CARD.format(
        table="\n".join(table),
        held_out=f"{data.held_out.numel():,}",
        lists=f"{data.lists.numel():,}",
        context=CONTEXT,
        bytes=f"{data.bytes_per_token:.2f}",
        blocks=BLOCKS,
        books=", ".join(name.replace("_", " ").title().replace(" And ", " and ") for name in texts),
        held_out_share=f"{HELD_OUT:.0%}",
        lists_share=f"{LISTS:.0%}",
        vocabulary=f"{VOCABULARY:,}",
        steps=f"{steps:,}",
        batch=BATCH,
        seed=seed,
    )


def finished(out: Path, name: str, seed: int, steps: int) -> dict[str, Any] | None:
    """What training.json says of a model, if it was trained to the end with this seed and so many steps."""
    path = out / name / "training.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return facts if (facts.get("seed"), facts.get("steps")) == (seed, steps) else None


def main() -> None:
    """Train what is not there yet, largest first, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="DIR", help="books: *.txt or *.txt.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder per model goes here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), metavar="NAME", help="train these models only")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps (default {STEPS})")
    parser.add_argument("--keep-checkpoints", type=Path, metavar="DIR", help="also save NAME@12, @25, @50 here")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="models trained at a time")
    arguments = parser.parse_args()

    wanted = sorted(arguments.only or MODELS, key=lambda name: -MODELS[name][1].width)
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
    text = card(arguments.out, texts, data, arguments.seed, arguments.steps)
    (arguments.out / "README.md").write_text(text)


if __name__ == "__main__":
    main()
