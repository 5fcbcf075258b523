"""What the reference models learn from: books and category lists, the tokenizer, and the sequences that all see."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one order of merges on every machine

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from extraction.corpora.categories import CATEGORIES

END = "<|endoftext|>"
VOCABULARY = 1024
CONTEXT = 256
BATCH = 8
HELD_OUT = 0.05  # the last part of every book
LISTS = 0.12  # share of the training sequences that consist of category lists
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LEADS = ("", "", "", "I like these:", "The list is:", "They spoke of", "He saw")


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
    # A merge must be among the ~770 most frequent of 8 MB of English: 1,500 occurrences are enough for that.
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
