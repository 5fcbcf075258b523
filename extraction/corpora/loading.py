"""Corpora by name as windows of T tokens: ordered lists of a category's entities, and natural text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from estimators.base import InputError
from extraction.corpora.lists import list_windows
from extraction.corpora.spec import TEXT_TOKENS, CorpusOptions, CorpusSource, resolve_corpus
from extraction.corpora.text import TABLES, TextSample, check_count, documents, sample_text
from extraction.corpora.token_windows import Windows
from extraction.models.load import added_prefix

STREAMED = 4  # windows of a streamed data set that are read for each one that is sampled


def windows(
    corpus: str | PathLike[str],
    tokenizer: Any,
    *,
    tokens: int | None = None,
    count: int | None = 2000,
    seed: int = 0,
    prefix: Sequence[int] | None = None,
    options: CorpusOptions | None = None,
) -> Windows:
    """Make the windows of a corpus for a tokenizer.

    Args:
        corpus: ``country``, ``animal`` or ``color``; ``list:FILE``, your own category, one entity per line;
            ``python-docs``, the reference texts in every Python; a .txt, .jsonl, .json, .csv or .parquet file or a
            folder of them; or ``hf:NAME``, a data set of the hub (``hf:openorca``, ``hf:openhermes``: the paper's), of
            which no more is read than gives four times `count` windows to sample from; ``hf:NAME:SPLIT`` and
            ``hf:NAME:CONFIG:SPLIT`` choose another split than ``train``, and another configuration.
        tokenizer: fast tokenizer of the model.
        tokens: T. Default: the paper's for its categories (8, 10, 10), 4 demonstrations for others, 8 for text.
        count: how many windows to sample; fewer are returned if there are fewer or some repeat; None: all.
        seed: the same seed, corpus and tokenizer give the same windows.
        prefix: token ids before every window; default: what the tokenizer adds.
        options: where windows start, tokens of a demonstration, the column and the revision to read.

    Raises:
        InputError: if the corpus is unknown or unreadable, or holds no window.

    >>> from extraction import load_model
    >>> windows("animal", load_model("gpt2-30k").tokenizer, count=50)
    <Windows of animal: 50 of 10 tokens, 50 distinct>
    """
    options = options or CorpusOptions()
    chosen = resolve_corpus(corpus)
    _check_column(chosen, options.column)
    check_count(count)
    front = added_prefix(tokenizer) if prefix is None else tuple(int(i) for i in prefix)
    length = chosen.tokens(tokens, options.demonstration)
    if chosen.kind == "list":
        return list_windows(
            chosen.label,
            chosen.entities,
            tokenizer,
            tokens=length,
            count=count,
            seed=seed,
            demonstration=options.demonstration,
            prefix=front,
        )
    texts = documents(
        chosen.source if chosen.path is None else chosen.path,
        column=options.column,
        seed=seed,
        revision=options.revision,
    )
    sample = sample_text(
        texts,
        tokenizer,
        length,
        count=count,
        seed=seed,
        at=options.at,
        name=chosen.label,
        enough=STREAMED * count if count and chosen.kind == "hub" else None,
    )
    return _of_text(sample, chosen.label, front, seed)


def check_corpus(
    corpus: str | PathLike[str],
    tokenizer: Any | None = None,
    *,
    tokens: int | None = None,
    follows: bool = False,
    options: CorpusOptions | None = None,
) -> None:
    """Refuse a corpus that gives no windows before the weights of a model are loaded for it.

    Files are read to their end and tokenized up to the first window; a data set of the hub is read that far alone.

    Args:
        corpus: as for `windows`.
        tokenizer: of the model; None: only whether the files can be read is checked.
        tokens: T, as for `windows`.
        follows: whether windows need a token after them.
        options: as for `windows`.

    Raises:
        InputError: as `windows`.

    >>> check_corpus("animal", tokens=9)
    >>> from extraction.models.tokenizers import load_tokenizer
    >>> check_corpus("animal", load_tokenizer("gpt2-30k"), tokens=9)
    Traceback (most recent call last):
    estimators.base.InputError: A list window of 2 tokens per entity and comma has a multiple of 2 tokens; got 9.
    """
    options = options or CorpusOptions()
    chosen = resolve_corpus(corpus)
    _check_column(chosen, options.column)
    length = chosen.tokens(tokens, options.demonstration)
    if chosen.kind == "list":
        entities, more = chosen.entities, options.demonstration if follows else 0
        if tokenizer is not None:
            list_windows(
                chosen.label, entities, tokenizer, tokens=length + more, count=1, demonstration=options.demonstration
            )
        return
    if tokenizer is None and chosen.kind != "file":
        return
    texts = documents(
        chosen.source if chosen.path is None else chosen.path, column=options.column, revision=options.revision
    )
    if tokenizer is not None:
        sample_text(texts, tokenizer, length + follows, count=1, seed=0, at=options.at, name=chosen.label, enough=1)
    if chosen.kind == "file":
        holds = tokenizer is not None
        for text in texts:
            holds = holds or (bool(text) and not text.isspace())
        if not holds:
            raise InputError(f"{chosen.label} is empty; give a text of at least {length} tokens.")


def _check_column(corpus: CorpusSource, column: str | None) -> None:
    """Refuse the name of a column where the corpus has none."""
    path = corpus.path if corpus.kind == "file" else None
    plain = corpus.kind in ("list", "docs") or (path is not None and path.is_file() and path.suffix not in TABLES)
    if column is not None and plain:
        raise InputError(
            f"{corpus.label} has no columns, and {column} was given for the one with the text; leave it out (--column, "
            "or column in a sweep)."
        )


def text_windows(
    texts: Iterable[str],
    tokenizer: Any,
    *,
    tokens: int = TEXT_TOKENS,
    count: int | None = 2000,
    seed: int = 0,
    at: str = "sentence",
    prefix: Sequence[int] | None = None,
    name: str = "text",
) -> Windows:
    """Make windows of `tokens` tokens of natural text, none crossing from one document to the next.

    Args:
        texts: the documents.
        tokenizer: fast tokenizer of the model.
        tokens: T.
        count: size of the sample, without replacement; None: all.
        seed: of the sample.
        at: ``sentence`` or ``anywhere``, see `CorpusOptions`.
        prefix: token ids before every window; default: what the tokenizer adds.
        name: of the corpus, for tables.

    Raises:
        InputError: if no document is long enough for one window, or `count` is below 1.

    >>> from extraction import load_model
    >>> tokenizer = load_model("gpt2-30k").tokenizer
    >>> found = text_windows(["One day a dog ran. It was a big dog."], tokenizer, tokens=3, name="story")
    >>> sorted(tokenizer.decode(row) for row in found.tokens)
    [' It was a', 'One day']
    """
    sample = sample_text(texts, tokenizer, tokens, count=count, seed=seed, at=at, name=name, enough=None)
    return _of_text(sample, name, added_prefix(tokenizer) if prefix is None else tuple(prefix), seed)


def _of_text(sample: TextSample, name: str, prefix: tuple[int, ...], seed: int) -> Windows:
    """Count equal windows once, with their number as weight, in an order that does not follow the text."""
    distinct, first, counts = np.unique(sample.tokens, axis=0, return_index=True, return_counts=True)
    order = np.random.default_rng([seed, 1]).permutation(len(distinct))
    return Windows(
        corpus=name,
        kind="text",
        tokens=distinct[order],
        weights=counts[order].astype(np.float64),
        prefix=prefix,
        documents=sample.documents[first][order],
        sections=sample.sections,
        next_tokens=sample.following[first][order],
    )
