"""Where the public benchmarks keep what takes long to make. Part of public_proxies.py."""

from __future__ import annotations

import hashlib
from pathlib import Path


def table_path(cache: Path, name: str, *settings: object) -> Path:
    """Return a file whose name changes with the settings, so that no table of other settings passes for this one."""
    key = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    return cache / f"{name}.{key}.parquet"
