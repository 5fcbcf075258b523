"""Features kept line by line beside the table that is being made, so that a run that was killed continues."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from estimators.contracts.seals import is_whole, sealed

READ = ("prompt_id", "prompt", "text", "finish_reason", "logprobs")  # what features are made from
Found = dict[str, float | None]


class Kept:
    """Results by key, in memory and, with a path, in a file of one JSON object a line.

    Numbers come back from it as they went in, bit by bit. A line that was cut when the run was killed is passed over.

    Args:
        path: of the file; None keeps results in memory alone.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "features.parquet.partial"
        >>> kept = Kept(path).put("a", {"nll": 0.1 + 0.2})
        >>> Kept(path).get("a"), Kept(path).get("b")
        ({'nll': 0.30000000000000004}, None)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._found: dict[str, Found] = {}
        if path is None or not path.is_file():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and is_whole(record):  # what is torn or damaged is made again
                self._found[str(record["key"])] = record["found"]

    def __len__(self) -> int:
        """How many results there are."""
        return len(self._found)

    def get(self, key: str) -> Found | None:
        """Return what was kept under `key`, or None."""
        return self._found.get(key)

    def put(self, key: str, found: Mapping[str, float | None]) -> Found:
        """Keep a result, in the file before anything else is done, and return it as `get` will."""
        plain = {name: None if value is None or pd.isna(value) else float(value) for name, value in found.items()}
        self._found[key] = plain
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(sealed({"key": key, "found": plain})))
        return plain

    def clear(self) -> None:
        """Forget everything; the table has been written."""
        self._found.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def key_of(answers: pd.DataFrame, *settings: object) -> str:
    """Return a key that changes with the answers, whatever else decides the result, and the version of this package."""
    digest = hashlib.sha256(importlib.metadata.version("emergence-proxy").encode())
    digest.update(repr(settings).encode())
    for name in READ:
        digest.update(json.dumps([None if pd.isna(value) else str(value) for value in answers[name]]).encode())
    return digest.hexdigest()[:32]
