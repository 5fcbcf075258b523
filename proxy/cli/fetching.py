"""Results behind a URL, as a local folder for what can read nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def local_results(where: str) -> Iterator[Path]:
    """Give a results folder as a local one; one behind a URL (s3://...) is copied for the while.

    Raises:
        InputError: if the URL cannot be read.
    """
    if "://" not in where:
        yield Path(where)
        return
    from estimators.base import InputError
    from proxy.sweeps.store.results import ResultsStore
    from proxy.sweeps.store.storage import open_storage

    with tempfile.TemporaryDirectory(prefix="emergence-") as scratch:
        try:
            ResultsStore(open_storage(where, writable=False)).copy_to(Path(scratch))
        except InputError:
            raise
        except Exception as error:  # each filesystem has its own errors; all mean the same here
            reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(f"Results cannot be read from {where}: {reason}.") from error
        yield Path(scratch)
