"""Reading and writing the project's tables: parquet, CSV or JSON by ending, atomically, with a checked schema."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from estimators.base import InputError
from estimators.contracts.files import check_file, check_new_file, replacing
from extraction.reading import as_strings, check_columns, read_frame

ENDINGS = (".parquet", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns of one kind of table.

    Attributes:
        name: of the kind of table, in messages.
        version: raised whenever the meaning of a column changes; stored in parquet files.
        columns: column name to pandas dtype, in order.
        required: columns without which a table from elsewhere cannot be used.
    """

    name: str
    version: int
    columns: dict[str, str]
    required: tuple[str, ...]

    def conform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with every column of the schema, typed and in order; further columns follow.

        Raises:
            InputError: if a required column is missing or a value does not fit its type.
        """
        check_columns(frame, f"The {self.name} table")
        missing = [column for column in self.required if column not in frame.columns]
        if missing:
            raise InputError(
                f"The {self.name} table needs the columns {', '.join(self.required)}; "
                f"{', '.join(missing)} missing, found {', '.join(map(str, frame.columns)) or 'none'}."
            )
        typed = {}
        for column, dtype in self.columns.items():
            values = frame[column] if column in frame.columns else pd.Series(pd.NA, index=frame.index)
            if dtype == "string":
                self._refuse_nested(column, values)
            try:
                with np.errstate(invalid="ignore"):  # refused below, not warned of
                    typed[column] = as_strings(values) if dtype == "string" else values.astype(dtype)  # type: ignore[call-overload]
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"Column {column} of the {self.name} table must be of type {dtype}; its values are not: {error}."
                ) from error
        rest = [column for column in frame.columns if column not in self.columns]
        return pd.concat([pd.DataFrame(typed, index=frame.index), frame[rest]], axis=1)

    def _refuse_nested(self, column: str, values: pd.Series[Any]) -> None:
        """Refuse lists and objects in a column of text: Python's way of writing them would be taken for the text."""
        if values.dtype == object:
            for row, value in enumerate(values, 1):
                if isinstance(value, list | tuple | dict | set | np.ndarray):
                    raise InputError(
                        f"Row {row} of the {self.name} table, column {column}, holds a {type(value).__name__}; give a "
                        "text."
                    )

    def empty(self) -> pd.DataFrame:
        """Return a table without rows."""
        return self.conform(pd.DataFrame(columns=[*self.columns]))

    def arrow(self, frame: pd.DataFrame) -> pa.Table:
        """Return a frame that conforms as it goes into a parquet file, which carries the schema's version."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        mark = {b"emergence.schema": f"{self.name}/{self.version}".encode()}
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **mark})


# One row per answer of a model.
RESPONSES = Schema(
    name="responses",
    version=1,
    columns={
        "model": "string",
        "prompt_id": "string",
        "sample": "Int64",
        "prompt": "string",
        "text": "string",
        "finish_reason": "string",
        "prompt_tokens": "Int64",
        "completion_tokens": "Int64",
        "logprobs": "string",  # JSON list of {"token", "logprob", "top": {token: logprob}}; null where not given
        "latency_s": "Float64",
        "system_fingerprint": "string",
        "created": "string",  # ISO 8601, UTC
    },
    required=("model", "prompt_id", "text"),
)


def check_table_path(path: str | os.PathLike[str]) -> None:
    """Refuse a table path that could not be written, before any work is done.

    Raises:
        InputError: if the ending is unknown, the path is a folder, or its folder is missing or cannot be written.
    """
    check_new_file(Path(path), "table file", ENDINGS)


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str], schema: Schema | None = None) -> None:
    """Write `frame` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        InputError: if the path cannot be used or the frame does not fit `schema`.
    """
    check_table_path(path)
    path = Path(path)
    if schema is not None:
        frame = schema.conform(frame)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            table = schema.arrow(frame) if schema is not None else pa.Table.from_pandas(frame, preserve_index=False)
            pq.write_table(table, temporary, write_page_checksum=True)
        elif path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_json(temporary, orient="records", indent=1)


def read_table(path: str | os.PathLike[str], schema: Schema | None = None) -> pd.DataFrame:
    """Read a table written here or elsewhere; `schema` checks and types it.

    Raises:
        InputError: if the file is missing, unreadable, of another schema version, or lacks columns.
    """
    path = Path(path)
    check_file(path)
    if not path.is_file():
        raise InputError(f"No table at {path}; check the path.")
    if path.suffix not in ENDINGS:
        raise InputError(f"A table file ends in {', '.join(ENDINGS)}; {path} does not.")
    if path.suffix == ".parquet" and schema is not None:
        _check_version(path, schema)
    text = () if schema is None else (name for name, dtype in schema.columns.items() if dtype == "string")
    frame = read_frame(path, text)
    return frame if schema is None else schema.conform(frame)


def _check_version(path: Path, schema: Schema) -> None:
    try:
        mark = (pq.read_schema(path).metadata or {}).get(b"emergence.schema", b"").decode("utf-8", "replace")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{path} could not be read as parquet: {reason}.") from error
    if mark and mark != f"{schema.name}/{schema.version}":
        raise InputError(
            f"{path} holds {mark}, but {schema.name}/{schema.version} was expected; write it again with this version."
        )
