"""Prompts to ask a model: the built-in sets, and files of your own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from estimators.base import InputError
from estimators.contracts.files import check_file
from extraction.answers.conversations import as_prompt
from extraction.answers.prompt_texts import OPENINGS, QUESTIONS
from extraction.corpora.categories import CATEGORIES
from extraction.corpora.plain_text import NotTextError
from extraction.reading import as_strings, check_columns, frame_of, json_rows, lines
from extraction.tables import Schema, read_table

BUILT_IN = ("demo", "lists", "questions")
DEMO_LISTS = 60
ROWS_AT_A_TIME = 1000
SHOTS = range(1, 13)  # the paper's figure shows 1 to 12 demonstrations
LISTS_PER_SHOT = 8
LIST_LEAD = "The list is:"
TEXTS = Schema("prompts", 1, dict.fromkeys(("prompt_id", "prompt", "instruction"), "string"), ())


def prompts(source: str | PathLike[str]) -> pd.DataFrame:
    """Read prompts from a file, or take a built-in set.

    Built in are ``demo`` (140 story openings and 60 entity lists), ``lists`` (each category of the paper with 1 to 12
    entities shown, 288 prompts) and ``questions`` (60 open questions). A file is ``.txt`` (one prompt a line),
    ``.jsonl`` or ``.json``, ``.csv`` or ``.parquet``, with a ``prompt`` column (or ``instruction``) and perhaps
    ``prompt_id``; without ids, the number of the prompt is its id.

    Returns:
        Columns ``prompt_id`` and ``prompt``, both strings, ids unique.

    Raises:
        InputError: if the source is unknown or unreadable, a prompt is empty, or an id occurs twice.

    Example:
        >>> prompts("demo").shape
        (200, 2)
    """
    if str(source) == "demo":
        return _named("opening", OPENINGS, [*_lists(DEMO_LISTS)])
    if str(source) == "questions":
        return _named("question", QUESTIONS, [])
    if str(source) == "lists":
        return _named("", (), [*_lists(len(CATEGORIES) * len(SHOTS) * LISTS_PER_SHOT)])
    return check_prompts(_read(Path(source)), str(source))


def check_prompts(frame: pd.DataFrame, source: str = "the table") -> pd.DataFrame:
    """Return the prompts of `frame` with ids, refused unless each can be asked and has a unique id.

    A prompt is a text, UTF-8 bytes, or a list of messages with role and content; see `extraction.answers.conversations`
    for how a conversation stands in the table.

    Raises:
        InputError: if there is no prompt column or no prompt, a prompt is empty or no text, or an id occurs twice.

    Example:
        >>> check_prompts(pd.DataFrame({"prompt": ["Name a river.", b"And a lake."]}))["prompt"].tolist()
        ['Name a river.', 'And a lake.']
    """
    if frame.empty:
        raise InputError(f"{source} holds no prompts; give at least one.")
    column = next((name for name in ("prompt", "instruction") if name in frame.columns), None)
    if column is None:
        raise InputError(f"Prompts need a column prompt; {source} has {', '.join(map(str, frame.columns)) or 'none'}.")
    check_columns(frame, source)
    pieces = []
    for start in range(0, len(frame), ROWS_AT_A_TIME):  # what the types need in between is a multiple of the result
        part = frame.iloc[start : start + ROWS_AT_A_TIME]
        number = pd.Series(range(start, start + len(part)), index=part.index)
        ids = part["prompt_id"] if "prompt_id" in part.columns else number
        asked = [_prompt(value, start + place, source) for place, value in enumerate(part[column], start=1)]
        pieces.append(pd.DataFrame({"prompt_id": as_strings(ids), "prompt": pd.Series(asked, part.index, "string")}))
    result = pd.concat(pieces, ignore_index=True)
    empty = result["prompt"].isna() | (result["prompt"].str.strip() == "")
    if empty.any():
        row = int(empty.to_numpy().argmax())
        raise InputError(f"Prompt {row + 1} of {source} is empty; remove it or write one ({int(empty.sum())} in all).")
    if result["prompt_id"].isna().any():
        raise InputError(f"{source} has prompts without prompt_id; give all of them one, or none.")
    twice = [] if all_distinct(result["prompt_id"]) else result["prompt_id"][result["prompt_id"].duplicated()].tolist()
    if twice:
        raise InputError(f"prompt_id {twice[0]!r} occurs more than once in {source}; give each prompt a unique id.")
    return result


def _prompt(value: object, number: int, source: str) -> str | None:
    try:
        return as_prompt(value)
    except NotTextError as error:
        raise InputError(
            f"Prompt {number} of {source} is {error}; give a text, or messages with role and content."
        ) from None


def all_distinct(texts: pd.Series[str]) -> bool:
    """Whether surely no text comes twice: their hashes differ, and take a tenth of the memory of pandas' own search.

    Example:
        >>> all_distinct(pd.Series(["one", "two"])), all_distinct(pd.Series(["one", "one"]))
        (True, False)
    """
    return len({hash(text) for text in texts}) == len(texts)


def listed_entities(prompt: str) -> tuple[str, tuple[str, ...]] | None:
    """Category and entities of a prompt that ends in a list such as ``Germany, France, Japan,``.

    Example:
        >>> listed_entities("The list is: dog, cat,")
        ('animal', ('dog', 'cat'))
        >>> listed_entities("The dog sat down,") is None
        True
    """
    text = prompt.rstrip()
    if not text.endswith(","):
        return None
    entities = tuple(part.strip() for part in re.split(r"[:\n]", text)[-1][:-1].split(","))
    for category, members in CATEGORIES.items():
        if set(entities) <= set(members):
            return category, entities
    return None


def _lists(count: int) -> list[tuple[str, str]]:
    """Ids and prompts of entity lists, categories and numbers of shots in turn, the same on every machine."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        category = sorted(CATEGORIES)[number % len(CATEGORIES)]
        shots = SHOTS[number // len(CATEGORIES) % len(SHOTS)]
        shown = rng.permutation(np.array(CATEGORIES[category], dtype=object))[:shots]
        made.append((f"list-{category}-{shots:02d}-{number:03d}", f"{LIST_LEAD} " + " ".join(f"{e}," for e in shown)))
    return made


def _named(kind: str, texts: tuple[str, ...], more: list[tuple[str, str]]) -> pd.DataFrame:
    rows = [(f"{kind}-{number:03d}", text) for number, text in enumerate(texts)] + more
    return pd.DataFrame(rows, columns=["prompt_id", "prompt"], dtype="string")


def _read(path: Path) -> pd.DataFrame:
    check_file(path)
    if path.suffix not in (".txt", ".jsonl", ".json", ".csv", ".parquet"):
        raise InputError(
            f"No built-in prompts called {path}, and prompt files end in .txt, .jsonl, .json, .csv or .parquet; "
            f"the built-in sets are {', '.join(BUILT_IN)}."
        )
    if path.suffix in (".csv", ".parquet", ".json"):
        frame = read_table(path)
        # As text, or the id 007 would become 7.
        return read_table(path, TEXTS)[[*frame.columns]] if path.suffix == ".csv" else frame
    if not path.is_file():
        raise InputError(f"No prompts at {path}; check the path.")
    if path.suffix == ".txt":
        rows: Iterator[dict[str, object]] = ({"prompt": line.rstrip("\r\n")} for line in lines(path) if line.strip())
    else:
        rows = (row for _, row in json_rows(path))
    pieces = [pd.DataFrame()]
    while some := list(itertools.islice(rows, ROWS_AT_A_TIME)):  # as a frame they take a fifth of the memory
        pieces.append(frame_of(some))
    return pd.concat(pieces, ignore_index=True)
