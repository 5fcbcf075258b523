"""Natural text: documents from files, tables and data sets, and where windows start in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from estimators.base import InputError
from estimators.contracts.files import check_file
from extraction.corpora.data_sets import open_data_set, parse_data_set
from extraction.corpora.plain_text import text_at
from extraction.reading import json_rows, lines, parse_json, read_frame, read_text

TABLES = (".jsonl", ".json", ".csv", ".parquet")
ENDINGS = (".txt", *TABLES)
TEXT_COLUMNS = ("text", "output", "response", "content")
STARTS = ("sentence", "anywhere")  # where windows of text may start
BUFFER = 10_000  # rows of a streamed data set among which the next one is chosen
BATCH = 256  # texts tokenized at a time
PIECE = 500_000  # characters of a text tokenized at a time, and of all texts of a batch
ROWS = 10_000  # of a .csv read at a time

# Where a sentence starts: at the beginning of a document or paragraph, or after . ! ? with closing quotes and a space
# if what follows does not look like the middle of one (a lower-case letter); after CJK full stops without a space.
_CLOSING = "[\"'\u201d\u2019\u300d\u300f)\\]]*"
_BREAK = re.compile(rf"\A\s*|\n\s*\n\s*|(?<=[.!?]){_CLOSING}\s+(?![a-z\s])|(?<=[\u3002\uff01\uff1f]){_CLOSING}\s*")


def documents(
    source: str | PathLike[str], *, column: str | None = None, seed: int = 0, revision: str | None = None
) -> Iterator[str]:
    """Yield the documents of ``python-docs``, a file, a folder of files or ``hf:NAME``.

    A .txt file is one document (as is any with an ending of its own), a row of a table one each. A .json object without
    a text, such as a config.json, is passed over in a folder. A data set of the hub, ``hf:NAME``, ``hf:NAME:SPLIT`` or
    ``hf:NAME:CONFIG:SPLIT``, is streamed in seeded random order, from its split train unless another is named, at
    `revision` (branch, tag or commit) if one is given.

    Raises:
        InputError: if a file cannot be read, is not UTF-8, has no text column, or there is nothing in it.
    """
    if source == "python-docs":
        from pydoc_data.topics import topics

        yield from (topics[name] for name in sorted(topics))
        return
    if str(source).startswith("hf:"):
        yield from _data_set(str(source), column, seed, revision)
        return
    path = Path(source)
    files = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS) if path.is_dir() else [path]
    if not files:
        raise InputError(f"The folder {path} holds no {', '.join(ENDINGS)} file.")
    for file in files:
        if not (path.is_dir() and file.suffix == ".json" and _is_other_json(file, column)):
            yield from _file(file, column)


def sentence_starts(text: str) -> np.ndarray:
    """Return the characters at which sentences start, ascending."""
    return np.unique([match.end() for match in _BREAK.finditer(text) if match.end() < len(text)]).astype(np.int64)


class TextSample(NamedTuple):
    """Windows of text.

    Attributes:
        tokens: (n, T) token ids.
        documents: (n,) number of the document each window is from, or of the section of a long one.
        following: (n,) the token that follows there; -1 where the document ends with the window.
        sections: whether documents are few or large, and so cut into sections.
    """

    tokens: np.ndarray
    documents: np.ndarray
    following: np.ndarray
    sections: bool = False


def check_count(count: int | None) -> None:
    """Refuse a number of windows below 1; None is all.

    Raises:
        InputError: if there would be no window.
    """
    if count is not None and count < 1:
        raise InputError(f"count is the number of windows to sample, at least 1; got {count}.")


def sample_text(
    texts: Iterable[str],
    tokenizer: Any,
    tokens: int,
    *,
    count: int | None,
    seed: int,
    at: str,
    name: str,
    enough: int | None,
) -> TextSample:
    """Sample min(`count`, all there are) windows of `tokens` tokens from `texts`, uniformly and without replacement.

    Reading stops once there are `enough` windows to sample from; None: all is read.

    Raises:
        InputError: if `tokens`, `count` or `at` make no sense, there is no text, or none long enough.
    """
    check_count(count)
    if tokens < 1:
        raise InputError(f"A window holds at least 1 token; got {tokens}.")
    if at not in STARTS:
        raise InputError(f"at says where windows start, {' or '.join(STARTS)}; got {at}.")
    ids: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    ends: list[np.ndarray] = []  # of the documents, in the stream of all tokens
    seen = longest = total = found = 0
    for batch in _batched(_pieces(texts)):
        encoded = tokenizer(
            [text for _, text in batch],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        new: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for (document, text), row, offsets in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            longest = max(longest, len(row))
            first = _starts(text, np.asarray(offsets, np.int64).reshape(-1, 2), at)
            first = first[first + tokens <= len(row)]
            start = first + total
            total += len(row)
            seen = document + 1
            new.append((start, np.full(len(first), document, np.int64), np.full(len(first), total, np.int64)))
            found += len(first)
        # Joined for the whole batch: an array of its own would take more than the tokens of a short text.
        ids.append(np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int32))
        for kept, parts in zip((starts, owners, ends), zip(*new, strict=True), strict=True):
            kept.append(np.concatenate(parts))
        if enough is not None and found >= enough:
            break
    if not seen:
        raise InputError(f"{name} is empty; give a text of at least {tokens} tokens.")
    start, owner, end = np.concatenate(starts), np.concatenate(owners), np.concatenate(ends)
    whole, owner = owner, _sections(owner, start, total)
    sections = len(np.unique(owner)) > len(np.unique(whole))
    if not len(start):
        raise InputError(
            f"The longest text of {name} has {longest} tokens, or no sentence that long before its end; a window needs "
            f"{tokens}. Give a longer text or fewer tokens."
        )
    if count is not None and count < len(start):
        chosen = np.sort(np.random.default_rng(seed).choice(len(start), size=count, replace=False))
        start, owner, end = start[chosen], owner[chosen], end[chosen]
    stream = np.concatenate(ids)
    after = start + tokens
    following = np.where(after < end, stream[np.minimum(after, len(stream) - 1)], -1)
    rows = stream[start[:, None] + np.arange(tokens)]  # (n, tokens)
    return TextSample(rows.astype(np.int64), owner, following.astype(np.int64), sections)


def _sections(owner: np.ndarray, start: np.ndarray, total: int) -> np.ndarray:
    """Number the documents of windows, long ones cut into sections of a fortieth of the text.

    What is fitted on some documents and read on others needs many of them. A document counts as long if it holds more
    than a fifth of the text; where there are fewer than 20, if it holds a twentieth.

    Args:
        owner: (n,) document of each window, ascending.
        start: (n,) first token of each in the stream of all.
        total: tokens of the stream.
    """
    names, first, count = np.unique(owner, return_index=True, return_counts=True)
    edges = np.append(start[first], total)  # documents without windows count to the one before
    size = np.repeat(np.diff(edges), count)  # (n,) tokens of the document of each window
    long = size > total * (1 / 20 if len(names) < 20 else 1 / 5)
    section = np.where(long, (start - np.repeat(edges[:-1], count)) // max(1, -(-total // 40)), 0)
    _, number = np.unique(np.stack([owner, section], axis=1), axis=0, return_inverse=True)
    sections: np.ndarray = number.ravel().astype(np.int64)
    return sections


def _starts(text: str, offsets: np.ndarray, at: str) -> np.ndarray:
    """Tokens of a document at which a window may start."""
    if at == "anywhere":
        return np.arange(len(offsets))
    chars = sentence_starts(text)
    first = np.searchsorted(offsets[:, 1], chars, side="right")  # the first token that ends after the character
    inside = first < len(offsets)
    chars, first = chars[inside], first[inside]
    # A token may take in the space before its word, but not the end of the sentence before.
    clean = [not text[offsets[token, 0] : char].strip() for token, char in zip(first, chars, strict=True)]
    return np.unique(first[np.array(clean, bool)])


def _pieces(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each document and its text, a long one in pieces that no window crosses.

    A token takes a hundred times the memory of its text while it is made. A piece ends where a paragraph, a sentence,
    a line or at least a word does, if one of them does in its last tenth.
    """
    number = 0
    for text in texts:
        if not text or text.isspace():
            continue
        start = 0
        while start < len(text):
            end = min(start + PIECE, len(text))
            if end < len(text):
                tail = text[end - PIECE // 10 : end]
                ends = [tail.rfind(mark) + len(mark) for mark in ("\n\n", ". ", "\n", " ") if mark in tail]
                end -= len(tail) - ends[0] if ends else 0
            if not text[start:end].isspace():
                yield number, text[start:end]
            start = end
        number += 1


def _batched(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield texts in batches of at most `BATCH` texts and `PIECE` characters."""
    batch: list[tuple[int, str]] = []
    characters = 0
    for number, text in texts:
        if batch and (len(batch) == BATCH or characters + len(text) > PIECE):
            yield batch
            batch, characters = [], 0
        batch.append((number, text))
        characters += len(text)
    if batch:
        yield batch


# pyarrow.dataset reads folders of tables too, but asks for one schema of all files, where here each may have a text
# column of its own; it knows no .txt, and does not name the line or byte that is wrong.
def _file(path: Path, column: str | None) -> Iterator[str]:
    if path.suffix == ".jsonl":
        yield from _json_lines(path, column)
    elif path.suffix == ".parquet":
        yield from _parquet(path, column)
    elif path.suffix in (".csv", ".json"):
        yield from _table(path, column)
    else:
        yield read_text(path)


def _json_lines(path: Path, column: str | None) -> Iterator[str]:
    for number, row in json_rows(path):
        where = f"Line {number} of {path}"
        text = text_at(row.get(_text_column(list(row), where, column)), where)
        if text is not None:
            yield text


def _is_other_json(path: Path, column: str | None) -> bool:
    """Whether a .json file is one object without a text, such as settings that lie beside texts."""
    try:
        content = parse_json(read_text(path), str(path))
    except InputError:
        return False  # reading it as a table says what is wrong
    return isinstance(content, dict) and not set(content) & set(TEXT_COLUMNS if column is None else (column,))


def _table(path: Path, column: str | None) -> Iterator[str]:
    try:
        values = (
            value for frame in _frames(path) for value in frame[_text_column(list(frame.columns), str(path), column)]
        )
        yield from _texts(values, str(path))
    except InputError:
        raise
    except (ValueError, MemoryError) as error:
        raise InputError(f"{path} could not be read as a table: {str(error).splitlines()[0].rstrip('.')}.") from error


def _texts(values: Iterable[object], source: str) -> Iterator[str]:
    """Yield the texts of the rows of `source` that hold one.

    Raises:
        InputError: if a row holds something that is no text; names the row.
    """
    for row, value in enumerate(values, start=1):
        text = text_at(value, f"Row {row} of {source}")
        if text is not None:
            yield text


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    if path.suffix == ".json":
        yield read_frame(path)
        return
    for _ in lines(path):  # first, since pandas does not say which byte is not UTF-8
        pass
    with pd.read_csv(path, dtype=str, encoding="utf-8-sig", chunksize=ROWS) as reader:
        yield from reader


def _parquet(path: Path, column: str | None) -> Iterator[str]:
    check_file(path)
    try:
        schema = pq.read_schema(path)
        name = _text_column(schema.names, str(path), column)
        # A page may name a long text by its place in a dictionary, in many rows: they are written out one by one.
        named = [] if pa.types.is_nested(schema.field(name).type) else [name]
        batches = pq.ParquetFile(path, read_dictionary=named).iter_batches(columns=[name])
        yield from _texts((value.as_py() for batch in batches for value in batch.column(0)), str(path))
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise InputError(f"{path} could not be read as parquet: {str(error).splitlines()[0].rstrip('.')}.") from error


def _data_set(source: str, column: str | None, seed: int, revision: str | None) -> Iterator[str]:
    chosen = parse_data_set(source)
    with open_data_set(chosen, revision=revision, stream=True) as loaded:
        name = None
        for number, row in enumerate(loaded.shuffle(seed=seed, buffer_size=BUFFER), start=1):
            name = name or _text_column(list(row), source, column or chosen.column)
            text = text_at(row[name], f"Row {number} of {source}")
            if text is not None:
                yield text


def _text_column(columns: list[Any], source: str, column: str | None) -> Any:
    wanted = TEXT_COLUMNS if column is None else (column,)
    for name in wanted:
        if name in columns:
            return name
    raise InputError(
        f"{source} has no column {' or '.join(wanted)}; it has {', '.join(map(str, columns)) or 'none'}. "
        "Name the one with the text (--column, or column in a sweep)."
    )
