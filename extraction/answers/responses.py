"""The responses table, read from answers that exist already: collected here or published elsewhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from estimators.base import InputError
from extraction.answers.reasoning import without_tags
from extraction.corpora.data_sets import open_data_set, parse_data_set
from extraction.corpora.plain_text import text_at
from extraction.tables import RESPONSES, Schema, read_table

# Of every row also why there is no answer, or null, what the model wrote before its answer, where that is known, and
# the settings of the sampling (`Sampling.settings`).
COLLECTED = replace(
    RESPONSES, columns={**RESPONSES.columns, "error": "string", "reasoning": "string", "sampling": "string"}
)
AS_THEY_ARE = replace(RESPONSES, columns={})  # columns not typed yet
OTHER_NAMES = {"output": "text", "generator": "model", "instruction": "prompt"}  # AlpacaEval's, and this project's
CSV_TEXTS = Schema("answers", 1, {**RESPONSES.columns, **dict.fromkeys(OTHER_NAMES, "string")}, ())


def read_responses(source: str | PathLike[str]) -> pd.DataFrame:
    r"""Read answers, wherever they come from.

    Args:
        source: a responses table; any table with the columns model, prompt_id and text (or output); AlpacaEval's JSON
            (instruction, output, generator), whose prompts get their hash as id; or ``hf:NAME``, ``hf:NAME:SPLIT`` or
            ``hf:NAME:CONFIG:SPLIT``, a data set of the hub or a folder with such columns.

    Returns:
        Schema RESPONSES. An answer that is reasoning in tags alone has no text, and ``attrs["reasoning_alone"]`` counts
        them.

    Raises:
        InputError: if the source cannot be read, holds no usable answer, or something other than text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "published.csv"
        >>> path.write_text("generator,instruction,output\nm,Name a river.,The Elbe.\n") > 0
        True
        >>> read_responses(path)[["model", "text"]].values.tolist()
        [['m', 'The Elbe.']]
    """
    if str(source).startswith("hf:"):
        with open_data_set(parse_data_set(str(source))) as loaded:
            frame = loaded.to_pandas()
        frame = _named_as_here(frame, str(source))
    else:
        path = Path(source)
        frame = read_table(path)
        if path.suffix == ".csv":
            frame = csv_texts(path, [*frame.columns])
        elif "text" in frame.columns:
            frame = read_table(path, AS_THEY_ARE)
        frame = _named_as_here(frame, str(path))
    if not (frame["text"].fillna("").str.strip() != "").any():
        raise InputError(f"{source} holds no usable answer; every text is empty.")
    return frame


def csv_texts(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table in CSV, ids as they are written, and an answer without text as an answer, unless it failed."""
    frame = read_table(path, CSV_TEXTS)[columns]
    failed = frame["error"].notna() if "error" in columns else pd.Series(False, index=frame.index)
    for name in ("text", "output"):
        if name in columns:
            frame[name] = frame[name].where(frame[name].notna() | failed, "")
    return frame


def _named_as_here(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    frame = frame.rename(columns={old: new for old, new in OTHER_NAMES.items() if old in frame and new not in frame})
    if "text" not in frame.columns:
        raise InputError(
            f"Answers need the columns model, prompt_id and text (or output); {source} has "
            f"{', '.join(map(str, frame.columns)) or 'none'}."
        )
    for name in {"model", "prompt_id"} & {*frame.columns}:
        missing = (frame[name].isna() | (frame[name].astype("string").str.strip() == "")).to_numpy(dtype=bool)
        if missing.any():
            raise InputError(
                f"Row {int(missing.argmax()) + 1} of {source} has no {name}, {int(missing.sum())} rows in all; give "
                "every answer one, or take those rows out."
            )
    alone = 0
    for name in {"text", "prompt"} & {*frame.columns}:
        values = [text_at(value, f"Row {row} of {source}, column {name},") for row, value in enumerate(frame[name], 1)]
        if name == "text":  # what a model wrote before its answer is no part of it
            parted = [("", None) if value is None else without_tags(value) for value in values]
            no_answer = [not answer.strip() and before is not None for answer, before in parted]
            alone = sum(no_answer)
            kept = zip(values, parted, no_answer, strict=True)
            values = [None if value is None or nothing else answer for value, (answer, _), nothing in kept]
        frame[name] = pd.Series(values, frame.index, "string")
    if "logprobs" in frame.columns:  # kept as JSON, whatever form a file of other people has them in
        plain = frame["logprobs"].map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
        frame["logprobs"] = plain.map(lambda v: json.dumps(v) if isinstance(v, list | dict) else v)
    if "prompt_id" not in frame.columns and "prompt" in frame.columns:  # by content: the same in another file
        frame["prompt_id"] = [hashlib.sha256(str(prompt).encode()).hexdigest()[:16] for prompt in frame["prompt"]]
    frame = RESPONSES.conform(frame)
    frame.attrs["reasoning_alone"] = alone
    return frame
