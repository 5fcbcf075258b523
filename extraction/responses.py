"""The responses table: built from an answer log, or taken from answers that exist already."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import InputError
from extraction.answer_log import AnswerLog, answer_key
from extraction.endpoints import Endpoint, Settings
from extraction.tables import RESPONSES, read_table


def responses_table(
    log: AnswerLog, model: str, endpoint: Endpoint, prompts: pd.DataFrame, samples: int, settings: Settings
) -> pd.DataFrame:
    """One row per prompt and sample, in their order, from the log; the last record of an answer counts.

    Returns:
        Schema RESPONSES and a column ``error``, null where there is an answer.
    """
    places: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    for row in prompts.itertuples(index=False):
        for sample in range(samples):
            key = answer_key(model, endpoint, str(row.prompt), sample, settings)
            places.setdefault(key, []).append(len(rows))
            rows.append(
                {
                    "model": model,
                    "prompt_id": row.prompt_id,
                    "sample": sample,
                    "prompt": row.prompt,
                    "error": "not asked",
                }
            )
    for record in log.records():
        for place in places.get(record.get("key", ""), ()):
            if "error" in record:
                if "text" not in rows[place]:
                    rows[place]["error"] = record["error"]
                continue
            known = {name: record.get(name) for name in RESPONSES.columns if name in record and name != "model"}
            rows[place].update(known, error=None)
            if record.get("logprobs") is not None:
                rows[place]["logprobs"] = json.dumps(record["logprobs"], ensure_ascii=False)
    table = RESPONSES.conform(pd.DataFrame(rows).reindex(columns=[*RESPONSES.columns, "error"]))
    return table.astype({"error": "string"})


def read_responses(source: str | Path) -> pd.DataFrame:
    """Read answers, wherever they come from.

    Args:
        source: a responses table; any table with the columns model, prompt_id and text (or output); AlpacaEval's JSON
            (instruction, output, generator), whose prompts get their hash as id; or ``hf:NAME`` or ``hf:NAME:SPLIT``, a
            data set of the hub or a folder with such columns.

    Returns:
        Schema RESPONSES.

    Raises:
        InputError: if the source cannot be read, or holds no usable answer.
    """
    if str(source).startswith("hf:"):
        frame = _named_as_here(_data_set(str(source)[3:]), str(source))
    else:
        path = Path(source)
        frame = read_table(path)
        frame = read_table(path, RESPONSES) if "text" in frame.columns else _named_as_here(frame, str(path))
    if not (frame["text"].fillna("").str.strip() != "").any():
        raise InputError(f"{source} holds no usable answer; every text is empty.")
    return frame


def _named_as_here(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    names = {"output": "text", "generator": "model", "instruction": "prompt"}
    frame = frame.rename(columns={old: new for old, new in names.items() if old in frame and new not in frame})
    if "text" not in frame.columns:
        raise InputError(
            f"Answers need the columns model, prompt_id and text (or output); {source} has "
            f"{', '.join(map(str, frame.columns)) or 'none'}."
        )
    if "prompt_id" not in frame.columns and "prompt" in frame.columns:  # by content: the same in another file
        frame["prompt_id"] = [hashlib.sha256(str(prompt).encode()).hexdigest()[:16] for prompt in frame["prompt"]]
    return RESPONSES.conform(frame)


def _data_set(name: str) -> pd.DataFrame:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "Data sets of the hub need the package datasets; pip install emergence-proxy[datasets]."
        ) from error
    path, _, split = name.partition(":")
    datasets.disable_progress_bars()
    try:
        if (Path(path) / "state.json").is_file() or (Path(path) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(path)
            loaded = loaded[split or "train"] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            loaded = datasets.load_dataset(path, split=split or "train")
        frame: pd.DataFrame = loaded.to_pandas()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"The data set {path}, split {split or 'train'}, could not be loaded: {reason}.") from error
    return frame
