"""The responses table: built from an answer log, or taken from answers that exist already."""

from __future__ import annotations

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


def read_responses(path: Path) -> pd.DataFrame:
    """Read answers: a responses table, any table with model, prompt_id and text (or output), or AlpacaEval's JSON.

    Raises:
        InputError: if the file cannot be read, or holds no usable answer.
    """
    frame = read_table(path)
    frame = read_table(path, RESPONSES) if "text" in frame.columns else _foreign(frame, path)
    if not (frame["text"].fillna("").str.strip() != "").any():
        raise InputError(f"{path} holds no usable answer; every text is empty.")
    return frame


def _foreign(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """AlpacaEval's columns: instruction, output, generator."""
    names = {"output": "text", "generator": "model", "instruction": "prompt"}
    frame = frame.rename(columns={old: new for old, new in names.items() if old in frame and new not in frame})
    if "text" not in frame.columns:
        raise InputError(
            f"Answers need the columns model, prompt_id and text (or output); {path} has "
            f"{', '.join(map(str, frame.columns)) or 'none'}."
        )
    if "prompt_id" not in frame.columns:
        by = frame["prompt"] if "prompt" in frame.columns else pd.Series(range(len(frame)), index=frame.index)
        frame["prompt_id"] = pd.factorize(by)[0].astype(str)
    return RESPONSES.conform(frame)
