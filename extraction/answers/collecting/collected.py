"""The responses table of a collection: built from the answer log in pieces, and what a run has written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from estimators.contracts.files import replacing
from extraction.answers.collecting.endpoints import Capabilities, Endpoint
from extraction.answers.collecting.log import AnswerLog, answer_key
from extraction.answers.collecting.replies import INSTEAD, is_count
from extraction.answers.conversations import prompt_text
from extraction.answers.responses import COLLECTED, csv_texts
from extraction.answers.sampling import Sampling
from extraction.tables import RESPONSES, check_table_path, read_table

ROWS_AT_A_TIME = 1000
FROM_RECORD = [name for name in RESPONSES.columns if name not in ("model", "prompt_id", "sample", "prompt", "logprobs")]


@dataclass(slots=True)
class Collected:
    """What a run has written.

    Attributes:
        out: the table.
        capabilities: what the server can do.
        rows: of the table, one per prompt and sample.
        missing: rows without an answer.
        cut_before_text: answers that reached their length before any text.
        instead: how many answers are reasoning alone, tool calls, or audio or images; they are among the missing.
        reasons: why answers are missing, and how many each.
    """

    out: Path
    capabilities: Capabilities
    rows: int = 0
    missing: int = 0
    cut_before_text: int = 0
    instead: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def table(self) -> pd.DataFrame:
        """Read what was written: schema RESPONSES and a column ``error``, why there is no answer, or null."""
        if self.out.suffix == ".csv":
            return COLLECTED.conform(csv_texts(self.out, [*COLLECTED.columns]))
        return read_table(self.out, COLLECTED)

    def count(self, piece: pd.DataFrame) -> None:
        """Add a piece of the table."""
        self.rows += len(piece)
        self.missing += int(piece["text"].isna().sum())
        self.cut_before_text += int(((piece["text"] == "") & (piece["finish_reason"] == "length")).sum())
        self.instead.update({what: int((piece["error"] == reason).sum()) for what, reason in INSTEAD.items()})
        self.reasons.update(piece["error"].dropna())


def response_chunks(
    log: AnswerLog, model: str, endpoint: Endpoint, prompts: pd.DataFrame, samples: int, sampling: Sampling
) -> Iterator[pd.DataFrame]:
    """The responses table in pieces, so that its size does not matter: one row per prompt and sample, in their order.

    The last answer in the log counts; a failure counts where there is none.

    Yields:
        Schema COLLECTED.
    """
    count = len(prompts) * samples
    for start in range(0, count, ROWS_AT_A_TIME):
        rows = [divmod(row, samples) for row in range(start, min(count, start + ROWS_AT_A_TIME))]
        yield _chunk(log, model, endpoint, prompts, rows, sampling)


def _chunk(
    log: AnswerLog,
    model: str,
    endpoint: Endpoint,
    prompts: pd.DataFrame,
    rows: Sequence[tuple[int, int]],
    sampling: Sampling,
) -> pd.DataFrame:
    made: list[dict[str, Any]] = []
    block = prompts.iloc[rows[0][0] : rows[-1][0] + 1]
    ids, texts = block["prompt_id"].tolist(), block["prompt"].astype(str).tolist()
    for number, sample in rows:
        prompt_id, prompt = ids[number - rows[0][0]], texts[number - rows[0][0]]
        row = {"model": model, "prompt_id": prompt_id, "sample": sample, "prompt": prompt_text(prompt)}
        row |= {"error": "not asked", "sampling": sampling.settings}
        record = log.record(answer_key(model, endpoint, prompt, sample, sampling))
        if record is not None:
            row |= {name: _plain(record.get(name)) for name in ("error", "reasoning", *FROM_RECORD)}
            for name in ("prompt_tokens", "completion_tokens"):
                row[name] = row[name] if is_count(row.get(name)) else None
            if record.get("logprobs") is not None:
                row["logprobs"] = json.dumps(record["logprobs"])
        made.append(row)
    return COLLECTED.conform(pd.DataFrame(made).reindex(columns=[*COLLECTED.columns]))


def _plain(value: Any) -> Any:
    """The value with halves of characters, which no table can hold, replaced."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def write_chunks(chunks: Iterable[pd.DataFrame], path: Path) -> None:
    """Write pieces of a responses table as they come; a reader sees the old file or the whole new one.

    Raises:
        InputError: if the path cannot be used.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "answers.csv"
        >>> row = {"model": "m", "prompt_id": "0", "text": "The Elbe."}
        >>> write_chunks([COLLECTED.conform(pd.DataFrame([row]))], path)
        >>> from extraction.answers.responses import read_responses
        >>> read_responses(path)["text"].tolist()
        ['The Elbe.']
    """
    check_table_path(path)
    with replacing(path) as temporary:
        _write_parquet(chunks, temporary) if path.suffix == ".parquet" else _write_text(chunks, temporary, path.suffix)


def _write_parquet(chunks: Iterable[pd.DataFrame], path: Path) -> None:
    writer = None
    try:
        for chunk in chunks:
            table = COLLECTED.arrow(chunk)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _write_text(chunks: Iterable[pd.DataFrame], path: Path, ending: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, chunk in enumerate(chunks):
            if ending == ".csv":
                chunk.to_csv(file, index=False, header=number == 0)
            else:
                file.write(("," if number else "[") + chunk.to_json(orient="records", indent=1)[1:-1].rstrip())
        if ending == ".json":
            file.write("\n]")
