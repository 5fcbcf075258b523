"""The folder of what is kept from run to run, for the user rather than for one result."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "EMERGENCE_CACHE"  # environment variable that names another folder


def cache_folder() -> Path | None:
    """The folder, which need not exist yet; None for a user without a home."""
    if given := os.environ.get(CACHE):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emergence-proxy"
    except RuntimeError:
        return None
