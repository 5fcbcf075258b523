"""One place in which files of other people are read: encoding, JSON, ids and missing values, the column of the text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from estimators.base import InputError
from estimators.contracts.files import check_file

_HALF = re.compile("[\ud800-\udfff]")  # half of a character, which UTF-8 cannot hold but an escape in JSON can
_INT64 = range(-(2**63), 2**63)
_INTEGERS = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


EXACT = 2**53  # up to here a float tells whole numbers apart


def whole_characters(value: Any) -> Any:
    r"""Return `value` with halves of characters in its strings, however nested, replaced as decoders do.

    >>> whole_characters({"text": "a \ud800 b"})
    {'text': 'a � b'}
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _HALF.search(value) else value
    if isinstance(value, dict):
        return {whole_characters(name): whole_characters(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    return value


def read_text(path: Path) -> str:
    """Return the content of a file of UTF-8, without a byte order mark.

    Raises:
        InputError: if the file cannot be read, or is not UTF-8 (the byte is named).
    """
    check_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}.") from error
    return _decoded(data, path)


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file of UTF-8, one at a time, ended by line feeds alone: a text may hold other breaks.

    Raises:
        InputError: if the file cannot be read, or is not UTF-8 (the byte is named).
    """
    check_file(path)
    start = 0
    try:
        with path.open("rb") as file:
            for line in file:
                yield _decoded(line, path, start)
                start += len(line)
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}.") from error


def _decoded(data: bytes, path: Path, start: int = 0) -> str:
    """Decode what lies from byte `start` on in the file `path`."""
    try:
        return data.decode("utf-8" if start else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {data[error.start]:#04x} at position {start + error.start}; convert it first."
        ) from error


def parse_json(text: str, where: str) -> Any:
    """Return what a JSON text says, whatever is wrong with it said in one sentence.

    Args:
        text: the JSON.
        where: what messages call it, e.g. ``Line 3 of answers.jsonl``.

    Raises:
        InputError: if it is not JSON, too deep, or holds a number with too many digits.
    """
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply; check the file.") from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise InputError(f"{where} holds a number with too many digits.") from error
    return whole_characters(parsed) if "\\u" in text else parsed


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with the number of its line.

    Raises:
        InputError: if a line is no object, or the file cannot be read as UTF-8 (the byte is named).
    """
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"Line {number} of {path}")
        if not isinstance(row, dict):
            raise InputError(
                f'Line {number} of {path} is not a JSON object; each line must be an object such as {{"text": "..."}}.'
            )
        yield number, row


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table in which whole numbers stay whole, also where one is missing.

    >>> frame_of([{"id": 9007199254740993}, {"id": None}])["id"].tolist()
    [9007199254740993, <NA>]
    """
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    return pd.DataFrame(
        {name: _column([row.get(name) for row in listed]) for name in names}, index=range(len(listed)), columns=names
    )


def _column(values: list[Any]) -> pd.Series[Any]:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        if not all(value in _INT64 for value in present):
            return pd.Series(values, dtype=object)
        return pd.Series(values, dtype="int64" if len(present) == len(values) else "Int64")
    if any(isinstance(value, list | dict | bytes) for value in present):
        made = np.empty(len(values), dtype=object)  # as a list, pandas would look inside
        made[:] = [None] * len(values)
        for place, value in enumerate(values):
            made[place] = value
        return pd.Series(made)
    if any(isinstance(value, int) and abs(value) > EXACT for value in present):  # beside fractions
        return pd.Series(values, dtype=object)
    return pd.Series(values)


def as_strings(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return ids or names as text: whole numbers without a fraction, whatever type their file has, and bytes decoded.

    >>> as_strings(pd.Series([1.0, None])).tolist(), as_strings(pd.Series([b"a", 2], dtype=object)).tolist()
    (['1', <NA>], ['a', '2'])
    """
    if pd.api.types.is_float_dtype(values):
        present = values.dropna()
        if ((present % 1 == 0) & (present.abs() <= EXACT)).all():
            values = values.astype("Int64")
    elif values.dtype == object:
        values = pd.Series([*map(_one_string, values)], values.index, dtype=object)  # `map` would infer a type
    return values.astype("string")


def _one_string(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT else value


def read_frame(path: Path, text_columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table from elsewhere: parquet, CSV, or JSON (a list of rows, or an object of columns).

    Whole numbers stay whole where some are missing, so that ids are what the file says. In CSV only an empty cell is
    missing: an answer may well read "NA" or "null".

    Args:
        path: ``.parquet``, ``.csv`` or ``.json``.
        text_columns: columns of a CSV that are text, whatever they look like: an id may read "007".

    Raises:
        InputError: if the file cannot be read as what its ending says, or two columns have one name.
    """
    check_file(path)
    kind = path.suffix.removeprefix(".")
    try:
        frame = {"parquet": _parquet, "csv": lambda p: _csv(p, text_columns), "json": _json}[kind](path)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory as a table; give a smaller one.") from error
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, AttributeError, RecursionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{path} could not be read as {kind}: {reason}.") from error
    check_columns(frame, str(path))
    return frame


def check_columns(frame: pd.DataFrame, source: str) -> None:
    """Refuse a table whose column names repeat or are not text.

    Raises:
        InputError: naming the column.
    """
    odd = [name for name in frame.columns if not isinstance(name, str)]
    if odd:
        raise InputError(f"{source} has a column named {odd[0]!r}; name every column by a text.")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(f"{source} has two columns named {twice[0]}; rename or remove one.")


def _parquet(path: Path) -> pd.DataFrame:
    schema = pq.read_schema(path)
    names = schema.names
    # A text that a page names by its place in a dictionary may be long, and named by millions of rows.
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    table = pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts).read()
    needed = sum(_written_out(column) for column in table.columns)
    if needed > most_bytes():
        raise InputError(f"{path} would take {needed / 2**30:.1f} GiB in memory; give a smaller one.")
    table = table.cast(pa.schema([_without_dictionary(field) for field in table.schema], table.schema.metadata))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns named {twice}; rename or remove one.")
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:  # pandas turns whole numbers into floats where one is missing
        if field.type in _INTEGERS and field.name in frame.columns and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=_INTEGERS.get).array
    return frame


def most_bytes() -> int:
    """Half of this machine's memory: what a table may take written out."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _written_out(column: pa.ChunkedArray) -> int:
    """Bytes of the texts of a column that is read as a dictionary; 0 of any other."""
    total = 0
    for chunk in column.chunks if pa.types.is_dictionary(column.type) else []:
        lengths = pc.binary_length(chunk.dictionary)
        total += pc.sum(pc.cast(lengths.take(chunk.indices), pa.int64())).as_py() or 0
    return total


def _without_dictionary(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _csv(path: Path, text_columns: Iterable[str]) -> pd.DataFrame:
    for _ in lines(path):  # first, since pandas does not say which byte is not UTF-8
        pass
    header = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False, nrows=1, header=None)
    names = header.iloc[0].tolist() if len(header) else []
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path} has two columns named {twice[0]}; rename or remove one.")
    read: dict[str, Any] = {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]}
    frame: pd.DataFrame = pd.read_csv(path, dtype=dict.fromkeys(text_columns, "string"), **read)
    floats = [name for name in frame.columns if frame[name].dtype == float and frame[name].isna().any()]
    if floats:
        written = pd.read_csv(path, dtype="string", usecols=floats, **read)
        for name in floats:
            given = written[name].dropna()
            if len(given) and given.str.fullmatch(r"[+-]?\d{1,18}").all():
                frame[name] = written[name].astype("Int64")
    return frame


def _json(path: Path) -> pd.DataFrame:
    content = parse_json(read_text(path), str(path))
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        if len({len(column) for column in content.values()}) > 1:
            raise InputError(f"{path} holds columns of different lengths; give a list of rows.")
        return pd.DataFrame({name: _column(column) for name, column in content.items()})
    if isinstance(content, dict) and content and all(isinstance(column, dict) for column in content.values()):
        index = list(dict.fromkeys(key for column in content.values() for key in column))
        return pd.DataFrame({name: _column([column.get(key) for key in index]) for name, column in content.items()})
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(f'{path} should hold a list of rows, such as [{{"text": "..."}}].')
    return frame_of(content)
