"""The card of the reference models: what they are, how they were trained, and how well each predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reference_networks import BLOCKS, MODELS
from reference_text import BATCH, CONTEXT, HELD_OUT, LISTS, VOCABULARY, Data

CARD = """# Reference models

Ten small causal language models in two architectures and five sizes, trained for this project. They are the default
that lets it run without a hub, a key or a GPU, and the references whose emergence can be measured. They are made to be
measured, not to be talked to: they continue text in the style of their books, and know lists of countries, animals
and colors.

{table}

Bits per token are cross-entropies, in float32, of the bf16 weights as shipped, on {held_out} held-out tokens of
the books and {lists} tokens of fresh random lists. Windows have {context} tokens; the first of each has no
context and is not counted. A held-out token has {bytes} bytes. Seconds are those of one thread on a shared machine.

- **Architectures**: `GPT2LMHeadModel` and `GemmaForCausalLM`, unchanged, with {blocks} blocks each, so that sizes
  differ in width alone; context {context} tokens; input and output embeddings tied; bf16.
- **Data**: {books};
  all in the public domain, without the boilerplate of Project Gutenberg; the last {held_out_share} of every book is
  held out. {lists_share} of the sequences consist of category lists instead, such as
  " Germany, France, Japan,": 2 to 25 of the entities in `extraction/corpora/categories.py`, in random order, without
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
