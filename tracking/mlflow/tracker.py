"""The protocol that a tracker of results implements."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from tracking.results import digest

NOTE = "mlflow.note.content"  # the tag the MLflow UI shows as description


class Point(NamedTuple):
    """One value of a curve: `step` is a block, a position or a size in parameters."""

    key: str
    value: float
    step: int = 0


class DataSource(NamedTuple):
    """A dataset as a tracker names it: what was measured on, and the hash that identifies it."""

    name: str
    digest: str
    source: str
    context: str


class Known(NamedTuple):
    """A run that is already there; `digest` is None while it is incomplete."""

    run_id: str
    digest: str | None


class Tracker(Protocol):
    """Where runs are written to. Only the driver of a sweep holds one.

    Attributes:
        writers: how many threads may write at once, each to its own runs.

    >>> class Prints:  # a tracker of your own; `replay` takes it as it takes MLflow's
    ...     writers = 1
    ...     def known(self, sweep): return {}
    ...     def start(self, key, name, **how): print("run", name); return key
    ...     def log(self, run_id, **what): pass
    ...     def drop(self, run_id): pass
    ...     def upload(self, run_id, folder): pass
    ...     def end(self, run_id, **how): print("end", run_id)
    >>> from tracking import replay
    >>> from tracking.results import read_results
    >>> replay(read_results(results), Prints()).new
    run example
    run gpt2-30k on animal
    end 0123456789abcdef
    end sweep
    2
    """

    writers: int

    def known(self, sweep: str) -> dict[str, Known]:
        """Return the runs of the sweep with key `sweep`, by their own key."""

    def start(self, key: str, name: str, *, sweep: str, parent: str | None, started: int) -> str:
        """Open a run called `name` under `parent`, begun at `started` (ms), and return its id."""

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        sources: Sequence[DataSource] = (),
        at: int = 0,
    ) -> None:
        """Add to a run; `at` (ms) is the time of the points. Parameters it has already keep their values."""

    def drop(self, run_id: str) -> None:
        """Delete a run that another one replaces."""

    def upload(self, run_id: str, folder: Path) -> None:
        """Upload all files of `folder` to the run, in the same layout."""

    def end(self, run_id: str, *, digest: str, failed: bool, ended: int) -> None:
        """Mark the run as complete; called last: from now on it counts as tracked with `digest`."""


def names_for(texts: Iterable[str]) -> dict[str, str]:
    """Turn texts into names that every tracker takes, different texts into different names.

    Only where two texts would have one name does a hash follow it.

    >>> names_for(["by_layer/ie_bits", "café"])
    {'by_layer/ie_bits': 'by_layer/ie_bits', 'café': 'caf_'}
    >>> names_for(["a,b", "a;b"])
    {'a,b': 'a_b-1eb7c54d', 'a;b': 'a_b-5719af18'}
    """
    safe = {text: _safe(text) for text in texts}
    counts = Counter([*safe.values(), *(f"{name}-{digest(text.encode())[:8]}" for text, name in safe.items())])
    return {text: name if counts[name] == 1 else f"{name}-{digest(text.encode())[:8]}" for text, name in safe.items()}


def _safe(text: str) -> str:
    # Beyond the characters, MLflow refuses names that are no clean relative path.
    safe = re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)
    return "/".join(re.sub(r"^\.+", "_", part) or "_" for part in safe.split("/"))[:200]


def named(values: Mapping[str, str]) -> dict[str, str]:
    """Give parameters or tags names that every tracker takes."""
    names = names_for(values)
    return {names[text]: value for text, value in values.items()}


def number(value: object) -> float:
    """Turn a table's value into a float, a missing one into NaN."""
    return float("nan") if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]


def finite(points: Iterable[Point]) -> tuple[list[Point], list[str]]:
    """Part a run's points into those with a finite value and flags that name the others, under names a tracker takes.

    >>> finite([Point("ie", 1.0, 0), Point("ie", float("nan"), 1)])
    ([Point(key='ie', value=1.0, step=0)], ['ie at 1: nan'])
    """
    kept: list[Point] = []
    flags: list[str] = []
    points = list(points)
    names = names_for(dict.fromkeys(point.key for point in points))
    for point in (point._replace(key=names[point.key]) for point in points):
        if math.isfinite(point.value):
            kept.append(point)
        else:
            flags.append(f"{point.key} at {point.step}: {point.value}")
    return kept, flags
