"""Records that carry a hash of their own content, so that damage to them is seen when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "record_sha256"  # the field that holds the hash of all others


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of `record`, with a hash of it as the last field.

    >>> is_whole(sealed({"bits": 1.5}))
    True
    """
    plain: dict[str, Any] = json.loads(json.dumps({name: value for name, value in record.items() if name != SEAL}))
    return {**plain, SEAL: _hash(plain)}


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether `record` carries a hash, and is what was sealed.

    >>> is_whole({**sealed({"bits": 1.5}), "bits": 1.4}), is_whole({"bits": 1.5})
    (False, False)
    """
    return record.get(SEAL) == _hash({name: value for name, value in record.items() if name != SEAL})


def content_hash(content: bytes) -> str:
    """Return the hash of a file's content (64 hexadecimal digits of sha256)."""
    return hashlib.sha256(content).hexdigest()


def _hash(plain: Mapping[str, Any]) -> str:
    return content_hash(json.dumps(plain, sort_keys=True).encode())
